"""What the gateway adds to an instance's own start: one request to a stopped instance, beside starting the same server
by hand and connecting as soon as its port listens.

The two are measured in turn, pair by pair. A pair's difference is what the gateway added: noticing the request, asking
for the start, noticing that the port is open, telling all, connecting.
"""

import contextlib
import json
import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.bench import Bench, Column, Item, Sample
from benchmarks.client import INITIALIZE, percentile
from benchmarks.containers import LABELLED, PORT, SOCKET, Engine, lacking
from benchmarks.peers import Peer, Proxy
from benchmarks.processes import Broken, free_port, started
from benchmarks.sleeping import APP, ID, Control, gateway

POLL_S = 0.0005
"""How often one's own hand looks whether the port is open."""
LIMIT_S = 60.0

_HERE = Path(__file__).parent
_REQUEST = (
    b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"
    b"accept: application/json, text/event-stream\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
)
_COMMAND = """
[apps.{app}]
wake_timeout = "{limit_s:g}s"

[[apps.{app}.instances]]
id = "{id}"
command = {command}
"""
TINY = [sys.executable, str(_HERE / "tiny.py"), "127.0.0.1", "{port}"]
MCP = [sys.executable, str(_HERE.parent / "examples/python-mcp/server.py"), "--port", "{port}", "--name", ID]


# --- one start -------------------------------------------------------------------------


def ask(host: str, port: int) -> None:
    """Connect, send one request, read the whole answer. Raises ConnectionRefusedError, and Broken unless it is 200."""
    answer = b""
    try:
        with socket.create_connection((host, port), timeout=LIMIT_S) as connection:
            connection.sendall(_REQUEST % (port, len(INITIALIZE), INITIALIZE))
            while piece := connection.recv(65536):
                answer += piece
    except ConnectionRefusedError:
        raise
    except OSError as error:
        raise Broken(f"the first request was not answered: {error}") from error
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise Broken(f"the first request was answered {answer[:300]!r}")


def ask_when_open(host: str, port: int) -> None:
    """The same, of a server that is starting."""
    deadline_s = time.perf_counter() + LIMIT_S
    while time.perf_counter() < deadline_s:
        with contextlib.suppress(ConnectionRefusedError):
            return ask(host, port)
        time.sleep(POLL_S)
    raise Broken(f"nothing listens on port {port}")


def timed(work: Callable[[], None]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def added(by_hand_s: list[float], through_s: list[float]) -> Sample:
    """The sample of some pairs."""
    each_s = [through - by_hand for by_hand, through in zip(by_hand_s, through_s, strict=True)]
    return {
        "added_p50_s": statistics.median(each_s),
        "added_p99_s": percentile(each_s, 0.99),
        "by_hand_p50_s": statistics.median(by_hand_s),
        "through_p50_s": statistics.median(through_s),
    }


def _pairs(count: int, by_hand: Callable[[], float], through: Callable[[], float]) -> Sample:
    pairs = [(by_hand(), through()) for _ in range(count)]
    return added([pair[0] for pair in pairs], [pair[1] for pair in pairs])


# --- processes and containers ----------------------------------------------------------


def wake(bench: Bench, proxy: Proxy) -> Sample:
    """Pairs of starts: by hand, and by a request through the gateway."""
    count = bench.amount(100, 10, proxy.peer.share)
    if proxy.peer is CONTAINER:
        with Engine() as engine:
            return _containers(count, engine, proxy)
    return _processes(bench, count, MCP if proxy.peer is SERVER else TINY, proxy)


def _processes(bench: Bench, count: int, command: list[str], proxy: Proxy) -> Sample:
    control = Control(proxy)

    def by_hand() -> float:
        port = free_port()
        argv = [word.replace("{port}", str(port)) for word in command]
        began_s = time.perf_counter()
        with started(argv, core=None, log=bench.folder / "by-hand.log"):
            ask_when_open("127.0.0.1", port)
            return time.perf_counter() - began_s

    def through() -> float:
        taken_s = timed(lambda: ask("127.0.0.1", proxy.port))
        control.stop()
        return taken_s

    through()  # the first one finds code that was never run
    return _pairs(count, by_hand, through)


def _containers(count: int, engine: Engine, proxy: Proxy) -> Sample:
    control = Control(proxy)
    # The same twice, but for the label that makes the second one an instance.
    with engine.container({}) as own, engine.container(LABELLED):
        control.await_state("created", "stopped")

        def start() -> None:
            engine.start(own)
            ask_when_open(engine.address(own), PORT)

        def by_hand() -> float:
            taken_s = timed(start)
            engine.stop(own)
            return taken_s

        def through() -> float:
            taken_s = timed(lambda: ask("127.0.0.1", proxy.port))
            control.stop()
            return taken_s

        by_hand(), through()
        return _pairs(count, by_hand, through)


# --- the item --------------------------------------------------------------------------


def _command(command: list[str]) -> str:
    return _COMMAND.format(app=APP, id=ID, command=json.dumps(command), limit_s=LIMIT_S)


PROCESS = Peer("moorage-process", "a process that does nothing", gateway(_command(TINY)))
SERVER = Peer("moorage-server", "an MCP server of the Python SDK", gateway(_command(MCP)), share=0.2)
CONTAINER = Peer(
    "moorage-container",
    "a container that does nothing",
    gateway(f'docker = "unix://{SOCKET}"\n[apps]\n'),
    share=0.3,
    needs=lacking,
)

WAKE = Item(
    "wake",
    "Waking: the first request to a stopped instance, beside a start by hand",
    "",
    (
        Column("by_hand_p50_s", "by hand p50 ms", 1e3),
        Column("through_p50_s", "through the gateway p50 ms", 1e3),
        Column("added_p50_s", "added p50 ms", 1e3),
        Column("added_p99_s", "added p99 ms", 1e3),
    ),
    wake,
    any_core=True,
    own=(PROCESS, SERVER, CONTAINER),
    rows="instance",
    rounds=5,
    short_rounds=1,
)
