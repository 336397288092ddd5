"""Every error the gateway makes itself: one code, one status, one remedy.

Codes are Fly's (docs "Error codes") where Fly has one for the case; families PB (bad request)
and PS (session) are ours, because Fly Proxy has no session of its own to lose.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    PB01 = "PB01"


@dataclass(frozen=True, slots=True)
class Problem:
    """One refusal or failure, before it is put into bytes.

    `message` says what happened to which thing; the remedy comes from the code's table entry.
    """

    code: Code
    message: str
    app: str = ""
    instance: str = ""
    retry_after_s: int | None = None
