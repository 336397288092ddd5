"""What a session's silent event stream costs while its instance sleeps: parked at the gateway, beside open.

One instance, many sessions, each with its GET stream. The streams are opened and counted, left alone until the instance
is suspended, and counted again. Then one session makes one call, and every stream is attached again: the instance
greets a session's second stream with an event, and the clients say when all have heard it.
"""

import http.client
import json
import time

from benchmarks.bench import Bench, Column, Item, Sample
from benchmarks.client import INITIALIZE
from benchmarks.peers import Peer, Proxy
from benchmarks.posts import CALL
from benchmarks.processes import Broken, python
from benchmarks.sleeping import APP, ID, Control, gateway

WARM_UP_POSTS = 1_000
_LIMIT_S = 60.0
_HEADERS = {"content-type": "application/json", "accept": "application/json, text/event-stream"}

_APP = f"""
[apps.{APP}]
auto_stop = "suspend"
idle_streams = "park"
idle_after = "1s"
idle_grace = "0s"

[[apps.{APP}.instances]]
id = "{ID}"
command = {json.dumps(python("benchmarks.instance", "{port}"))}
"""


def parked(bench: Bench, proxy: Proxy) -> Sample:
    """Memory and descriptors of the gateway per stream, and how long one call takes that wakes all of them."""
    control, gateway_process = Control(proxy), proxy.process
    streams = bench.amount(1_000, 200)
    session = _open_session(proxy.port)
    _warm_up(bench, proxy.port)
    # The first readings are taken of a gateway that has done everything once and has no connection.
    control.await_state("suspended")
    bytes_before, descriptors_before = gateway_process.memory_bytes(alone=True), gateway_process.descriptors()
    with bench.load("streams", proxy.port, streams, streams) as load:
        bytes_open, descriptors_open = gateway_process.memory_bytes(alone=True), gateway_process.descriptors()
        control.await_state("suspended")
        bytes_parked, descriptors_parked = gateway_process.memory_bytes(alone=True), gateway_process.descriptors()
        began_s = time.perf_counter()
        _post(proxy.port, CALL, session)
        answered_s = time.perf_counter() - began_s
        result = load.result()
        attached_s = time.perf_counter() - began_s
    if result["received"] != streams:
        raise Broken(f"{result['received']} of {streams} streams were attached again")
    return {
        "open_bytes": (bytes_open - bytes_before) / streams,
        "parked_bytes": (bytes_parked - bytes_before) / streams,
        "open_descriptors": (descriptors_open - descriptors_before) / streams,
        "parked_descriptors": (descriptors_parked - descriptors_before) / streams,
        "answered_s": answered_s,
        "attached_s": attached_s,
    }


def _warm_up(bench: Bench, port: int) -> None:
    with bench.load("posts", port, 32, WARM_UP_POSTS) as load:
        load.tell("go")
        load.result()
    with bench.load("streams", port, 1, 1):
        pass  # opened, and left again


def _open_session(port: int) -> str:
    id = _post(port, INITIALIZE).getheader("mcp-session-id")
    if not id:
        raise Broken("initialize was answered without a session id")
    return id


def _post(port: int, body: bytes, session: str = "") -> http.client.HTTPResponse:
    """One request on a connection of its own, answered. Raises Broken unless it is 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_LIMIT_S)
    try:
        connection.request("POST", "/mcp", body, {**_HEADERS, **({"mcp-session-id": session} if session else {})})
        answer = connection.getresponse()
        text = answer.read()
    except OSError as error:
        raise Broken(f"a request was not answered: {error}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise Broken(f"a request was answered {answer.status} {text[:300]!r}")
    return answer


PARKED = Item(
    "parked",
    "Parked streams: silent GET streams of MCP sessions, open and while their instance is suspended",
    "",
    (
        Column("parked_bytes", "KiB per parked stream", 1 / 1024),
        Column("open_bytes", "KiB per open one", 1 / 1024),
        Column("parked_descriptors", "descriptors per parked stream"),
        Column("open_descriptors", "per open one"),
        Column("answered_s", "the call that wakes them ms", 1e3, 0),
        Column("attached_s", "all attached again after ms", 1e3, 0),
    ),
    parked,
    fresh=True,
    own=(Peer("moorage-park", "Moorage, idle_streams = park", gateway(_APP)),),
    rounds=3,
    short_rounds=1,
)
