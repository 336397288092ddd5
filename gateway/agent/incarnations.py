"""Names of an instance's lives: eight characters that sort by time, so that an older life can be told from a newer.

A gateway that meets a session of a life which its catalog does not know yet must not call it lost; a life older than
the one the catalog knows is over for good.
"""

from __future__ import annotations

from typing import Final

LENGTH: Final = 8
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


def after(previous: str, now_ms: int) -> str:
    """The name of a life that begins at `now_ms` (Unix time), later than `previous` also where the clock went back."""
    last = int(previous, 36) if len(previous) == LENGTH and previous.isalnum() and previous.isascii() else -1
    number = max(now_ms, last + 1)
    digits = ""
    for _ in range(LENGTH):
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits
