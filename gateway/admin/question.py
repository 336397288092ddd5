"""What `explain` is asked: a request that was or could be made, put into the bytes a client would send.

A request is described by its parts, or by a session alone: its id, or the name under which /v1/sessions lists it.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request

from gateway.admin.answers import AdminCode, Fault, Refusal
from gateway.admin.asking import Query, json_body, no_query

MAX_HEADERS = 100
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}", re.ASCII)
_TARGET = re.compile(r"/[\x21-\x7e]*", re.ASCII)
_HOST = re.compile(r"[\x21-\x7e]{1,260}", re.ASCII)
_VISIBLE = re.compile(r"[\x21-\x7e]{1,8192}", re.ASCII)
_NAME = re.compile(r"[0-9a-f]{16}", re.ASCII)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
_KEYS = ("host", "path", "method", "session", "name", "app", "client", "headers", "body")


@dataclass(frozen=True, slots=True)
class Question:
    """A valid question. Empty parts were not given."""

    host: str = ""
    path: str = ""
    """With its query, as a client sends it."""
    method: str = ""
    session: str = ""
    """The Mcp-Session-Id that a client holds."""
    name: str = ""
    """A session as /v1/sessions lists it."""
    app: str = ""
    client: str = "127.0.0.1"
    """The client's IP address."""
    headers: tuple[str, ...] = ()
    """`Name: value`."""
    body: bytes | None = None

    def head(self, host: str, path: str) -> bytes:
        """The bytes of the request's head; `host` and `path` where the question gives none."""
        given = {header.partition(":")[0].lower() for header in self.headers}
        method = self.method or ("POST" if self.body is not None else "GET")
        lines = [f"{method} {self.path or path} HTTP/1.1"]
        if "host" not in given:
            lines.append(f"Host: {self.host or host}")
        lines += self.headers
        if self.session:
            lines.append(f"Mcp-Session-Id: {self.session}")
        if self.body is not None and "content-type" not in given:
            lines.append("Content-Type: application/json")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def read_question(request: Request) -> Question:
    """The question in a query (GET) or in a body (POST, which keeps session ids out of logs). Raises Refusal."""
    if request.method == "POST":
        no_query(request)
        raw = await json_body(request)
        if not isinstance(raw, dict):
            raise Refusal(AdminCode.AD07, faults=[Fault("", "the body is not an object", 'send {"host": ..., ...}')])
        return checked(raw)
    query = Query(request)
    values: dict[str, object] = {key: text for key in _KEYS if key != "headers" and (text := query.text(key))}
    values["headers"] = query.texts("header")
    query.done()
    return checked(values)


def checked(raw: Mapping[str, object]) -> Question:
    """The question in these keys. Raises Refusal with every fault."""
    faults: list[Fault] = []

    def text(key: str, pattern: re.Pattern[str], remedy: str) -> str:
        value = raw.get(key, "")
        if value == "" or (isinstance(value, str) and pattern.fullmatch(value)):
            return str(value)
        faults.append(Fault(key, "is not usable", remedy))
        return ""

    faults += [
        Fault(str(key)[:60], "unknown key", f"remove it; known here: {', '.join(_KEYS)}")
        for key in raw
        if key not in _KEYS
    ]
    question = Question(
        host=text("host", _HOST, 'send a host such as "tools.example.com"'),
        path=text("path", _TARGET, 'send a path that starts with "/", with its query, percent-encoded'),
        method=text("method", _METHOD, "send a method such as POST"),
        session=text("session", _VISIBLE, "send the Mcp-Session-Id as the client holds it"),
        name=text("name", _NAME, "send the 16 hexadecimal digits that GET /v1/sessions lists"),
        app=text("app", re.compile(r"[a-z0-9-]{1,63}"), "send an app's name"),
        client=_client(raw.get("client", "127.0.0.1"), faults),
        headers=_headers(raw.get("headers", ()), faults),
        body=_body(raw.get("body"), faults),
    )
    if question.session and question.name:
        faults.append(Fault("name", "stands beside `session`", "send one of them"))
    named = question.host or question.session or question.name or question.app
    if not (named or faults or any(one.lower().startswith("host:") for one in question.headers)):
        faults.append(Fault("host", "is missing", "send `host` and `path`, or `session`, `name` or `app`"))
    if faults:
        raise Refusal(AdminCode.AD07, faults=faults)
    return question


def _client(value: object, faults: list[Fault]) -> str:
    try:
        return str(ipaddress.ip_address(value)) if isinstance(value, str) else str(ipaddress.ip_address(""))
    except ValueError:
        faults.append(Fault("client", "is not an IP address", "send the client's IP address"))
        return ""


def _headers(value: object, faults: list[Fault]) -> tuple[str, ...]:
    """A list of `Name: value`, or an object."""
    if isinstance(value, dict):
        value = [f"{name}: {one}" for name, one in value.items()]
    if not isinstance(value, list | tuple) or len(value) > MAX_HEADERS:
        faults.append(Fault("headers", "is not a list", 'send at most 100 of ["Name: value"]'))
        return ()
    wrong = [at for at, one in enumerate(value) if not isinstance(one, str) or not _HEADER.fullmatch(one)]
    faults += [Fault(f"headers[{at}]", "is not a header", 'send "Name: value"') for at in wrong]
    return () if wrong else tuple(value)


def _body(value: object, faults: list[Fault]) -> bytes | None:
    """The request's own body: a text as it is, any other JSON value as JSON."""
    if value is None:
        return None
    try:
        return (value if isinstance(value, str) else json.dumps(value)).encode()
    except UnicodeEncodeError:
        faults.append(Fault("body", "has half of a surrogate pair", "send UTF-8"))
        return None
