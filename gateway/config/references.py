"""What the configuration file only points at: secrets in the environment or in files, paths, the catalog's URL.

No message here repeats a secret, nor the value of a key that can hold one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit

from pydantic import PlainValidator, SecretStr, ValidationInfo

from gateway.config.faults import bad, shown
from gateway.config.unbuilt import UNBUILT_CATALOGS
from gateway.config.values import VARIABLE, Written, argument

MIN_SECRET_BYTES = 16
"""128 bits cannot be searched; RFC 2104 3 discourages keys much shorter than the hash's output."""
MAX_SECRET_FILE_BYTES = 64 * 1024

_PASSWORD = re.compile(r"([a-z+]+://[^:/@?#]*:)((?:env|file):[^@]*)@")
_TOKEN68 = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where `env:` and `file:` read from; validators get it as pydantic's context."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    folder: Path = Path()
    """Relative paths start here: the configuration file's folder."""


def _sources(info: ValidationInfo) -> Sources:
    return info.context if isinstance(info.context, Sources) else Sources()


def read_reference(text: str, sources: Sources) -> str:
    """What `env:NAME` or `file:PATH` stands for; any other text stands for itself."""
    if text.startswith("env:"):
        return _variable(text.removeprefix("env:"), sources)
    if text.startswith("file:"):
        return _file(sources.folder / text.removeprefix("file:"))
    return text


def _variable(name: str, sources: Sources) -> str:
    if not VARIABLE.fullmatch(name):
        raise bad(f"{shown('env:' + name)} names no environment variable", "write env:NAME")
    if name not in sources.environ:
        raise bad(f"the environment variable {name} is not set", f"export {name}, or remove this key")
    return sources.environ[name]


def _file(path: Path) -> str:
    remedy = "name a readable text file that holds the secret alone"
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_SECRET_FILE_BYTES + 1)
        text = raw.decode()
    except OSError as error:
        raise bad(f"{path} cannot be read: {error.strerror}", remedy) from None
    except ValueError:  # not UTF-8, or a NUL in the path
        raise bad(f"{shown(str(path))} is not a text file", remedy) from None
    if len(raw) > MAX_SECRET_FILE_BYTES:
        raise bad(f"{path} is larger than {MAX_SECRET_FILE_BYTES} bytes", remedy)
    return text.rstrip("\r\n")


def _secret(value: object, info: ValidationInfo) -> SecretStr:
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str):
        raise bad("is not a string", 'write "env:NAME" or "file:PATH"')
    text = read_reference(value, _sources(info))
    if not text:
        raise bad("the secret is empty", "give it a value, or remove this key")
    return SecretStr(text)


def _seal_secret(value: object, info: ValidationInfo) -> SecretStr:
    secret = _secret(value, info)
    if len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
        remedy = "make one with: python3 -c 'import secrets; print(secrets.token_hex(32))'"
        raise bad(f"the secret is shorter than {MIN_SECRET_BYTES} bytes", remedy)
    return secret


def _bearer_token(value: object, info: ValidationInfo) -> SecretStr:
    secret = _secret(value, info)
    if not _TOKEN68.fullmatch(secret.get_secret_value()):
        raise bad("the token has a character that no header can carry", "use visible ASCII without blanks")
    return secret


def _catalog_url(value: object, info: ValidationInfo) -> str:
    """The catalog's URL with its password read and its file's path made absolute."""
    remedy = 'write "sqlite:PATH", "redis://host:6379/0", "rediss://host:6379/0" or "memory:"'
    if not isinstance(value, str):
        raise bad("is not a string", remedy)
    sources = _sources(info)
    url = read_reference(value, sources)
    if found := _PASSWORD.match(url):
        url = f"{found[1]}{quote(read_reference(found[2], sources), safe='')}{url[found.end() - 1 :]}"
    scheme, _, rest = url.partition(":")
    match scheme:
        case "memory" if not rest:
            return url
        case "sqlite" if rest and rest != ":memory:" and not rest.startswith("//") and "\0" not in rest:
            return f"sqlite:{sources.folder / rest}"
        case "sqlite":
            raise bad("names no database file", 'write "sqlite:moorage.db", or "memory:" for none')
        case "redis" | "rediss" if _is_redis(url):
            return url
        case "redis" | "rediss":
            raise bad(
                "is not a Redis URL",
                f'write "{scheme}://host:6379/0", with the password percent-encoded or as env:NAME',
            )
        case _ if scheme in UNBUILT_CATALOGS:
            raise bad(f"{scheme}:// is not built yet", 'write "redis://host:6379/0"')
        case _:
            raise bad("is no kind of catalog", remedy)


def _is_redis(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and re.fullmatch(r"/?[0-9]{0,5}", parts.path) is not None
    except ValueError:
        return False


def redacted(url: str) -> str:
    """A catalog's URL for people: without its password and options."""
    head, at, tail = url.partition("?")[0].rpartition("@")
    scheme, slashes, userinfo = head.partition("://")
    if not at or not slashes:
        return url.partition("?")[0]
    user = userinfo.partition(":")[0]
    return f"{scheme}://{user}:***@{tail}"


def _folder(value: object, info: ValidationInfo) -> Path:
    if isinstance(value, Path):
        return value
    text = argument(value)
    if not text:
        raise bad("is empty", "name a folder, or remove this key")
    return _sources(info).folder / text


SealSecret = Annotated[SecretStr, PlainValidator(_seal_secret), Written("secret")]
BearerToken = Annotated[SecretStr, PlainValidator(_bearer_token), Written("secret")]
CatalogUrl = Annotated[str, PlainValidator(_catalog_url), Written("URL")]
Folder = Annotated[Path, PlainValidator(_folder), Written("folder")]
