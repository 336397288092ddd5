"""The keys of the seals: given by the configuration, or made once and kept beside the catalog.

Apart from this, nothing of the configuration writes to disk; `moorage check` never calls it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
from pathlib import Path

from gateway.config.load import Config
from gateway.config.references import MIN_SECRET_BYTES

SECRET_FILE = "moorage.secret"
_HEX = re.compile(rf"[0-9a-f]{{{2 * MIN_SECRET_BYTES},}}")


class SecretFileError(Exception):
    """The kept secret cannot be read or made. Its text says what to do."""


def load_secrets(config: Config) -> tuple[bytes, ...]:
    """The secrets, first the one that seals. Without configured ones: made once and kept beside a `sqlite:` catalog,
    for everyone who shares the file; with `memory:`, made anew each time. Raises SecretFileError."""
    gateway = config.gateway
    if gateway.secret:
        return tuple(secret.get_secret_value().encode() for secret in gateway.secret)
    scheme, _, rest = gateway.catalog.partition(":")
    if scheme == "memory":
        return (secrets.token_hex(32).encode(),)
    if scheme == "sqlite":
        return (_kept(Path(rest).parent / SECRET_FILE),)
    raise SecretFileError(f"a {scheme} catalog has no place for a secret; set `secret` under [gateway]")


def _kept(path: Path) -> bytes:
    try:
        if not path.exists():
            _make(path)
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SecretFileError(f"{path}: {reason}; make its folder writable, or set `secret` under [gateway]") from error
    if not _HEX.fullmatch(text):
        # An empty or cut file must not become a key that anyone can guess.
        raise SecretFileError(f"{path} does not hold a secret; delete it and a new one is made: sealed ids then end")
    return text.encode()


def _make(path: Path) -> None:
    """Write a new secret whole or not at all; of several processes that start at once, the first one's stays."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)
