"""A container as the Engine API describes it, read into values: what it is called, how it is, where it can be reached.

Docker Engine API, `GET /containers/json` and `GET /containers/{id}/json`. Nothing here asks the engine. Fields that an
engine leaves out have their zero; unknown ones are ignored.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from gateway.agent.base import InstanceKey
from gateway.agent.incarnations import after
from gateway.core.model import Address

LABEL: Final = "moorage.app"
MAX_ID: Final = 64
"""Characters of an instance id."""

_REPLACES: Final = "com.docker.compose.replace"
_PROVISIONAL = re.compile(r"[0-9a-f]{12}_(?=.)")
_WILDCARDS: Final = frozenset({"", "0.0.0.0", "::"})


@dataclass(frozen=True, slots=True)
class Named:
    """What a container is called, which a list says as well as an inspection."""

    id: str
    name: str
    labels: Mapping[str, str]
    created_s: int
    """Unix time. Of two containers for one instance, the older one is it."""
    key: InstanceKey | None
    """None without our label."""
    port: int
    """Where its instance listens; 0 when no label says so."""
    network: str
    """The one network to reach it on; empty for any."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Its address on one network."""

    network: str
    ip: str
    prefix_bits: int


@dataclass(frozen=True, slots=True)
class Container:
    """One container at one moment."""

    named: Named
    running: bool
    """False too while it is paused, and while the engine waits to restart it."""
    paused: bool
    restarting: bool
    started_ms: int
    """When its present or last life began, in Unix time; of one that never ran, when it was created."""
    exit_status: int
    out_of_memory: bool
    error: str
    """Why the engine could not start it, in its own words."""
    stop_signal: int
    endpoints: tuple[Endpoint, ...]
    """In order of the networks' names."""
    published: Mapping[int, tuple[Address, ...]]
    """Its TCP ports, and the host's addresses that lead there; a host may be a wildcard."""
    on_host: bool
    """It has no network of its own, but the host's."""

    @property
    def id(self) -> str:
        return self.named.id

    @property
    def key(self) -> InstanceKey | None:
        return self.named.key

    @property
    def incarnation(self) -> str:
        """The name of its present or last life: whoever asks computes the same."""
        return after("", self.started_ms)

    @property
    def detail(self) -> str:
        return f"container {self.named.name} ({self.id[:12]})"


# --- reading ---------------------------------------------------------------------------


def read_listed(raw: object, label: str = LABEL) -> Named:
    """One entry of a list.

    Raises:
        ValueError: it is no container.
    """
    names = _at(raw, "Names")
    # With legacy links there are more names, such as /other/alias.
    own = [name for name in names if isinstance(name, str) and name.count("/") == 1] if isinstance(names, list) else []
    return _named(_text(raw, "Id"), own[0] if own else "", _labels(_at(raw, "Labels")), _number(raw, "Created"), label)


def read_inspected(raw: object, label: str = LABEL) -> Container:
    """The answer to an inspection.

    Raises:
        ValueError: it is no container.
    """
    created_ms = _time_ms(_text(raw, "Created"))
    labels = _labels(_at(raw, "Config", "Labels"))
    up, restarting, paused = (_at(raw, "State", name) is True for name in ("Running", "Restarting", "Paused"))
    return Container(
        named=_named(_text(raw, "Id"), _text(raw, "Name"), labels, created_ms // 1000, label),
        running=up and not paused and not restarting,
        paused=up and paused,
        restarting=restarting,
        started_ms=max(created_ms, _time_ms(_text(raw, "State", "StartedAt"))),
        exit_status=_number(raw, "State", "ExitCode"),
        out_of_memory=_at(raw, "State", "OOMKilled") is True,
        error=_text(raw, "State", "Error"),
        stop_signal=_signal(_text(raw, "Config", "StopSignal")),
        endpoints=tuple(_endpoints(_at(raw, "NetworkSettings", "Networks"))),
        published=_published(_at(raw, "NetworkSettings", "Ports")),
        on_host=_text(raw, "HostConfig", "NetworkMode") == "host",
    )


def _named(id: str, name: str, labels: Mapping[str, str], created_s: int, label: str) -> Named:
    if not id:
        raise ValueError("a container without an id")
    name = name.removeprefix("/")
    app, prefix = labels.get(label), prefix_of(label)
    port = labels.get(f"{prefix}port", "")
    return Named(
        id=id,
        name=name,
        labels=labels,
        created_s=created_s,
        key=None if app is None else InstanceKey(app, labels.get(f"{prefix}id") or instance_id(name, labels)),
        port=int(port) if re.fullmatch(r"[0-9]{1,5}", port) else 0,
        network=labels.get(f"{prefix}network", ""),
    )


def prefix_of(label: str) -> str:
    """What all our labels begin with: `moorage.` for `moorage.app`."""
    return label.rpartition(".")[0] + "."


def instance_id(name: str, labels: Mapping[str, str]) -> str:
    """The id of an instance that has no label for it: its container's name in letters, digits and `-`.

    What Compose makes in another container's place has a provisional name until that one is gone; the id is the final
    one's from the beginning.
    """
    if _REPLACES in labels:
        name = _PROVISIONAL.sub("", name, count=1)
    text = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
    if len(text) <= MAX_ID:
        return text
    return f"{text[: MAX_ID - 9]}-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"


def _endpoints(raw: object) -> list[Endpoint]:
    found = []
    for network in sorted(raw) if isinstance(raw, dict) else ():
        for ip, bits in (("IPAddress", "IPPrefixLen"), ("GlobalIPv6Address", "GlobalIPv6PrefixLen")):
            if text := _text(raw, network, ip):
                found.append(Endpoint(network, text, _number(raw, network, bits)))
    return found


def _published(raw: object) -> dict[int, tuple[Address, ...]]:
    found: dict[int, tuple[Address, ...]] = {}
    for name, bindings in raw.items() if isinstance(raw, dict) else ():
        port, _, protocol = name.partition("/")
        if protocol == "tcp" and port.isdigit() and isinstance(bindings, list):
            hosts = [(_text(one, "HostIp"), _text(one, "HostPort")) for one in bindings]
            found[int(port)] = tuple(Address(host, int(number)) for host, number in hosts if number.isdigit())
    return found


def _time_ms(text: str) -> int:
    """RFC 3339 as Unix time; 0 for none, which Go writes as the year 1."""
    try:
        moment = datetime.fromisoformat(text)
        return max(0, int(moment.timestamp() * 1000))
    except (ValueError, OverflowError):
        return 0


def _signal(text: str) -> int:
    if text.isdigit():
        return int(text)
    try:
        return signal.Signals[text if text.startswith("SIG") else f"SIG{text}"].value
    except KeyError:
        return signal.SIGTERM.value


def _labels(raw: object) -> dict[str, str]:
    return {key: text for key, text in raw.items() if isinstance(text, str)} if isinstance(raw, dict) else {}


def _at(raw: object, *path: str) -> object:
    for step in path:
        raw = raw.get(step) if isinstance(raw, dict) else None
    return raw


def _text(raw: object, *path: str) -> str:
    found = _at(raw, *path)
    return found if isinstance(found, str) else ""


def _number(raw: object, *path: str) -> int:
    found = _at(raw, *path)
    return found if isinstance(found, int) else 0


# --- where it is -----------------------------------------------------------------------


def attached(endpoint: Endpoint) -> bool:
    """Whether this process is on the endpoint's network itself: as the bridge's host, or in a container beside it.

    The kernel is asked which of its own addresses it would speak from; nothing is sent.
    """
    try:
        family = socket.AF_INET6 if ":" in endpoint.ip else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((endpoint.ip, 9))
            own = probe.getsockname()[0]
        network = ipaddress.ip_network(f"{endpoint.ip}/{endpoint.prefix_bits}", strict=False)
        return ipaddress.ip_address(own) in network
    except (OSError, ValueError):
        return False


def address_of(container: Container, host: str, is_attached: Callable[[Endpoint], bool] = attached) -> Address | None:
    """Where the instance can be reached from here, as well as can be told; None when it has no address.

    On the one network that its label names, as the engine or as its Compose file calls it; or else on one that this
    process is on too; or else at a port of the host that leads there; or else on any of its networks.

    Args:
        host: where the engine's host can be reached.
    """
    port, network = container.named.port, container.named.network
    if network:
        names = {network, f"{container.named.labels.get('com.docker.compose.project', '')}_{network}"}
        return next((Address(one.ip, port) for one in container.endpoints if one.network in names), None)
    for endpoint in container.endpoints:
        if is_attached(endpoint):
            return Address(endpoint.ip, port)
    for published in container.published.get(port, ()):
        if published.host in _WILDCARDS:
            return Address(host, published.port)
        if not _is_loopback(published.host) or _is_loopback(host):
            return published
    if container.on_host:
        return Address(host, port)
    return next((Address(one.ip, port) for one in container.endpoints), None)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
