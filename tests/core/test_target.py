"""What an instance sees of the request target: its own bytes, less what is the gateway's."""

from __future__ import annotations

import pytest

from gateway.core.model import App, Kind
from gateway.core.seal import Stream
from gateway.core.target import target
from tests.core.builders import app, head

KEPT, STRIPPED = app(path="/tools"), app(path="/tools/", strip_path=True)


@pytest.mark.parametrize(
    ("of_app", "sent", "seen"),
    [
        (KEPT, "/tools/a%2f..%2fb/../c?x=%20&moorage_pin=1", b"/tools/a%2f..%2fb/../c?x=%20&moorage_pin=1"),
        (STRIPPED, "/tools/a%2f..%2fb/../c?x=%20", b"/a%2f..%2fb/../c?x=%20"),
        (STRIPPED, "/tools?x", b"/?x"),
        (STRIPPED, "/tools", b"/"),
    ],
)
def test_the_raw_path_goes_on(of_app: App, sent: str, seen: bytes) -> None:
    assert target(of_app, head("GET", sent), Kind.PLAIN, None) == seen


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("/tools/m?s=1&moorage_pin=x", b"/tools/m?s=1"),
        ("/tools/m?moorage_pin=x", b"/tools/m"),
        ("/tools/m?moorage_pin=inner&moorage_pin=outer", b"/tools/m?moorage_pin=inner"),
    ],
)
def test_a_post_of_a_stream_loses_its_pin(sent: str, seen: bytes) -> None:
    assert target(KEPT, head("POST", sent), Kind.LEGACY_POST, Stream("boot", 1)) == seen


def test_the_stream_remembers_whether_its_prefix_was_put_in_front() -> None:
    post = head("POST", "/tools/m?s=1&moorage_pin=x")
    assert target(KEPT, post, Kind.LEGACY_POST, Stream("boot", 1, strip_prefix=True)) == b"/m?s=1"
    assert target(STRIPPED, post, Kind.LEGACY_POST, Stream("boot", 1, strip_prefix=False)) == b"/tools/m?s=1"


def test_a_question_to_the_server_as_a_whole_has_no_prefix() -> None:
    assert target(STRIPPED, head("OPTIONS", "*"), Kind.PLAIN, None) == b"*"
