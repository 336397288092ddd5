"""A container read from the engine's JSON: its name as an instance, its lives, and where it can be reached."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.agent.base import InstanceKey
from gateway.agent.docker_container import (
    MAX_ID,
    Container,
    Endpoint,
    address_of,
    attached,
    instance_id,
    read_inspected,
    read_listed,
)
from gateway.agent.incarnations import after
from gateway.core.model import Address

CREATED = "2026-11-25T10:23:11.5Z"
CREATED_MS = 1795602191500
STARTED = "2026-11-25T10:23:12.739787996Z"
STARTED_MS = 1795602192739
NEVER = "0001-01-01T00:00:00Z"
LABELS = {"moorage.app": "tools", "moorage.port": "8000"}


def inspected(
    state: Mapping[str, Any] | None = None,
    networks: Mapping[str, Mapping[str, Any]] | None = None,
    ports: Mapping[str, Any] | None = None,
    mode: str = "bridge",
    labels: Mapping[str, str] | None = None,
    **config: Any,
) -> Container:
    return read_inspected(
        {
            "Id": "0123456789abcdef",
            "Name": "/shop_web_1",
            "Created": CREATED,
            "State": {"Running": True, "StartedAt": STARTED, **(state or {})},
            "Config": {"Labels": {**LABELS, **(labels or {})}, **config},
            "HostConfig": {"NetworkMode": mode},
            "NetworkSettings": {"Networks": networks or {}, "Ports": ports or {}},
        }
    )


# --- names and lives -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("web", "web"),
        ("shop_web_1", "shop-web-1"),
        ("shop.web__1_", "shop-web-1"),
        ("Shop-Web-1", "Shop-Web-1"),
        ("x" * 64, "x" * 64),
        ("0123456789ab_web", "0123456789ab-web"),
    ],
)
def test_a_name_becomes_an_id(name: str, id: str) -> None:
    assert instance_id(name, {}) == id


def test_long_names_that_begin_alike_have_different_ids() -> None:
    ids = {instance_id("x" * 70 + end, {}) for end in "abc"}
    assert len(ids) == 3
    assert {len(id) for id in ids} == {MAX_ID}


def test_a_list_and_an_inspection_agree() -> None:
    raw = {"Id": "0123456789abcdef", "Names": ["/other/alias", "/shop_web_1"], "Created": 1795602191, "Labels": LABELS}
    assert read_listed(raw) == inspected().named
    assert inspected().key == InstanceKey("tools", "shop-web-1")
    assert inspected(labels={"moorage.id": "i-1"}).key == InstanceKey("tools", "i-1")


def test_without_the_label_it_is_nobody() -> None:
    assert read_listed({"Id": "x", "Names": ["/web"], "Labels": {"moorage.id": "i"}}).key is None


def test_a_life_is_named_by_its_start() -> None:
    assert inspected().incarnation == after("", STARTED_MS)
    assert inspected({"Running": True, "Paused": True}).incarnation == after("", STARTED_MS)
    assert inspected({"Running": False}).incarnation == after("", STARTED_MS), "what has ended was this life"


def test_what_never_ran_is_later_than_what_it_replaces() -> None:
    assert inspected({"Running": False, "StartedAt": NEVER}).incarnation == after("", CREATED_MS)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({}, (True, False, False)),
        ({"Paused": True}, (False, True, False)),
        ({"Restarting": True}, (False, False, True)),
        ({"Running": False}, (False, False, False)),
        ({"Running": False, "Paused": True}, (False, False, False)),
    ],
)
def test_how_it_is(state: Mapping[str, Any], expected: tuple[bool, bool, bool]) -> None:
    container = inspected(state)
    assert (container.running, container.paused, container.restarting) == expected


@pytest.mark.parametrize(
    ("text", "number"),
    [("", signal.SIGTERM), ("SIGINT", signal.SIGINT), ("QUIT", signal.SIGQUIT), ("9", 9), ("SIGNOT", signal.SIGTERM)],
)
def test_its_stop_signal(text: str, number: int) -> None:
    assert inspected(StopSignal=text).stop_signal == number


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30) | st.sampled_from([CREATED, NEVER, "9" * 30]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PARTS = ("Id", "Name", "Names", "Labels", "Created", "State", "Config", "HostConfig", "NetworkSettings")


@given(st.dictionaries(st.sampled_from(PARTS), JSON), st.sampled_from([read_listed, read_inspected]))
def test_any_answer_is_read_or_refused(raw: dict[str, Any], read: Callable[[object], object]) -> None:
    try:
        read(raw)
    except ValueError:
        assert not (isinstance(raw.get("Id"), str) and raw["Id"])


# --- addresses -------------------------------------------------------------------------

FRONT = {"IPAddress": "172.18.0.2", "IPPrefixLen": 16}
BACK = {"IPAddress": "172.19.0.2", "IPPrefixLen": 16, "GlobalIPv6Address": "fd00::2", "GlobalIPv6PrefixLen": 64}
BOTH = {"shop_front": FRONT, "shop_back": BACK}
PUBLISHED = {"8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "32768"}], "9/udp": None, "80/tcp": None}


def reached(container: Container, *mine: str, host: str = "127.0.0.1") -> Address | None:
    """The address for a process that is on these networks."""
    return address_of(container, host, lambda endpoint: endpoint.network in mine)


def test_a_shared_network_comes_first() -> None:
    assert reached(inspected(networks=BOTH, ports=PUBLISHED), "shop_front") == Address("172.18.0.2", 8000)
    assert reached(inspected(networks=BOTH), "shop_front", "shop_back") == Address("172.19.0.2", 8000)


def test_a_network_with_ipv6_only_will_do() -> None:
    only = {"back": {**BACK, "IPAddress": ""}}
    assert reached(inspected(networks=only), "back") == Address("fd00::2", 8000)


@pytest.mark.parametrize("name", ["shop_front", "front"])
def test_a_label_names_the_network(name: str) -> None:
    labels = {"moorage.network": name, "com.docker.compose.project": "shop"}
    assert reached(inspected(networks=BOTH, labels=labels), "shop_back") == Address("172.18.0.2", 8000)


def test_a_network_that_it_is_not_on_leads_nowhere() -> None:
    assert reached(inspected(networks=BOTH, labels={"moorage.network": "other"}, ports=PUBLISHED), "shop_back") is None


@pytest.mark.parametrize(
    ("bound", "host", "expected"),
    [
        ("0.0.0.0", "127.0.0.1", Address("127.0.0.1", 32768)),
        ("::", "127.0.0.1", Address("127.0.0.1", 32768)),
        ("", "docker.example", Address("docker.example", 32768)),
        ("127.0.0.1", "127.0.0.1", Address("127.0.0.1", 32768)),
        ("10.0.0.7", "docker.example", Address("10.0.0.7", 32768)),
        ("127.0.0.1", "docker.example", Address("172.18.0.2", 8000)),  # a loopback that is not ours
    ],
)
def test_a_published_port_leads_to_it_too(bound: str, host: str, expected: Address) -> None:
    ports = {"8000/tcp": [{"HostIp": bound, "HostPort": "32768"}]}
    assert reached(inspected(networks={"shop_front": FRONT}, ports=ports), host=host) == expected


def test_the_hosts_own_network_is_the_host() -> None:
    assert reached(inspected(mode="host", networks={"host": {}})) == Address("127.0.0.1", 8000)
    assert reached(inspected(mode="host"), host="docker.example") == Address("docker.example", 8000)


def test_any_network_is_the_last_resort() -> None:
    assert reached(inspected(networks=BOTH)) == Address("172.19.0.2", 8000)
    assert reached(inspected(mode="none", networks={"none": {}})) is None


def test_this_machine_is_on_its_own_networks() -> None:
    assert attached(Endpoint("loopback", "127.0.0.9", 8))
    assert not attached(Endpoint("documentation", "192.0.2.0", 32))
    assert not attached(Endpoint("nonsense", "no-address", 16))
