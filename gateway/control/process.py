"""A program in the foreground: its event loop, its logs, its signals, and how it fails."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import uvloop

from gateway.control import logs


def run(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]], *failures: type[Exception]) -> None:
    """Do a program's work, which is to end when its event is set: SIGTERM and SIGINT do so.

    OSError and `failures` end it with exit code 1 and their text on stderr.
    """
    logs.configure()
    told: tuple[type[Exception], ...] = (OSError, *failures)
    try:
        uvloop.run(_until_signalled(work))
    except told as error:
        raise SystemExit(f"moorage: {error}") from None


async def _until_signalled(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    await work(stop)


async def cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    """End tasks that would go on for ever; return when they have ended."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
