"""Sessions, gateways, catalog, health, readiness, metrics, and the document that describes them all."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.routing import Route

from gateway.admin.application import application
from gateway.core.model import App, Instance, Pin
from gateway.core.problems import Problem
from gateway.lifecycle.waker import Waker
from tests.net.admin_bench import Bench, bench
from tests.net.yard import toy

CANARY = b"canary-session-id"


def seal(on: Bench, app: str, upstream: bytes, instance: str = "i-1") -> bytes:
    token = on.gateway.sealer.seal_session(app, Pin(instance, "k3j9"), upstream, None)
    session = on.gateway.sessions.touch(token, app, Pin(instance, "k3j9"), on.gateway.now_s)
    session.requests += 1
    return token


async def test_sessions_are_listed_by_digest_the_latest_first() -> None:
    async with bench(App("tools"), App("other")) as on:
        on.gateway.now_s = 100.0
        first = seal(on, "tools", CANARY + b"1")
        seal(on, "tools", CANARY + b"2", "i-2")
        seal(on, "other", CANARY + b"3")
        on.gateway.now_s = 130.0
        on.gateway.sessions.touch(first, "tools", Pin("i-1", "k3j9"), 130.0).misroutes += 1
        listed = await on.get("/v1/sessions")
        assert [one["app"] for one in listed["sessions"]] == ["tools", "other", "tools"]
        assert listed["sessions"][0] == {
            "name": listed["sessions"][0]["name"],
            "app": "tools",
            "home": "tools",
            "instance": "i-1",
            "instance_id": "k3j9",
            "age_s": 30.0,
            "idle_s": 0.0,
            "requests": 1,
            "streams": 0,
            "misroutes": 1,
        }
        assert listed["sessions"][1]["idle_s"] == 30.0
        assert CANARY.decode() not in str(listed)
        assert first.decode() not in str(listed)
        assert (await on.get("/v1/sessions", app="tools", instance="i-2"))["total"] == 1
        assert (await on.get("/v1/sessions", app="none")) == {"sessions": [], "total": 0, "next": None}


async def test_sessions_come_in_pages() -> None:
    async with bench(App("tools")) as on:
        for number in range(7):
            seal(on, "tools", b"%d" % number)
        names: list[str] = []
        offset: int | None = 0
        while offset is not None:
            page = await on.get("/v1/sessions", limit=3, offset=offset)
            assert page["total"] == 7
            names += [one["name"] for one in page["sessions"]]
            offset = page["next"]
        assert len(set(names)) == 7
        assert (await on.client.get("/v1/sessions?limit=1001")).status_code == 422


async def test_a_session_is_ended_by_its_listed_name_only() -> None:
    async with bench(App("tools")) as on:
        token, kept = seal(on, "tools", b"1"), seal(on, "tools", b"2")
        name = (await on.get("/v1/sessions"))["sessions"][1]["name"]
        assert (await on.client.delete(f"/v1/sessions/{name}")).json() == {"ok": True}
        assert on.gateway.sessions.ended(token)
        assert not on.gateway.sessions.ended(kept)
        for unknown in (name, "0" * 16, kept.decode()):
            response = await on.client.delete(f"/v1/sessions/{unknown}")
            assert response.status_code == 404
            assert kept.decode() not in response.text


async def test_the_gateway_tells_of_itself() -> None:
    async with bench(App("tools")) as on:
        (one,) = (await on.get("/v1/gateways"))["gateways"]
        assert one["id"] == on.logs.name
        assert one["boot"] == on.gateway.boot
        assert one["region"] == "local"
        assert (one["connections"], one["requests_in_flight"], one["streams"]) == (0, 0, 0)
        assert one["ready"] is True
        assert one["draining"] is False
        assert 0 <= one["up_s"] < 60


async def test_the_catalog_tells_of_its_logs_and_of_bad_records() -> None:
    async with bench(App("tools")) as on:
        on.gateway.catalog.fold(b'{"kind": "app", "id": "tools", "schema": 9}', source="global", name="stream 7-0")
        told = await on.get("/v1/catalog")
        assert told["counts"]["apps"] == 1
        assert told["digest"] == on.gateway.catalog.digest()
        assert [(log["log"], log["connected"]) for log in told["logs"]] == [("global", True), ("local", True)]
        assert all(log["age_s"] is not None for log in told["logs"])
        (bad,) = told["quarantined"]
        assert bad["name"] == "app/tools"
        assert bad["log"] == "global"
        assert "schema" in bad["reason"]
        assert told["quarantined_total"] == 1
        assert on.logs.config_writer in told["last_applied"]


async def test_it_is_alive_before_it_is_ready_and_says_why_it_is_not() -> None:
    async with bench(App("tools"), ready=False) as on:
        assert (await on.client.get("/healthz")).status_code == 200
        await on.logs.ready()
        response = await on.client.get("/readyz")
        assert response.status_code == 503
        assert response.json() == {"ready": False, "why": ["the catalog is being put in order"]}
        on.gateway.ready = True
        assert (await on.client.get("/readyz")).json() == {"ready": True, "why": []}
        on.gateway.draining = True
        response = await on.client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["why"] == ["the gateway is draining"]
        assert (await on.client.get("/healthz")).status_code == 200


def samples(text: str) -> dict[str, float]:
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in lines}


async def test_metrics_show_what_is_counted() -> None:
    async with bench(App("tools")) as on:
        counters = on.gateway.counters
        counters.requests["tools", 200] += 3
        counters.rules["tools", "sealed"] += 2
        counters.problems["tools", "PS02"] += 1
        counters.outcomes["tools", "completed"] += 3
        counters.connections += 4
        on.gateway.loads.of("tools", "i-1").requests = 2
        on.gateway.loads.of("tools", "i-1").streams = 1
        before = samples((await on.client.get("/metrics")).text)
        assert before['moorage_misroutes_total{app="tools"}'] == 0
        counters.misroutes["tools"] += 1
        seal(on, "tools", CANARY)
        response = await on.client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=")
        found = samples(response.text)
        assert found['moorage_requests_total{app="tools",status="200"}'] == 3
        assert found['moorage_routed_total{app="tools",rule="sealed"}'] == 2
        assert found['moorage_problems_total{app="tools",code="PS02"}'] == 1
        assert found['moorage_request_outcomes_total{app="tools",outcome="completed"}'] == 3
        assert found["moorage_connections_accepted_total"] == 4
        assert found['moorage_misroutes_total{app="tools"}'] == 1
        assert found['moorage_instance_requests{app="tools",instance="i-1"}'] == 2
        assert found['moorage_instance_streams{app="tools",instance="i-1"}'] == 1
        assert found["moorage_sessions"] == 1
        assert found['moorage_catalog_records{kind="app"}'] == 1
        assert found['moorage_catalog_connected{log="global"}'] == 1
        assert found["process_resident_memory_bytes"] > 1_000_000
        assert CANARY.decode() not in response.text
        assert on.gateway.boot not in response.text
        ours = {name.split("{")[0] for name in found if not name.startswith(("process_", "python_"))}
        assert all(name.startswith("moorage_") for name in ours)


async def test_wakes_are_counted_by_their_time_and_by_their_failure() -> None:
    app = App("tools", wake_timeout_s=20.0, stop_grace_s=1.0)
    async with bench(app, instances=[(app, toy("i-1")), (app, toy("i-2", "--status", "3"))]) as on:
        assert isinstance(on.admin.waker, Waker)
        assert isinstance(await on.admin.waker.ensure(app, on.instance("i-1")), Instance)
        assert isinstance(await on.admin.waker.ensure(app, on.instance("i-2")), Problem)
        found = samples((await on.client.get("/metrics")).text)
        assert found['moorage_wake_seconds_count{app="tools"}'] == 1
        assert found['moorage_wake_seconds_bucket{app="tools",le="+Inf"}'] == 1
        assert 0 < found['moorage_wake_seconds_sum{app="tools"}'] < 20
        assert found['moorage_wakes_failed_total{app="tools",code="PM07"}'] == 1


async def test_metrics_speak_openmetrics_too_and_their_labels_are_a_closed_set() -> None:
    async with bench(App("tools")) as on:
        on.gateway.counters.requests["tools", 200] += 1
        response = await on.client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
        assert response.headers["content-type"].startswith("application/openmetrics-text")
        assert response.text.endswith("# EOF\n")
        own = re.sub(r"^(python|process)_.*$", "", response.text, flags=re.MULTILINE)
        labels = set(re.findall(r'[{,]([a-z_]+)="', own))
        allowed = {
            "app",
            "instance",
            "code",
            "rule",
            "status",
            "outcome",
            "kind",
            "log",
            "use",
            "version",
            "region",
            "le",
        }
        assert labels <= allowed


async def test_the_document_has_every_route_and_no_other() -> None:
    async with bench(App("tools")) as on:
        document = await on.get("/openapi.json")
        assert document["openapi"].startswith("3.1")
        served = {
            (route.path, method)
            for route in application(on.admin).routes
            if isinstance(route, Route)
            for method in (route.methods or set()) - {"HEAD"}
        }
        described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
        assert described == served
        operations = [
            operation["operationId"] for methods in document["paths"].values() for operation in methods.values()
        ]
        assert len(operations) == len(set(operations))


async def test_the_document_names_the_statuses_that_are_answered() -> None:
    async with bench(App("tools"), token="t") as on:
        paths: dict[str, Any] = (await on.get("/openapi.json"))["paths"]
        for path, methods in paths.items():
            for method, operation in methods.items():
                url = path.format(app="no-app", id="no-id", name="0" * 16)
                response = await on.client.request(
                    method.upper(), url, params={"timeout": "0.01"} if "wait" in url else {}
                )
                assert str(response.status_code) in {*operation["responses"], "400"}, (
                    method,
                    path,
                    response.status_code,
                )


@pytest.mark.parametrize("path", ["/v1/gateways?x=1", "/openapi.json?x=1", "/v1/catalog?limit=x"])
async def test_parameters_that_mean_nothing_are_faults(path: str) -> None:
    async with bench(App("tools")) as on:
        response = await on.client.get(path)
        assert response.status_code == 422


async def test_a_fault_in_here_is_pg01_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(App("tools")) as on:
        monkeypatch.setattr(on.gateway.catalog, "quarantined", lambda: 1 / 0)
        response = await on.client.get("/v1/catalog")
        assert response.status_code == 500
        assert response.json()["error"]["code"] == "PG01"
        assert "ZeroDivisionError" not in response.text
        assert (await on.client.get("/healthz")).status_code == 200
