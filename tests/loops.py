"""Run an async test under both event loops: asyncio's own and uvloop's."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

FACTORIES: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Decorate an async test; it may use synchronous fixtures."""

    @functools.wraps(test)
    def run(loop_name: str, **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=FACTORIES[loop_name]) as runner:
            runner.run(test(**fixtures))

    signature = inspect.signature(test)
    loop_name = inspect.Parameter("loop_name", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    # What pytest reads to find fixtures; __wrapped__ would lead it back to the test, which has no loop_name.
    parameters = [loop_name, *signature.parameters.values()]
    vars(run)["__signature__"] = signature.replace(parameters=parameters, return_annotation=None)
    del vars(run)["__wrapped__"]
    parametrized: Callable[..., None] = pytest.mark.parametrize("loop_name", list(FACTORIES))(run)
    return parametrized
