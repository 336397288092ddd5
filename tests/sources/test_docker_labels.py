"""What labels of containers say: the same settings, faults and remedies as the configuration file's."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.agent.base import DriverName, InstanceKey, Spec
from gateway.agent.docker_container import Named, read_listed
from gateway.config import ConfigFaults, parse
from gateway.config.sections import AppSection
from gateway.core.model import App
from gateway.sources.docker_labels import Faulty, Found, LabelFault, read_container, read_containers

WHOLE = {
    "app": "tools",
    "port": "8000",
    "hosts": "a.example, *.b.example",
    "path": "/tools",
    "strip_path": "true",
    "org": "123",
    "key": "header:X-Session,principal",
    "session_ids": "stored",
    "wake_timeout": "90",
    "session_idle": "1h30m",
    "stop_grace": "0.5",
    "wake_queue": "7",
    "affinity_cookie": "",
    "concurrency.type": "connections",
    "concurrency.soft": "10",
    "concurrency.hard": "12",
    "checks.path": "/healthz",
    "checks.interval": "3s",
    "replay_sources": "org:partner",
    "replay_cache.0.path": "/a",
    "replay_cache.0.type": "cookie",
    "replay_cache.0.name": "sid",
    "replay_cache.1.path": "/b",
    "replay_cache.1.type": "header",
    "replay_cache.1.name": "X-Room",
    "replay_cache.1.ttl": "30s",
    "replay_cache.1.allow_bypass": "true",
}
SAME_AS_A_FILE = """
[apps.tools]
hosts = ["a.example", "*.b.example"]
path = "/tools"
strip_path = true
org = "123"
key = ["header:X-Session", "principal"]
session_ids = "stored"
wake_timeout = 90
session_idle = "1h30m"
stop_grace = 0.5
wake_queue = 7
affinity_cookie = ""
concurrency = { type = "connections", soft = 10, hard = 12 }
checks = [{ path = "/healthz", interval = "3s" }]
replay_sources = ["org:partner"]
replay_cache = [
  { path = "/a", type = "cookie", name = "sid" },
  { path = "/b", type = "header", name = "X-Room", ttl = "30s", allow_bypass = true },
]
"""


def container(
    texts: Mapping[str, str], name: str = "web-1", *, created_s: int = 1, more: Mapping[str, str] | None = None
) -> Named:
    labels = {f"moorage.{key}": text for key, text in texts.items()} | dict(more or {})
    return read_listed({"Id": f"id-of-{name}", "Names": [f"/{name}"], "Labels": labels, "Created": created_s})


def tools(name: str, created_s: int = 1, more: Mapping[str, str] | None = None, **texts: str) -> Named:
    """An instance of the app tools."""
    return container({"app": "tools", "port": "8000", **texts}, name, created_s=created_s, more=more)


def found(one: Named, **options: str) -> Found:
    read = read_container(one, **options)
    assert isinstance(read, Found), str(read)
    return read


def faults(texts: Mapping[str, str]) -> tuple[LabelFault, ...]:
    read = read_container(container(texts))
    assert isinstance(read, Faulty)
    return read.faults


def app(one: Named) -> App:
    return found(one).app


# --- one container ---------------------------------------------------------------------


def test_labels_say_what_the_file_says() -> None:
    assert app(container(WHOLE)) == parse(SAME_AS_A_FILE, environ={}).apps[0].app


def test_two_labels_make_an_instance() -> None:
    read = found(tools("shop_web_1"), region="ams")
    spec = Spec(
        InstanceKey("tools", "shop-web-1"),
        region="ams",
        platform=DriverName.DOCKER,
        target="id-of-shop_web_1",
        port=8000,
    )
    assert (read.app, read.spec, read.says) == (App("tools"), spec, False)


def test_labels_name_id_and_region() -> None:
    spec = found(tools("web", id="i-1", region="fra")).spec
    assert (spec.key, spec.region) == (InstanceKey("tools", "i-1"), "fra")


def test_another_prefix_is_another_set_of_labels() -> None:
    raw = {"Id": "x", "Names": ["/web"], "Labels": {"other.app": "tools", "other.port": "1", "moorage.org": "no"}}
    read = read_container(read_listed(raw, "other.app"), label="other.app")
    assert isinstance(read, Found)
    assert (read.app, read.spec.key) == (App("tools"), InstanceKey("tools", "web"))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"app": "Tools"}, [("moorage.app", '"Tools" is not a name')]),
        ({"id": "a b"}, [("moorage.id", '"a b" is not an instance id')]),
        ({"region": "any"}, [("moorage.region", '"any" is reserved')]),
        ({"port": "http"}, [("moorage.port", '"http" is not a port')]),
        ({"port": "70000"}, [("moorage.port", '"70000" is not a port')]),
        ({"strip_path": "yes"}, [("moorage.strip_path", '"yes" is not true or false')]),
        ({"wake_queue": "many"}, [("moorage.wake_queue", '"many" is not a whole number')]),
        ({"wake_timeout": "soon"}, [("moorage.wake_timeout", '"soon" is not a duration')]),
        ({"protocol": "ftp"}, [("moorage.protocol", '"ftp" is not known')]),
        ({"hosts": "a.example,-"}, [("moorage.hosts", '"-" is not a host')]),
        ({"hosts": "a.example,a.example"}, [("moorage.hosts", '"a.example" is listed twice')]),
        ({"colour": "red"}, [("moorage.colour", "unknown key")]),
        ({"org.x": "red"}, [("moorage.org.x", "unknown key")]),
        ({"concurrency": "5"}, [("moorage.concurrency", "has no value of its own")]),
        ({"concurrency.soft": "0"}, [("moorage.concurrency.soft", "0 is too small")]),
        (
            {"concurrency.soft": "9", "concurrency.hard": "8"},
            [("moorage.concurrency.soft", "soft (9) is above hard (8)")],
        ),
        ({"checks.interval": "3s"}, [("moorage.checks.path", "is missing")]),
        ({"checks.0.path": "/", "checks.3.path": "x"}, [("moorage.checks.3.path", '"x" is not a path')]),
        ({"allowed_origins": "a"}, [("moorage.allowed_origins", '"a" is not built yet')]),
    ],
    ids=str,
)
def test_a_fault_names_its_label(texts: dict[str, str], expected: list[tuple[str, str]]) -> None:
    said = faults({"app": "tools", "port": "8000", **texts})
    assert [(label, message) for label, message, _ in said] == expected
    assert all(remedy for _, _, remedy in said)


def test_a_missing_port_is_a_fault() -> None:
    assert faults({"app": "tools"}) == (
        ("moorage.port", "is missing", "add it: the port that the instance listens on"),
    )


def test_every_fault_is_told_at_once() -> None:
    assert {label for label, _, _ in faults({"app": "", "hosts": "*", "wake_timeout": "0"})} == {
        "moorage.app",
        "moorage.port",
        "moorage.hosts",
        "moorage.wake_timeout",
    }


def test_faults_and_remedies_are_those_of_the_file() -> None:
    with pytest.raises(ConfigFaults) as caught:
        parse('[apps.tools]\nsession_ids = "kept"\nstop_grase = 1\n', environ={})
    ours = faults({"app": "tools", "port": "1", "session_ids": "kept", "stop_grase": "1"})
    assert {(message, remedy) for _, message, remedy in ours} == {
        (fault.message, fault.remedy) for fault in caught.value.faults
    }


def test_an_empty_list_is_written_as_nothing() -> None:
    assert app(tools("web", hosts=" ")).hosts == ()


@pytest.mark.parametrize("name", [info.alias or name for name, info in AppSection.model_fields.items()])
def test_every_key_of_an_app_has_a_label(name: str) -> None:
    """Whatever stands in it, it is that label which is wrong, or nothing is."""
    read = read_container(container({"app": "tools", "port": "1", name: "\0"}))
    if isinstance(read, Faulty):
        assert {fault.label for fault in read.faults} == {f"moorage.{name}"}
        assert "unknown key" not in str(read)


LABEL = st.text(st.sampled_from("abchostskeypath_.0129-") | st.characters(codec="utf-8"), max_size=20)
KEYS = st.sampled_from(sorted(WHOLE)) | LABEL


@given(st.dictionaries(KEYS, st.text(max_size=20), max_size=6))
def test_any_labels_are_read(texts: dict[str, str]) -> None:
    read = read_container(container(texts))
    assert isinstance(read, Found) or str(read)


# --- all containers --------------------------------------------------------------------


def test_replicas_are_instances_of_one_app() -> None:
    roster = read_containers([tools(f"web-{n}", org="us") for n in (2, 1)])
    assert [key.id for key in roster.instances] == ["web-1", "web-2"]
    assert roster.apps == {"tools": App("tools", org="us")}
    assert roster.complaints == ()


def test_the_first_by_name_that_says_anything_decides_about_the_app() -> None:
    roster = read_containers(
        [
            tools("c", org="them", created_s=1),
            tools("b", org="us", created_s=2),
            tools("a", created_s=3),
        ]
    )
    assert {one.org for one, _ in roster.instances.values()} == {"us"}
    assert len(roster.instances) == 3
    assert roster.complaints == (("c", "says otherwise of app tools than b, which counts: org"),)


def test_a_faulty_container_is_left_out_alone() -> None:
    bad = tools("bad", port="x")
    roster = read_containers([tools("good"), bad, tools("other", app="else")])
    assert {key.id for key in roster.instances} == {"good", "other"}
    assert [name for name, _ in roster.complaints] == ["bad"]


def test_the_older_of_two_with_one_id_is_it() -> None:
    one, two = (tools(name, id="i", created_s=age) for name, age in (("a", 2), ("b", 1)))
    roster = read_containers([one, two])
    assert [spec.target for _, spec in roster.instances.values()] == ["id-of-b"]
    assert roster.complaints == (("a", "tools/i is b already; give it another moorage.id"),)


def test_what_compose_puts_in_anothers_place_has_its_id_and_waits_for_it() -> None:
    old = tools("shop-web-1", created_s=1)
    mark = {"com.docker.compose.replace": old.id}
    new = tools("0123456789ab_shop-web-1", created_s=2, more=mark)
    assert new.key == old.key
    both = read_containers([new, old])
    assert ([spec.target for _, spec in both.instances.values()], both.complaints) == ([old.id], ())
    assert [spec.target for _, spec in read_containers([new]).instances.values()] == [new.id]


def test_a_one_off_container_of_compose_is_no_instance() -> None:
    run = tools("shop-web-run-1", more={"com.docker.compose.oneoff": "True"})
    assert not read_containers([run]).instances


def test_the_files_apps_are_the_files() -> None:
    settled = {"tools": App("tools", org="file")}
    silent, speaking = tools("a"), tools("b", org="label")
    roster = read_containers([silent, speaking], settled=settled)
    assert not roster.apps
    assert [one for one, _ in roster.instances.values()] == [settled["tools"]] * 2
    text = "says otherwise of app tools than the configuration file, which counts: org"
    assert roster.complaints == (("b", text),)
