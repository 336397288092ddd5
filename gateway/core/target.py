"""The request target that an instance sees: without a stripped prefix, without the gateway's own query parameter."""

from __future__ import annotations

from gateway.core.classify import without_pin
from gateway.core.head import RequestHead
from gateway.core.model import App, Kind
from gateway.core.seal import Stream


def target(app: App, head: RequestHead, kind: Kind, stream: Stream | None) -> bytes:
    """The target for an instance; every byte that is not the gateway's own stays as it was sent.

    Args:
        stream: of a LEGACY_POST, what its pin says; it knows whether the app's prefix was put in front.
    """
    strips = stream.strip_prefix if stream is not None else app.strip_path
    if head.target == b"*" or (not strips and kind is not Kind.LEGACY_POST):
        return head.target
    path, query = head.path, head.query
    if strips:
        prefix = app.path.rstrip("/").encode()
        path = path.removeprefix(prefix)
        if not path.startswith(b"/"):
            path = b"/" + path
    if kind is Kind.LEGACY_POST:
        query = without_pin(query)
    return path + b"?" + query if query else path
