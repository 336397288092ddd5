"""The kinds of value that an agent is set by: where it listens, how others reach it, which Docker it asks."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import PlainValidator

from gateway.config.faults import bad, shown
from gateway.config.values import Written, address, listener, text_of
from gateway.core.bodies import parse_instance
from gateway.core.model import Address
from gateway.core.record import BadRecord

_SOCKET = re.compile(r"unix:///[^\x00-\x20\x7f]+")


def agent_listener(value: object) -> Address | None:
    """Where an agent listens; `""` is the same as nothing."""
    return None if value is None or value == "" else listener(value)


def agent_url(value: object) -> str:
    """How an agent is reached: scheme, host and port, as they stand in its instances' records."""
    text = text_of(value, 'such as "http://10.0.0.5:8082"')
    if not text:
        return text
    scheme, _, where = text.partition("://")
    if scheme not in ("http", "https") or not re.search(r":[0-9]+\Z", where):
        raise bad(f"{shown(text)} is not an agent's URL", 'write "http://host:port", with nothing behind the port')
    url = f"{scheme}://{address(where)}"
    # What no gateway takes from a record would take the instances with it.
    if isinstance(parse_instance("app/id", {"agent": url, "address": where}), BadRecord):
        raise bad(f"{shown(where)} is no address that gateways dial", "name it by its IP address, or without _")
    return url


def docker_host(value: object) -> str:
    """Where Docker's API is; empty for none."""
    text = text_of(value, 'such as "unix:///var/run/docker.sock"')
    if not text or _SOCKET.fullmatch(text):
        return text
    scheme, _, where = text.partition("://")
    if scheme != "tcp":
        remedy = 'write "unix:///var/run/docker.sock", "tcp://host:2376", or "" for none'
        raise bad(f"{shown(text)} is not where a Docker listens", remedy)
    return f"tcp://{address(where)}"


AgentListener = Annotated[Address | None, PlainValidator(agent_listener), Written("host:port")]
AgentUrl = Annotated[str, PlainValidator(agent_url), Written("URL")]
DockerHost = Annotated[str, PlainValidator(docker_host), Written("URL")]
