"""The Kubernetes driver against an API server of our own (tests/rigs/fake_kubernetes.py): what every platform's driver
does, and what is Kubernetes' alone."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from gateway.agent.base import (
    DriverError,
    DriverName,
    Failure,
    FailureKind,
    InstanceKey,
    Observed,
    Running,
    Spec,
    Started,
    Stopped,
)
from gateway.agent.kubernetes import KubernetesDriver
from gateway.agent.kubernetes_api import Access, KubernetesApi, in_cluster
from gateway.agent.kubernetes_pods import Pod, end_failure, start_failure, why_not_ready
from gateway.agent.rest import ApiError
from gateway.core.model import App, State
from tests.contract.platforms import BEHAVIOURS, Bench, news_of
from tests.loops import both_loops
from tests.net.yard import LIMIT_S, agent_of, request, until
from tests.rigs.fake_kubernetes import TOKEN, FakeKubernetes, FakeWorkload
from tests.rigs.platforms import SPEED, Leaping, served

APP = App("tools", wake_timeout_s=LIMIT_S, stop_grace_s=1.0)
ONE, TWO, SOLO = InstanceKey("tools", "i-1"), InstanceKey("tools", "i-2"), InstanceKey("tools", "solo")


@dataclass(slots=True)
class Yard:
    """A cluster with a StatefulSet `toys` (i-1 is ordinal 0, i-2 is 1) and a Deployment `solo`, and a driver."""

    tasks: asyncio.TaskGroup
    cluster: FakeKubernetes
    url: str
    toys: FakeWorkload
    alone: FakeWorkload
    drivers: list[KubernetesDriver] = field(default_factory=list)

    @property
    def driver(self) -> KubernetesDriver:
        return self.drivers[0]

    def spec(self, id: str) -> Spec:
        targets = {"i-1": "statefulset/default/toys/0", "i-2": "statefulset/default/toys/1"}
        workload = self.toys if id in targets else self.alone
        target = targets.get(id, "deployment/default/solo")
        return Spec(InstanceKey("tools", id), platform=DriverName.KUBERNETES, target=target, port=workload.port)

    def again(self, *ids: str, limit_s: float = LIMIT_S * SPEED) -> KubernetesDriver:
        """Another driver. A limit of `LIMIT_S` real seconds: how soon things happen is this machine's affair."""
        api = KubernetesApi(Access(self.url, TOKEN), tempo=self.cluster.tempo)
        specs = [self.spec(id) for id in ids]
        driver = KubernetesDriver(api, self.tasks, specs, tempo=self.cluster.tempo, limit_s=limit_s)
        self.drivers.append(driver)
        return driver

    async def start(self, id: str = "i-1") -> Running:
        return await self.driver.start(self.spec(id), "ignored1")


@asynccontextmanager
async def yard(*ids: str) -> AsyncIterator[Yard]:
    """At the end, whatever the driver asked must have been its business."""
    caught: BaseException | None = None
    async with asyncio.TaskGroup() as tasks:
        cluster = FakeKubernetes(tasks, Leaping())
        toys, alone = cluster.add("statefulsets", "toys"), cluster.add("deployments", "solo")
        async with served(cluster.starlette) as url:
            at = Yard(tasks, cluster, url, toys, alone)
            at.again(*(ids or ("i-1", "i-2")))
            try:
                yield at
            except BaseException as error:  # noqa: BLE001 - raised again below, outside of the group
                caught = error
            for driver in at.drivers:
                await driver.aclose()
        cluster.close()
    if caught is not None:
        raise caught
    assert not cluster.faults


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    async with yard() as at:

        async def crash(id: str, status: int) -> None:
            at.toys.restarting.clear()
            at.toys.pods[0].crash(status)

        async def restart(id: str) -> None:
            at.toys.pods[0].crash(1)

        async def start(id: str) -> None:
            at.toys.scale(1)

        async def stop(id: str) -> None:
            at.toys.scale(0)

        yield Bench(
            driver=at.driver,
            spec=at.spec,
            again=lambda: at.again("i-1", "i-2"),
            crash=crash,
            recover=lambda id: at.toys.restarting.set(),
            restart=restart,
            start=start,
            stop=stop,
            away=lambda away: setattr(at.cluster, "away", away),
            forbid=lambda forbidden: setattr(at.cluster, "forbidden", forbidden),
            secret=TOKEN,
        )


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.__name__)
@both_loops
async def test_as_every_platform(behaviour: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async with bench() as at:
        await behaviour(at)


# --- StatefulSets ----------------------------------------------------------------------


async def test_an_ordinal_starts_those_below_it_and_says_so() -> None:
    async with yard() as at:
        with capture_logs() as logs:
            running = await at.start("i-2")
        assert at.toys.replicas == 2
        assert "life" in await request(running.address)
        observed = at.driver.inspect(ONE)
        assert observed is not None
        assert observed.running
        scaled = [(line["workload"], line["before"], line["replicas"]) for line in logs if "scaled" in line["event"]]
        assert scaled == [("statefulset default/toys", 0, 2)]


async def test_only_the_last_ordinal_can_be_stopped() -> None:
    async with yard() as at:
        await at.start("i-2")
        async with aclosing(at.driver.watch()) as seen:
            await news_of(seen)  # i-1 was started with it
            with pytest.raises(DriverError, match="only the last can be stopped") as caught:
                await at.driver.stop(ONE, 1.0)
            observed = await news_of(seen)
        assert caught.value.failure.kind is FailureKind.REFUSED
        assert "has 2 replicas, and this is ordinal 0" in caught.value.failure.detail
        assert (observed.key, observed.running) == (ONE, True)
        assert at.toys.replicas == 2
        await at.driver.stop(TWO, 1.0)
        await at.driver.stop(ONE, 1.0)
        assert at.toys.replicas == 0


async def test_a_scale_that_somebody_else_changes_meanwhile_is_read_again() -> None:
    async with yard() as at:
        at.toys.interference = [0, 0]
        await at.start()
        at.toys.interference = [2]
        with pytest.raises(DriverError, match="only the last"):
            await at.driver.stop(ONE, 1.0)
        at.toys.interference = [3] * 9
        at.toys.scale(0)
        await until(lambda: not at.toys.pods, "all Pods are gone")
        assert "life" in await request((await at.start()).address)
        assert at.toys.replicas == 3, "it was enough for ordinal 0"


async def test_a_scale_that_is_changed_all_the_time_is_given_up() -> None:
    async with yard() as at:
        at.toys.interference = [0] * 9
        with pytest.raises(DriverError, match="would not start") as caught:
            await at.start()
        assert "all the time" in caught.value.failure.detail


# --- Deployments -----------------------------------------------------------------------


async def test_a_deployment_is_one_instance() -> None:
    async with yard("solo") as at:
        running = await at.start("solo")
        assert at.alone.replicas == 1
        assert "life" in await request(running.address)
        await at.driver.stop(SOLO, 1.0)
        assert (at.alone.replicas, at.alone.pods) == (0, [])


async def test_the_pod_that_is_the_instance_stays_it_while_it_lives() -> None:
    async with yard("solo") as at:
        running = await at.start("solo")
        at.alone.scale(3)
        await until(lambda: sum(pod.ready for pod in at.alone.pods) == 3, "three Pods are ready")
        await at.driver.refresh()
        assert await at.start("solo") == running
        async with aclosing(at.driver.watch()) as seen:
            at.alone.pods[0].delete()
            observed = await news_of(seen)
        assert observed.running
        assert observed.incarnation >= running.incarnation
        assert observed.address not in (None, running.address)


async def test_an_evicted_pod_is_an_end_with_its_reason_and_another_takes_its_place() -> None:
    async with yard("solo") as at:
        await at.start("solo")
        at.alone.placing.clear()
        async with aclosing(at.driver.watch()) as seen:
            at.alone.pods[0].evict()
            observed = await news_of(seen)
            assert observed.failure is not None
            assert "Evicted" in observed.failure.message
            at.alone.placing.set()
            at.alone.reconcile()
            assert (await news_of(seen)).running
        # The object of the evicted one is still there, and is not waited for.
        await at.driver.stop(SOLO, 1.0)


# --- starts and stops ------------------------------------------------------------------


async def test_an_instance_is_started_once_its_pod_is_ready() -> None:
    async with yard() as at:
        at.toys.readying.clear()
        async with asyncio.TaskGroup() as tasks:
            starting = tasks.create_task(at.start())
            await until(lambda: bool(at.toys.pods) and at.toys.pods[0].phase == "Running", "its container runs")
            await at.driver.refresh()
            assert not starting.done()
            at.toys.readying.set()
        assert (await starting).address.host == at.toys.pods[0].ip


@pytest.mark.parametrize("gate", ["placing", "readying"])
async def test_a_start_is_given_up_in_time_and_says_what_is_missing(gate: str) -> None:
    async with yard() as at:
        getattr(at.toys, gate).clear()
        driver = at.again(limit_s=30.0)
        with pytest.raises(DriverError, match="was not ready within 30 s") as caught:
            await driver.start(at.spec("i-1"), "ignored1")
        assert caught.value.failure.kind is FailureKind.REFUSED
        assert "ContainersNotReady" in caught.value.failure.detail


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "CreateContainerConfigError", "CrashLoopBackOff"])
async def test_a_container_that_cannot_be_started_is_not_waited_for(reason: str) -> None:
    async with yard() as at:
        at.toys.placing.clear()
        async with asyncio.TaskGroup() as tasks:
            starting = tasks.create_task(failure_of(at.start()))
            await until(lambda: bool(at.toys.pods), "it has a Pod")
            at.toys.pods[0].wait_for(reason, "no such thing")
        failure = await starting
        if reason == "CrashLoopBackOff":
            assert (failure.kind, failure.message) == (FailureKind.EXITED, "tools/i-1 exits again and again")
        else:
            assert failure.kind is FailureKind.REFUSED
            assert (reason in failure.message, failure.detail) == (True, "no such thing")


async def test_a_container_that_exits_before_it_is_ready_is_a_failed_start() -> None:
    async with yard() as at:
        at.toys.readying.clear()
        at.toys.restarting.clear()
        async with asyncio.TaskGroup() as tasks:
            starting = tasks.create_task(failure_of(at.start()))
            await until(lambda: bool(at.toys.pods) and at.toys.pods[0].phase == "Running", "its container runs")
            at.toys.pods[0].crash(7)
        failure = await starting
        assert (failure.kind, failure.message) == (FailureKind.EXITED, "tools/i-1 exited with status 7")


async def failure_of(starting: Coroutine[Any, Any, object]) -> Any:
    with pytest.raises(DriverError) as caught:
        await starting
    return caught.value.failure


async def test_a_stop_ends_when_the_pod_is_gone() -> None:
    async with yard() as at:
        await at.start()
        at.toys.terminating.clear()
        async with asyncio.TaskGroup() as tasks:
            stopping = tasks.create_task(at.driver.stop(ONE, 1.0))
            await until(lambda: bool(at.toys.pods[0].deleted_at), "its Pod is being deleted")
            await at.driver.refresh()
            assert not stopping.done()
            at.toys.terminating.set()
        assert not at.toys.pods


async def test_a_stop_that_does_not_end_is_given_up() -> None:
    async with yard() as at:
        driver = at.again("i-1", limit_s=1.0)
        at.toys.scale(1)
        await until(lambda: bool(driver.list()), "it was seen")
        at.toys.terminating.clear()
        with pytest.raises(DriverError, match="did not stop in time"):
            await driver.stop(ONE, 1.0)
        observed = driver.inspect(ONE)
        assert observed is not None
        assert not observed.running, "what happened meanwhile is known"


async def test_a_stop_by_who_knows_nothing_yet_ends_when_the_pod_is_gone() -> None:
    async with yard("solo") as at:
        at.toys.scale(1)
        await until(lambda: any(pod.ready for pod in at.toys.pods), "it runs")
        await at.again("i-1").stop(ONE, 1.0)
        assert at.toys.pods == []


async def test_what_is_no_longer_a_workload_is_stopped_and_cannot_be_started() -> None:
    async with yard() as at:
        at.cluster.workloads.clear()
        await at.driver.stop(ONE, 1.0)
        with pytest.raises(DriverError, match="knows no such workload"):
            await at.start()


@pytest.mark.parametrize(
    "target",
    ["statefulset/default/toys", "statefulset/default/toys/01", "deployment/a/toys/0", "pod/a/b", "deployment/../b"],
)
async def test_a_target_that_is_none_is_refused_before_anybody_is_asked(target: str) -> None:
    async with yard("solo") as at:
        asked = list(at.cluster.asked)
        spec = Spec(ONE, platform=DriverName.KUBERNETES, target=target, port=80)
        with pytest.raises(DriverError, match="has no workload"):
            await at.driver.start(spec, "ignored1")
        assert at.cluster.asked == asked


# --- seeing ----------------------------------------------------------------------------


async def test_a_pod_that_is_not_ready_for_a_while_goes_on() -> None:
    async with yard() as at:
        running = await at.start()
        at.toys.pods[0].be_ready(False)
        await at.driver.refresh()
        observed = at.driver.inspect(ONE)
        assert observed is not None
        assert (observed.running, observed.incarnation) == (True, running.incarnation)


async def test_restarts_within_a_second_are_lives_of_their_own() -> None:
    async with yard() as at:
        at.cluster.now = lambda: "2026-11-25T04:44:55Z"  # type: ignore[method-assign]
        lives = [(await at.start()).incarnation]
        for _ in range(3):
            async with aclosing(at.driver.watch()) as seen:
                at.toys.pods[0].crash(1)
                while not (observed := await news_of(seen)).running:
                    pass
            lives.append(observed.incarnation)
        assert lives == sorted(set(lives))


async def test_a_container_killed_for_its_memory_says_so() -> None:
    async with yard() as at:
        await at.start()
        at.toys.restarting.clear()
        at.toys.pods[0].crash(137, "OOMKilled")
        await at.driver.refresh()
        observed = at.driver.inspect(ONE)
        assert observed is not None
        assert observed.failure is not None
        assert "more memory than its limit" in observed.failure.message


@pytest.mark.parametrize("at_once", [False, True], ids=["by an event", "at once"])
async def test_a_version_that_is_forgotten_means_another_list(at_once: bool) -> None:
    async with yard() as at:
        at.cluster.gone_as_status = at_once
        await at.start()
        at.toys.restarting.clear()
        with capture_logs() as logs:
            async with aclosing(at.driver.watch()) as seen:
                at.toys.pods[0].crash(3)
                at.cluster.forget()
                at.cluster.end_watches()
                assert not (await news_of(seen)).running
        assert not logs, "this is how watches are"


async def test_a_watch_that_ended_goes_on_where_it_was() -> None:
    async with yard() as at:
        await at.start()
        at.cluster.bookmark()
        lists = at.cluster.asked.count("GET /api/v1/namespaces/default/pods")
        at.cluster.end_watches()
        async with aclosing(at.driver.watch()) as seen:
            at.toys.restarting.clear()
            at.toys.pods[0].crash(3)
            assert not (await news_of(seen)).running
        assert at.cluster.asked.count("GET /api/v1/namespaces/default/pods") == lists + 1, "the watch, and no list"
        assert at.cluster.watched[-1] > at.cluster.watched[0]


async def test_events_from_before_a_list_say_nothing() -> None:
    async with yard() as at:
        running = await at.start()
        at.cluster.flowing.clear()
        at.toys.pods[0].crash(1)
        await until(lambda: at.toys.pods[0].restarts == 1 and at.toys.pods[0].ready, "it runs again")
        async with aclosing(at.driver.watch()) as seen:
            await at.driver.refresh()
            again = await news_of(seen)
            assert again.running
            assert again.incarnation > running.incarnation
            told: list[Observed | None] = []
            see = at.driver._sightings.see

            def listen(key: InstanceKey, observed: Observed | None, asked: int) -> None:
                told.append(observed)
                see(key, observed, asked)

            at.driver._sightings.see = listen  # type: ignore[method-assign]
            at.cluster.flowing.set()
            at.toys.restarting.clear()
            at.toys.pods[0].crash(3)
            assert not (await news_of(seen)).running
        assert "status 1" not in str(told)
        assert "status 3" in str(told)


async def test_a_pod_that_is_being_deleted_is_no_longer_the_instance() -> None:
    async with yard() as at:
        await at.start()
        at.toys.terminating.clear()
        async with aclosing(at.driver.watch()) as seen:
            at.toys.scale(0)
            observed = await news_of(seen)
        assert (observed.running, observed.failure) == (False, None)
        assert at.toys.pods


async def test_what_is_left_of_an_evicted_pod_says_nothing_of_another() -> None:
    async with yard("solo") as at:
        at.alone.scale(1)
        await until(lambda: bool(at.driver.list()), "it was seen")
        at.alone.pods[0].evict()
        at.alone.reconcile()
        driver = at.again("solo")
        await driver.start(at.spec("solo"), "ignored1")
        async with aclosing(driver.watch()) as seen:
            at.alone.scale(0)
            observed = await news_of(seen)
        assert (observed.running, observed.failure) == (False, None)


async def test_a_cluster_that_is_away_is_named_once() -> None:
    async with yard() as at:
        await at.start()
        with capture_logs() as logs:
            at.cluster.away = True
            for _ in range(2):
                with pytest.raises(DriverError):
                    await at.driver.refresh()
            at.cluster.away = False
            await at.driver.refresh()
        events = [line["event"] for line in logs]
        assert events == ["kubernetes cannot be asked", "kubernetes can be asked again"]


async def test_one_watch_tells_of_all_pods_of_a_workload() -> None:
    async with yard() as at:
        await at.driver.refresh()
        await at.start("i-2")
        watches = [driver._followed for driver in at.drivers]
        assert [len(each) for each in watches] == [1]


def pod_of(phase: str, **state: Any) -> Pod:
    status = {"phase": phase, "containerStatuses": [{"name": "a", "state": state}]}
    return Pod.model_validate({"metadata": {}, "spec": {"containers": [{"name": "a"}]}, "status": status})


def test_a_pod_that_ended_with_success_is_no_failure_but_no_start_either() -> None:
    assert end_failure(ONE, pod_of("Succeeded"), 80) is None
    assert start_failure(ONE, pod_of("Failed"), 80) == Failure(FailureKind.EXITED, "tools/i-1: its Pod has failed")
    done = pod_of("Running", terminated={"exitCode": 0, "reason": "Completed"})
    assert end_failure(ONE, done, 80) is None
    early = start_failure(ONE, done, 80)
    assert early is not None
    assert early.kind is FailureKind.EXITED


def test_a_pod_that_may_still_get_ready_is_no_failure() -> None:
    assert start_failure(ONE, pod_of("Pending"), 80) is None
    assert start_failure(ONE, pod_of("Running", waiting={"reason": "ContainerCreating"}), 80) is None
    assert start_failure(ONE, pod_of("Running", running={"startedAt": "2026-11-25T04:44:00Z"}), 80) is None


def test_a_start_says_what_it_waits_for() -> None:
    assert why_not_ready([]) == "there is no Pod of it yet"
    assert why_not_ready([pod_of("Pending")]).endswith("is Pending")


def test_the_container_is_the_one_that_has_the_port() -> None:
    def status(name: str, second: int) -> dict[str, Any]:
        return {"name": name, "state": {"running": {"startedAt": f"2026-11-25T04:44:0{second}Z"}}}

    containers = [{"name": "a"}, {"name": "b", "ports": [{"containerPort": 80}]}]
    statuses = [status("a", 1), status("b", 2)]
    fields = {"metadata": {}, "spec": {"containers": containers}, "status": {"containerStatuses": statuses}}
    pod = Pod.model_validate(fields)
    named, other = pod.life(80), pod.life(81)
    assert named is not None
    assert other is not None
    assert int(named, 36) - int(other, 36) == 1000, "who declares it; else the first"


# --- with an agent ---------------------------------------------------------------------


async def test_an_agent_takes_up_again_what_could_not_be_stopped() -> None:
    async with yard() as at:
        specs = (at.spec("i-1"), at.spec("i-2"))
        async with agent_of(APP, *specs, drivers={DriverName.KUBERNETES: at.driver}) as (agent, folding):
            assert isinstance(await agent.start("tools", "i-2"), Started)
            await until(lambda: folding.instance("i-1").state is State.STARTED, "i-1 was started with it")
            life = folding.instance("i-1").incarnation
            await agent.stop("tools", "i-1", hold=False)
            await until(lambda: folding.instance("i-1").state is State.STARTED, "i-1 is started still")
            assert folding.instance("i-1").incarnation == life
            assert isinstance(await agent.stop("tools", "i-2", hold=False), Stopped)
        assert at.toys.replicas == 1, "leaving stops nothing"


# --- access ----------------------------------------------------------------------------


def test_a_pod_finds_its_cluster(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one\n", encoding="ascii")
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    access = in_cluster(environ, tmp_path)
    assert (access.url, access.ca_file) == ("https://[fd00::1]:443", tmp_path / "ca.crt")
    assert access.bearer() == "one"
    (tmp_path / "token").write_text("two", encoding="ascii")
    assert access.bearer() == "two", "it is replaced while the process runs"
    with pytest.raises(ValueError, match="no Pod with a service account"):
        in_cluster({}, tmp_path)
    with pytest.raises(ValueError, match="no Pod with a service account"):
        in_cluster(environ, tmp_path / "nowhere")


async def test_a_token_is_read_again_at_each_call(tmp_path: Path) -> None:
    async with yard() as at:
        token = tmp_path / "token"
        token.write_text(TOKEN, encoding="ascii")
        api = KubernetesApi(Access(at.url, token_file=token), tempo=at.cluster.tempo)
        workload = at.driver._known[ONE].followed.workload
        await api.scale(workload)
        at.cluster.token = "another"
        token.write_text("another", encoding="ascii")
        await api.scale(workload)
        token.unlink()
        with pytest.raises(ApiError, match="cannot be read"):
            await api.scale(workload)
        assert "another" not in repr(api) + repr(Access(at.url, "another"))
        await api.aclose()


async def test_a_cluster_that_cannot_be_reached_is_named() -> None:
    async with yard() as at:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            at.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        driver = at.again()
        with pytest.raises(DriverError, match="could not be asked to start") as caught:
            await driver.start(at.spec("i-1"), "ignored1")
        assert caught.value.failure.kind is FailureKind.REFUSED


def certificate() -> tuple[bytes, bytes]:
    """A certificate of 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a cluster")])
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return made.public_bytes(serialization.Encoding.PEM), secret


async def test_the_cluster_is_who_its_authority_vouches_for(tmp_path: Path) -> None:
    answer = b'{"metadata": {"resourceVersion": "7"}, "spec": {"replicas": 2}, "status": {"selector": "app=x"}}'

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
        writer.close()

    ca, secret = tmp_path / "ca.crt", tmp_path / "key"
    for path, text in zip((ca, secret), certificate(), strict=True):
        path.write_bytes(text)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(ca, secret)
    async with yard() as at:
        workload = at.driver._known[ONE].followed.workload
        async with await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=context) as server:
            url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            api = KubernetesApi(Access(url, TOKEN, ca_file=ca), tempo=at.cluster.tempo)
            assert (await api.scale(workload)).replicas == 2
            await api.aclose()
            stranger = KubernetesApi(Access(url, TOKEN), tempo=at.cluster.tempo)
            with pytest.raises(ApiError, match="certificate"):
                await stranger.scale(workload)
            await stranger.aclose()
