"""The kinds of value a configuration key can have, beyond TOML's own: how each is written and what it becomes.

A validator takes what TOML gave and returns the finished value, or raises `bad(...)` with the remedy. Each type
carries a `Written` mark, from which the reference page is made. What is read from outside the file is in
`gateway.config.references`.
"""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, PlainValidator, Strict

from gateway.config.faults import bad, shown
from gateway.core.model import Address, KeyRule, KeySource

MAX_DURATION_S = 366 * 86400.0
MAX_COUNT = 10_000_000

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)(B|KiB|MiB|GiB)", re.ASCII)
_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\]")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_INSTANCE_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_PATH = re.compile(r"/[\x21\x22\x24-\x3e\x40-\x7e]*")  # origin form without query or fragment (RFC 9112 3.2.1)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Written:
    """How a value is written in the file: a word for the reference page's type column."""

    type: str


def text_of(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise bad(f"{shown(value)} is not a string", f"write {what}")
    return value


# --- numbers with units --------------------------------------------------------------


def seconds(value: object) -> float:
    """A duration: a number of seconds, or numbers with units as in "1m30s"."""
    wrong = bad(
        f"{shown(value)} is not a duration", 'write seconds as a number, or text such as "250ms", "90s" or "5m"'
    )
    if isinstance(value, str):
        if len(value) > 40 or not _DURATION.fullmatch(value):
            raise wrong
        result = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(value))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) > MAX_DURATION_S or math.isnan(value):
            raise bad(f"{shown(value)} seconds is not a usable duration", 'write at most "366d"')
        result = float(value)
    else:
        raise wrong
    if not 0 <= result <= MAX_DURATION_S:
        raise bad(f"{shown(value)} is out of range", 'write a duration from 0 to "366d"')
    return result


def _some_seconds(value: object) -> float:
    result = seconds(value)
    if result == 0:
        raise bad("must be longer than 0", 'write a duration such as "250ms" or "5m"')
    return result


def size_bytes(value: object) -> int:
    """A size: a number of bytes, or a number with B, KiB, MiB or GiB."""
    if isinstance(value, str) and len(value) <= 20 and (match := _SIZE.fullmatch(value)):
        return int(match[1]) * _BYTES[match[2]]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**62:
        return value
    raise bad(f"{shown(value)} is not a size", 'write bytes as a number, or text such as "64KiB" or "1MiB"')


# --- addresses and names -------------------------------------------------------------


def _address(value: object, least_port: int) -> Address:
    if isinstance(value, Address):
        return value
    text = text_of(value, 'such as "127.0.0.1:8080"')
    remedy = 'write "host:port", such as "127.0.0.1:8080" or "[::1]:8080"'
    host, colon, port = text.rpartition(":")
    if not colon or not host or not re.fullmatch(r"[0-9]{1,5}", port):
        raise bad(f"{shown(text)} is not an address", remedy)
    if not least_port <= int(port) <= 65535:
        raise bad(f"port {port} is out of range", f"use {least_port} to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise bad(f"{shown(host)} is not an IPv6 address", remedy) from None
    elif not _HOST.fullmatch(host.lower()) or (re.fullmatch(r"[0-9.]+", host) and not _is_ipv4(host)):
        raise bad(f"{shown(host)} is not a host name or an IP address", remedy)
    return Address(host.lower(), int(port))


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def address(value: object) -> Address:
    """Where an instance listens."""
    return _address(value, 1)


def listener(value: object) -> Address:
    """Where the gateway listens; port 0 lets the kernel choose."""
    return _address(value, 0)


def network(value: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    text = text_of(value, 'such as "10.0.0.0/8"')
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        remedy = f'write "{ipaddress.ip_network(text, strict=False)}", or a longer prefix'
    except ValueError:
        remedy = 'write a network such as "10.0.0.0/8" or "fd00::/8"'
    raise bad(f"{shown(text)} is not a network", remedy)


def host_rule(value: object) -> str:
    """One entry of `hosts`: lower case, exact or "*.suffix"."""
    text = text_of(value, 'such as "tools.example.com"')
    lower = text.lower()
    remedy = 'write "tools.example.com", or "*.example.com" for every name under it; no scheme, port or path'
    if lower == "*":
        raise bad('"*" is not a host', "leave `hosts` out: the app then takes what no other app's hosts match")
    if not text.isascii():
        raise bad(f"{shown(text)} is not ASCII", "write an international name in its xn-- form")
    if len(lower) > 253 or not _HOST.fullmatch(lower.removeprefix("*.")):
        raise bad(f"{shown(text)} is not a host", remedy)
    return lower


def path_prefix(value: object) -> str:
    """A path that starts with "/"; a trailing "/" means nothing, since prefixes match whole segments."""
    text = text_of(value, 'such as "/tools"')
    if not _PATH.fullmatch(text):
        raise bad(f"{shown(text)} is not a path", 'start it with "/"; no query; percent-encode blanks and non-ASCII')
    return text.rstrip("/") or "/"


def request_path(value: object) -> str:
    """A path to send a request to, with an optional query."""
    text = text_of(value, 'such as "/healthz"')
    if not re.fullmatch(r"/[\x21\x22\x24-\x7e]*", text):
        raise bad(f"{shown(text)} is not a path", 'start it with "/"; percent-encode blanks and non-ASCII')
    return text


def key_rule(value: object) -> KeyRule:
    """One entry of `key`: what a request is pinned by."""
    if isinstance(value, KeyRule):
        return value
    text = text_of(value, 'such as "header:X-Session"')
    remedy = 'write "header:NAME", "cookie:NAME", "query:NAME", "mcp-param:NAME" or "principal"'
    source, colon, name = text.partition(":")
    if source not in list(KeySource):
        raise bad(f"{shown(text)} is not a key rule", remedy)
    match KeySource(source):
        case KeySource.PRINCIPAL if colon:
            raise bad('"principal" takes no name', 'write "principal"')
        case KeySource.PRINCIPAL:
            return KeyRule(KeySource.PRINCIPAL, "")
        case KeySource.QUERY:
            if not re.fullmatch(r"[\x21-\x25\x27-\x3c\x3e-\x7e]+", name):
                raise bad(f"{shown(name)} is not a query parameter's name", remedy)
            return KeyRule(KeySource.QUERY, name)
        case KeySource.HEADER | KeySource.MCP_PARAM as kind:
            return KeyRule(kind, token_name(name, "header name", remedy).lower())
        case KeySource.COOKIE as kind:
            return KeyRule(kind, token_name(name, "cookie name", remedy))


def token_name(name: str, what: str, remedy: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise bad(f"{shown(name)} is not a {what}", remedy)
    return name


def cookie_name(value: object) -> str:
    text = text_of(value, 'a name, or "" for none')
    return token_name(text, "cookie name", "use letters, digits, - and _") if text else ""


def app_name(value: object) -> str:
    """The name of an app, an org or a region."""
    text = text_of(value, "a name")
    if not _NAME.fullmatch(text):
        raise bad(f"{shown(text)} is not a name", "use a-z, 0-9 and -, at most 63, not - at either end")
    return text


def region_name(value: object) -> str:
    text = app_name(value)
    if text in ("global", "any"):
        raise bad(f"{shown(text)} is reserved", "choose another name")
    return text


def instance_id(value: object) -> str:
    text = text_of(value, "an id")
    if not _INSTANCE_ID.fullmatch(text):
        raise bad(f"{shown(text)} is not an instance id", "use letters, digits and -, at most 64")
    return text


def variable_name(value: object) -> str:
    text = text_of(value, "a name")
    if not VARIABLE.fullmatch(text):
        raise bad(f"{shown(text)} is not an environment variable's name", "use letters, digits and _")
    return text


def argument(value: object) -> str:
    text = text_of(value, "every argument in quotes")
    if "\0" in text:
        raise bad("has a NUL character", "remove it: no process can be given one")
    return text


Text = Annotated[str, Strict()]
Bool = Annotated[bool, Strict(), Written("true or false")]
SomeCount = Annotated[int, Strict(), Field(ge=0, le=MAX_COUNT), Written("number")]
Count = Annotated[int, Strict(), Field(ge=1, le=MAX_COUNT), Written("number")]
Seconds = Annotated[float, PlainValidator(seconds), Written("duration")]
SomeSeconds = Annotated[float, PlainValidator(_some_seconds), Written("duration")]
SizeBytes = Annotated[int, PlainValidator(size_bytes), Written("size")]
ListenAddress = Annotated[Address, PlainValidator(listener), Written("host:port")]
InstanceAddress = Annotated[Address, PlainValidator(address), Written("host:port")]
Network = Annotated[ipaddress.IPv4Network | ipaddress.IPv6Network, PlainValidator(network), Written("CIDR")]
HeadBytes = Annotated[int, PlainValidator(size_bytes), Field(ge=1024, le=1024**2), Written("size")]
HostRule = Annotated[str, PlainValidator(host_rule), Written("host")]
PathPrefix = Annotated[str, PlainValidator(path_prefix), Written("path")]
RequestPath = Annotated[str, PlainValidator(request_path), Written("path")]
Key = Annotated[KeyRule, PlainValidator(key_rule), Written("key rule")]
CookieName = Annotated[str, PlainValidator(cookie_name), Written("name")]
Name = Annotated[str, PlainValidator(app_name), Written("name")]
RegionName = Annotated[str, PlainValidator(region_name), Written("name")]
InstanceId = Annotated[str, PlainValidator(instance_id), Written("name")]
Argument = Annotated[str, PlainValidator(argument), Written("string")]
VariableName = Annotated[str, PlainValidator(variable_name), Written("name")]
