"""An app that asks for what it may not, with every trick that the forms of a replay leave room for."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.net.replies import JSON_TYPE
from tests.net.rig import LAST

SMUGGLED = b"HTTP/1.1 200 OK\r\nX-From: smuggled\r\nContent-Length: 8\r\n\r\nsmuggled"
"""What follows an answer is no answer to anybody."""


class Options:
    """Values for one place: valid ones, and others."""

    def __init__(self, *valid: Any, odd: tuple[Any, ...] = ()) -> None:
        self.valid = valid
        self.all = (*valid, *odd)


FIELDS = {
    "app": Options("good", "good", "good", "friend", "evil", "none",
        odd=("GOOD", "good-", "good/g-1", "org:good", "*", "", "g\xf6od", "good\0", "x" * 64)),
    "instance": Options("g-1", "g-2", "g-3", "both", "e-1", "e-2", "x-9",
        odd=("good/g-1", "~good/g-1", "g-1, e-1", "g-1\\", "", "x" * 65)),
    "prefer_instance": Options("g-1", "g-3", "both", "e-1", odd=("good/g-1", "~g-1", "")),
    "region": Options("fra", "syd", "eu", "any", "fra,any", "any, syd",
        odd=("syd,", ",", "us;fra", "fra eu", "*", "fra," * 40)),
    "elsewhere": Options("true", "true", "false", odd=("yes", "")),
    "state": Options("", "a", "app=good", "s" * 2048, odd=("s" * 2049, 'a";app=good', "\xe9")),
    "timeout": Options("5s", "1m", "500ms", odd=("0s", "2h", "1e3s", "-1s", "5")),
    "fallback": Options("force_self", "prefer_self", odd=("force_other",)),
    "to": Options(odd=("good",)),
}  # fmt: skip
TARGETS = ("app", "app", "instance", "prefer_instance", "region", "elsewhere")
EXTRAS = ("state", "timeout", "fallback")
PATTERNS = Options("/*", "/u/*", "/", "evil.localhost/u", "good.localhost/*", "invalidate",
    odd=("good.localhost", "*/*", "//good.localhost/*", "http://good.localhost/*", "/u/../*", "/u*", "evil:80/", ""),
)  # fmt: skip
TTLS = Options("60", "10", "9", "0", odd=("-1", "1e9", "9999999999", "60s", ""))
JSON_TTLS = Options(60, 10, 9, 0, odd=(True, "60", 1e3, -1, 10**12, None))
HEADERS = Options("Authorization", "Cookie", "X-One",
    odd=("Host", "host", "Fly-Replay-Src", "fly-force-instance-id", "fly_force_instance_id", "Content-Length", "Expect",
        "Transfer-Encoding", "Connection", "Mcp-Session-Id", "moorage-app", "X-Forwarded-Host", "Via", "X\r\nHost", "",
        "\xe9"),
)  # fmt: skip
VALUES = Options("good.localhost", "x", "", odd=("a\r\nHost: good.localhost", "\0", "\u0130", "\ud800", "y" * 9000))
PATHS = Options("/", "/u/1?a=b", "//good.localhost/",
    odd=("http://good.localhost/", "good.localhost", "/\r\n", "/ HTTP/1.1", "/#", "*", ""))  # fmt: skip
BESIDE = (
    "fly-replay-src: instance=g-1",
    "Mcp-Session-Id: g-1",
    "Location: http://good.localhost/",
    "Host: good.localhost",
)


class Hostile:
    """Makes replies."""

    def __init__(self, rng: random.Random, addresses: list[str]) -> None:
        """`addresses` are those of instances that must not be reached."""
        self._rng = rng
        self._addresses = addresses
        self._plain = True
        """All of this reply is well-formed: it is those that get furthest."""

    def reply(self, id: str) -> bytes:
        """The next reply, of this instance. Each says who it is from, and each ends."""
        self._plain = self._rng.random() < 0.6
        make = self._rng.choice([self._header, self._header, self._json])
        return make(f"X-From: {id}")

    def _odd(self, chance: float) -> bool:
        return not self._plain and self._rng.random() < chance

    def _one(self, options: Options) -> Any:
        return self._rng.choice(options.valid if self._plain else options.all)

    def _fields(self) -> dict[str, Any]:
        rng = self._rng
        names = {*rng.sample(TARGETS, rng.choice([1, 1, 2, 2, 3])), *rng.sample(EXTRAS, rng.choice([0, 0, 1, 2]))}
        if self._plain and {"instance", "prefer_instance"} <= names:
            names.remove("instance")
        if self._odd(0.1):
            names.add("to")
        fields = {name: self._one(FIELDS[name]) for name in rng.sample(sorted(names), len(names))}
        if "instance" in fields and rng.random() < 0.05:
            fields["instance"] = rng.choice(self._addresses)
        return fields

    # --- the header form -----------------------------------------------------------------

    def _header(self, mark: str) -> bytes:
        rng = self._rng
        names = Options("fly-replay", "Fly-Replay", "FLY-REPLAY", "fly-replay", odd=("fly_replay", "fly-replay "))
        lines = [mark, f"{self._one(names)}: {self._value()}"]
        if self._odd(0.2):
            lines.append(f"fly-replay: {self._value()}")
        if rng.random() < 0.4:
            lines.append(f"fly-replay-cache: {self._one(PATTERNS)}")
            lines.append(f"fly-replay-cache-ttl-secs: {self._one(TTLS)}")
            lines.append(f"fly-replay-cache-allow-bypass: {self._one(Options('yes', 'no', odd=('true', '')))}")
        if rng.random() < 0.2:
            lines.append(rng.choice(BESIDE))
        rng.shuffle(lines)
        return self._whole(lines, b"x" * rng.choice([0, 0, 0, 0, 10, 10, 70_000 if rng.random() < 0.1 else 100]))

    def _value(self) -> str:
        fields = [f"{self._spelled(name)}={self._quoted(text)}" for name, text in self._fields().items()]
        if self._odd(0.1):
            fields.append(fields[0])
        between = self._one(Options(";", "; ", " ;\t", odd=(",", ";;", "\r\n ", "\r\n")))
        ends = Options("", "", ";", odd=(';app="good"', ";app=good", "\r\nX-More: 1", "\0", "\r"))
        return str(between.join(fields) + self._one(ends))

    def _spelled(self, name: str) -> str:
        odd = (name.replace("_", "-") + "\xa0", f'"{name}"', f"{name}\v")
        return str(self._one(Options(name, name, name.upper(), f" {name}\t", odd=odd)))

    def _quoted(self, text: str) -> str:
        if not self._odd(0.3):
            return f'"{text}"' if set(text) & set(', ;\t"') else text
        return self._rng.choice([f"'{text}'", f'"{text}', f'{text}"', f'""{text}""', f'"{text}\\""', f" {text} x"])

    # --- the JSON form -------------------------------------------------------------------

    def _json(self, mark: str) -> bytes:
        rng = self._rng
        fields = self._fields()
        if "elsewhere" in fields and not self._odd(0.2):
            fields["elsewhere"] = fields["elsewhere"] == "true"
        if rng.random() < 0.4:
            fields["transform"] = self._transform()
        if rng.random() < 0.4:
            pattern = self._one(PATTERNS)
            order = {"prefix": pattern, "ttl": self._one(JSON_TTLS)}
            fields["cache"] = {"invalidate": True} if pattern == "invalidate" else order
        if self._odd(0.2):
            fields[rng.choice(["allow_bypass", "App", "\ud800"])] = rng.choice([True, None, [], {"a": "b"}])
        text = json.dumps(fields, ensure_ascii=not self._odd(0.2))
        if self._odd(0.1):
            text = text[:-1] + ', "app": "good"}'
        if self._odd(0.1):
            text = rng.choice([text[:-1], f"[{text}]", f"\ufeff{text}", text + text, "", "null", "[" * 3000])
        body = text.encode("utf-16" if self._odd(0.1) else "utf-8", "surrogatepass")
        if self._odd(0.05):
            body += b" " * 70_000
        kind = self._one(Options(JSON_TYPE, JSON_TYPE.upper(), f" {JSON_TYPE}\t; charset=utf-8"))
        lines = [mark, f"Content-Type: {kind}"]
        if self._odd(0.1):
            lines.append(rng.choice(["fly-replay: app=good", "fly-replay-cache: /*", "Content-Encoding: gzip"]))
        return self._whole(lines, body, is_json=True)

    def _transform(self) -> object:
        rng = self._rng
        transform: dict[str, object] = {}
        if rng.random() < 0.5:
            transform["path"] = self._one(PATHS)
        if rng.random() < 0.5:
            transform["delete_headers"] = [self._one(HEADERS)]
        if rng.random() < 0.5:
            transform["set_headers"] = [{"name": self._one(HEADERS), "value": self._one(VALUES)}]
        return rng.choice([[], "path=/", None]) if self._odd(0.05) else transform

    # --- the answer ----------------------------------------------------------------------

    def _whole(self, lines: list[str], body: bytes, *, is_json: bool = False) -> bytes:
        """The answer, framed well or badly."""
        status = self._one(Options(200, 307, 307, 409, 502, 404, 503, odd=(101, 204, 304)))
        head = "\r\n".join([f"HTTP/1.1 {status} Whatever", *lines]).encode("latin-1", "replace")
        length = b"\r\nContent-Length: %d\r\n\r\n"
        bad = ("longer", "malformed", "short") if is_json else ()
        match self._one(Options(*["length"] * 8, "chunked", "close", odd=bad)):
            case "chunked":
                half = len(body) // 2
                pieces = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in (body[:half], body[half:]) if one)
                return head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
            case "close":
                return head + LAST + b"\r\n" + body
            case "longer":
                return head + length % len(body) + body + SMUGGLED
            case "malformed":
                return head + b"\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%bXX0\r\n\r\n" % (len(body), body)
            case "short":
                return head + LAST.rstrip() + length % (len(body) + 9) + body
            case _:
                return head + length % len(body) + body
