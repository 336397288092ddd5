"""Gateways whose instances are not there from the beginning: asked, looked at and put to sleep by their own APIs."""

import json
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers import Ports, Proxy
from benchmarks.processes import Broken, free_port, python
from gateway.agent.tokens import Tokens

APP, ID = "bench", "i-1"
_SECRET = "only for measurements, never for use"
_ANSWER_S = 90.0

_FILE = """
[gateway]
listen = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"
secret = ["{secret}"]
catalog = "memory:"

[agent]
listen = "127.0.0.1:{agent}"
{more}
"""


def gateway(more: str) -> Callable[[Path, int, Ports], list[str]]:
    """The command line of a gateway with an agent inside that can be asked; `more` is the rest of `[agent]` and of the
    file."""

    def command(folder: Path, port: int, _: Ports) -> list[str]:
        path = folder / "moorage.toml"
        path.write_text(_FILE.format(port=port, admin=free_port(), agent=free_port(), secret=_SECRET, more=more))
        return python("gateway", "serve", "-c", path)

    return command


class Control:
    """The one instance of such a gateway, as operators and other gateways reach it."""

    def __init__(self, proxy: Proxy) -> None:
        settings = tomllib.loads((proxy.folder / "moorage.toml").read_text())
        self._proxy = proxy
        self._admin = f"http://{settings['gateway']['admin']}"
        self._agent = f"http://{settings['agent']['listen']}"
        self._token = Tokens([_SECRET.encode()]).of(self._agent)

    def machine(self, id: str = ID) -> dict[str, Any]:
        """The instance as the gateway knows it; empty for one that it does not know. Raises Broken."""
        return _json(urllib.request.Request(f"{self._admin}/v1/apps/{APP}/machines/{id}"))

    def await_state(self, *states: str, id: str = ID) -> None:
        """Return when it is in one of these states. Raises Broken if it never is."""
        self._proxy.process.until(
            lambda: self.machine(id).get("state") in states, f"{APP}/{id} is never {' or '.join(states)}"
        )

    def stop(self, id: str = ID) -> None:
        """Stop it as the sleeper would, so that the next request wakes it. Raises Broken."""
        request = urllib.request.Request(
            f"{self._agent}/v1/apps/{APP}/machines/{id}/stop",
            b'{"hold": false}',
            {"authorization": f"Bearer {self._token}", "content-type": "application/json"},
        )
        answer = _json(request)
        if answer.get("outcome") != "stopped":
            raise Broken(f"the instance was not stopped: {answer}")
        self.await_state("stopped", id=id)


def _json(request: urllib.request.Request) -> dict[str, Any]:
    """The answer, empty for a 404."""
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_S) as answer:
            value = json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return {}
        raise Broken(f"{request.full_url} was answered {error.code}", error.read().decode(errors="replace")) from error
    except OSError as error:
        raise Broken(f"{request.full_url} was not answered: {error}") from error
    assert isinstance(value, dict)
    return value
