"""Reading requests to the admin API: query parameters and JSON bodies, bounded, with every fault named at once."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

from starlette.requests import ClientDisconnect, Request

from gateway.admin.answers import AdminCode, Fault, Refusal

MAX_BODY_BYTES = 64 * 1024


class Query:
    """A request's query, read name by name; `done` refuses what was wrong and what nobody read."""

    def __init__(self, request: Request) -> None:
        self._params = request.query_params
        self._read: set[str] = set()
        self._faults: list[Fault] = []

    def text(self, name: str) -> str:
        """A parameter that may come once; empty for none."""
        values = self.texts(name)
        if len(values) > 1:
            self.fault(name, "came more than once", "send it once")
        return values[0] if values else ""

    def texts(self, name: str) -> list[str]:
        """A parameter that may come more than once."""
        self._read.add(name)
        return self._params.getlist(name)

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        text = self.text(name)
        if not text:
            return default
        if text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most:
            return int(text)
        self.fault(name, "is not a usable whole number", f"send {least} to {most}")
        return default

    def seconds(self, name: str, default_s: float, most_s: float) -> float:
        """A number of seconds above 0; what exceeds `most_s` is refused, not cut."""
        text = self.text(name)
        if not text:
            return default_s
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if 0 < value <= most_s:
            return value
        self.fault(name, "is not a usable number of seconds", f"send more than 0, at most {most_s:g}")
        return default_s

    def word(self, name: str, words: Iterable[str], default: str = "") -> str:
        known = list(words)
        text = self.text(name) or default
        if text and text not in known:
            self.fault(name, "is not known", f"send one of {', '.join(known)}")
            return default
        return text

    def fault(self, name: str, message: str, remedy: str) -> None:
        self._faults.append(Fault(name, message, remedy))

    def done(self) -> None:
        """Raises Refusal when anything was wrong."""
        for name in dict.fromkeys(self._params):
            if name not in self._read:
                known = ", ".join(sorted(self._read)) or "none"
                self.fault(name[:60], "unknown parameter", f"remove it; known here: {known}")
        if self._faults:
            raise Refusal(AdminCode.AD07, faults=self._faults)


def no_query(request: Request) -> None:
    """Refuse every parameter."""
    Query(request).done()


async def json_body(request: Request) -> object:
    """The JSON value in a request's body. Raises Refusal for what is none, or too long."""
    raw = await _read(request)
    try:
        # json.loads(bytes) would guess the encoding; RFC 8259 8.1 knows UTF-8 only.
        value: object = json.loads(raw.decode(), object_pairs_hook=_object, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).partition("\n")[0][:100]
        raise Refusal(AdminCode.AD09, f"the body is not JSON: {reason}") from None
    return value


async def no_body(request: Request) -> None:
    """Refuse a body that asks for something: nothing, `{}` and `null` pass."""
    raw = await _read(request)
    if raw.strip() not in (b"", b"{}", b"null"):
        raise Refusal(AdminCode.AD07, faults=[Fault("", "this request takes no body", "send none")])


async def _read(request: Request) -> bytes:
    taken = bytearray()
    try:
        async for piece in request.stream():
            taken += piece
            if len(taken) > MAX_BODY_BYTES:
                # What follows is not read: the connection cannot be used again.
                raise Refusal(AdminCode.AD08, headers={"connection": "close"})
    except ClientDisconnect:
        raise Refusal(AdminCode.AD09, "the body was broken off") from None
    return bytes(taken)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has a name twice")
    return result


def _constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")
