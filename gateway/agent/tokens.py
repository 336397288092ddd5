"""Bearer tokens of agents: each agent has its own, made of the fleet's secret and the agent's URL.

Who has the secret can make the token of any agent; a token tells nothing of the secret, nor of another agent's token.
So a record that lies about where an agent is asked is sent a token that no other agent takes.

    token = base64url(HMAC-SHA256(key, url)), key = BLAKE2b-256(secret, person "moorage-agent")
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence


class Tokens:
    """The tokens of one fleet. The first secret signs; all are accepted, so that secrets can be rotated."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        """Raises ValueError for no secret at all."""
        if not secrets:
            raise ValueError("at least one secret is needed")
        self._keys = tuple(
            hashlib.blake2b(secret, digest_size=32, person=b"moorage-agent").digest() for secret in secrets
        )

    def of(self, url: str) -> str:
        """What the agent at this URL is asked with."""
        return _token(self._keys[0], url)

    def accepts(self, url: str, said: bytes) -> bool:
        """Whether the agent at this URL is to believe a token; in a time that tells nothing of the right one."""
        return any(hmac.compare_digest(_token(key, url).encode(), said) for key in self._keys)


def _token(key: bytes, url: str) -> str:
    return urlsafe_b64encode(hmac.digest(key, url.encode(), "sha256")).rstrip(b"=").decode()
