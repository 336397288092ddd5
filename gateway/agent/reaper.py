"""The program that ends a dead agent's instances; run as a file by `leash.Leash`, and what it knows of process groups.

It reads lines from standard input: `+<process group> <mark>` and `-<process group> <mark>`. The pipe's other end is
held by the agent alone, so its end of file, however the agent died, means that nobody looks after the instances any
more: they get SIGTERM and, after a grace, SIGKILL. On `-`, what of that instance is left outside its group is killed.

On Linux it also finds the marked processes that left their process group, by MOORAGE_LEASH in their environment;
elsewhere those stay (documented in docs/reference/lifecycle.md). Standard library only: it starts with `python -I -S`.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

GRACE_S = 2.0
POLL_S = 0.02
PARENT_POLL_S = 1.0
MARK_VARIABLE = b"MOORAGE_LEASH="


def marked(mark: bytes) -> set[int]:
    """Return the ids of the processes whose environment has a mark that begins with `mark`."""
    if not sys.platform.startswith("linux"):
        return set()
    found: set[int] = set()
    wanted = b"\0" + MARK_VARIABLE + mark
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if wanted in b"\0" + file.read():
                    found.add(int(name))
        except OSError:  # ended meanwhile, or not ours to read
            continue
    found.discard(os.getpid())
    return found


def group_lives(group: int) -> bool:
    """Whether a process of the group still runs. One that has ended but was not collected by its parent does not.

    An orphan is collected by process 1, and in a container that may be a program that never does.
    """
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    if not sys.platform.startswith("linux"):
        return True
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # proc(5): pid (comm) state ppid pgrp; comm may hold anything, also parentheses.
                state, _, pgrp = file.read().rpartition(b")")[2].split()[:3]
        except (OSError, ValueError):  # ended meanwhile
            continue
        if int(pgrp) == group and state not in {b"Z", b"X"}:
            return True
    return False


def signal_all(groups: set[int], mark: bytes, number: int) -> bool:
    """Signal every group and every marked process; return whether any lived."""
    any_left = False
    for group in groups:
        if not group_lives(group):
            continue
        any_left = True
        try:
            os.killpg(group, number)
        except OSError:
            continue
    for pid in marked(mark):
        try:
            os.kill(pid, number)
            any_left = True
        except OSError:
            continue
    return any_left


def reap(groups: set[int], mark: bytes) -> None:
    """End everything: politely first, within GRACE_S by force, repeated because a process may fork meanwhile."""
    if not signal_all(groups, mark, signal.SIGTERM):
        return
    deadline_s = time.monotonic() + GRACE_S
    while time.monotonic() < deadline_s:
        if not signal_all(groups, mark, 0):
            return
        time.sleep(POLL_S)  # noqa: TID251 - a program of its own, without an event loop
    while signal_all(groups, mark, signal.SIGKILL) and time.monotonic() < deadline_s + GRACE_S:
        time.sleep(POLL_S)  # noqa: TID251 - a program of its own, without an event loop


def follow(mark: bytes) -> set[int]:
    """Read lines until the agent is gone; return the groups it left behind."""
    parent = os.getppid()
    groups: set[int] = set()
    unread = b""
    # The parent's id is looked at as well: should a forked process have inherited the pipe, there is no end of file.
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], PARENT_POLL_S)
        if not readable:
            continue
        data = os.read(0, 65536)
        if not data:
            break
        *lines, unread = (unread + data).split(b"\n")
        for line in lines:
            sign, (group, full_mark) = line[:1], line[1:].split(b" ")
            if sign == b"+":
                groups.add(int(group))
            else:
                groups.discard(int(group))
                signal_all(set(), full_mark, signal.SIGKILL)
    return groups


def main() -> None:
    # A terminal's Ctrl-C and a supervisor's SIGTERM are for the agent; this one ends when the agent has ended.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    mark = sys.argv[1].encode()
    reap(follow(mark), mark)


if __name__ == "__main__":
    main()
