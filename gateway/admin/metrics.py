"""The metrics page: what the gateway counts anyway, put into families when somebody asks.

Nothing is measured on the request path for it. Labels are apps, instances, codes, rules and logs: no session, no
request, no client. Its size grows with the apps and with the instances that carry something, not with the sessions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TypeVar

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.carried import live_leases
from gateway.admin.needs import Admin
from gateway.admin.status import in_flight
from gateway.core.presence import Lease
from gateway.lifecycle.times import BOUNDS_S

Value = float | int
Labels = TypeVar("Labels", bound=tuple[str, ...])


class Metrics:
    """/metrics, in the format that the Accept header asks for (Prometheus text or OpenMetrics)."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._registry = CollectorRegistry()
        self._collector = GatewayCollector(admin)
        self._registry.register(self._collector)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    async def metrics(self, request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        self._collector.leases = await live_leases(self._admin)
        return Response(encode(self._registry), 200, {"content-type": content_type, "cache-control": "no-store"})


class GatewayCollector(Collector):
    """Reads one gateway."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self.leases: Sequence[Lease] | None = None
        """Asked of the store before, since collecting does not wait; None while it is away."""

    def describe(self) -> list[Metric]:
        # Without it the registry would collect once at registration to learn the names.
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._requests()
        yield from self._replays()
        yield from self._sessions()
        yield from self._connections()
        yield from self._instances()
        yield from self._holding()
        yield from self._sleeping()
        yield from self._catalog()

    def _requests(self) -> Iterator[Metric]:
        counters = self._admin.gateway.counters
        yield _counter(
            "requests",
            "Finished requests by the status sent; status 0: the client left before one was.",
            ("app", "status"),
            {(app, str(status)): count for (app, status), count in counters.requests.items()},
        )
        yield _counter("request_outcomes", "How requests ended.", ("app", "outcome"), counters.outcomes)
        yield _counter(
            "routed", "Requests routed, by the rule that chose the instance.", ("app", "rule"), counters.rules
        )
        yield _counter("problems", "Errors that the gateway made itself.", ("app", "code"), counters.problems)
        yield _counter("slow_path", "Requests that had to wait for something.", (), {(): counters.punted})
        yield _counter("retries", "Attempts after a request's first one.", (), {(): counters.retries})
        yield _gauge("requests_in_flight", "Requests being served.", (), {(): in_flight(self._admin)})
        yield _gauge("streams", "Open event streams.", (), {(): len(self._admin.gateway.streams)})

    def _replays(self) -> Iterator[Metric]:
        gateway = self._admin.gateway
        replays, labels = gateway.replays, ("app", "outcome")
        yield _counter(
            "replays", "Replays that apps asked for, by the addressed app.", labels, gateway.counters.replays
        )
        yield _counter(
            "replay_cache", "What became of remembered replays, by the addressed app.", labels, replays.counts
        )
        yield _gauge(
            "replay_cache_entries",
            "Replays that are remembered.",
            ("app",),
            {(name,): replays.keys(name) for name in gateway.catalog.apps()},
        )
        yield _gauge(
            "replay_cache_connected",
            "1 while what other gateways remember and drop comes in; at 0 the caches rest.",
            (),
            {(): int(replays.connected())},
        )
        yield _gauge("request_bodies_kept_bytes", "Bodies kept for replays and retries.", (), {(): gateway.kept.bytes})
        yield _gauge("traces", "Requests whose steps are kept.", (), {(): len(gateway.traces)})

    def _sessions(self) -> Iterator[Metric]:
        gateway = self._admin.gateway
        counters = gateway.counters
        yield _counter(
            "misroutes",
            "404s from an instance to a session whose id says that it is there.",
            ("app",),
            # Known apps stand at 0, so that an alert sees the first one.
            {**dict.fromkeys(((name,) for name in gateway.catalog.apps()), 0), **_by_app(counters.misroutes)},
        )
        yield _counter("sessions_made", "Sessions begun.", ("app",), _by_app(counters.sessions_made))
        yield _counter("sessions_ended", "Sessions ended by their client.", ("app",), _by_app(counters.sessions_ended))
        yield _counter(
            "sessions_reinitialised",
            "Lost sessions that this gateway began anew on another instance.",
            ("app",),
            _by_app(counters.sessions_reinitialised),
        )
        yield _gauge("sessions", "Sessions on this gateway's list.", (), {(): len(gateway.sessions)})
        yield _gauge("legacy_streams", "Open 2024-11-05 SSE streams.", (), {(): len(gateway.legacy)})

    def _connections(self) -> Iterator[Metric]:
        gateway = self._admin.gateway
        counters, pool = gateway.counters, gateway.pool
        idle = pool.idle_count()
        yield _gauge("connections", "Open client connections.", (), {(): len(gateway.edges)})
        yield _counter("connections_accepted", "Client connections accepted.", (), {(): counters.connections})
        yield _counter(
            "connections_refused", "Client connections over the limit.", (), {(): counters.connections_refused}
        )
        yield _gauge(
            "upstream_connections",
            "Open connections to instances.",
            ("use",),
            {("idle",): idle, ("busy",): max(0, pool.open - idle)},
        )
        yield _counter("upstream_dialled", "Connections to instances opened.", (), {(): pool.dialled})
        yield _counter("upstream_reused", "Requests sent on an idle connection.", (), {(): pool.reused})

    def _instances(self) -> Iterator[Metric]:
        loads = self._admin.gateway.loads.items()
        labels = ("app", "instance")
        yield _gauge(
            "instance_requests",
            "Requests in flight to an instance.",
            labels,
            {key: load.requests for key, load in loads},
        )
        yield _gauge(
            "instance_streams", "Open event streams of an instance.", labels, {key: load.streams for key, load in loads}
        )

    def _holding(self) -> Iterator[Metric]:
        holds = self._admin.holds
        waking, times = self._admin.waker.waking(), self._admin.waker.times
        yield _gauge("held_requests", "Requests held for an instance or a slot.", ("app",), _by_app(holds.held))
        yield _counter("hold_refused", "Requests refused by a full wake_queue.", ("app",), _by_app(holds.refused))
        yield _gauge("wakes", "Wakes under way.", (), {(): len(waking)})
        yield _gauge(
            "oldest_wake_seconds",
            "Since when the longest wake is under way.",
            (),
            {(): max((one.for_s for one in waking), default=0.0)},
        )

        took = HistogramMetricFamily(
            "moorage_wake_seconds", "From a wake's first request to the running instance.", labels=("app",)
        )
        for app, taken in times.taken.items():
            bounds = [*map(str, BOUNDS_S), "+Inf"]
            took.add_metric((app,), list(zip(bounds, accumulate(taken.counts), strict=True)), taken.sum_s)
        yield took
        yield _counter("wakes_failed", "Wakes that failed, by the code of the answer.", ("app", "code"), times.failed)

    def _sleeping(self) -> Iterator[Metric]:
        sleeper, all_said = self._admin.sleeper, self._admin.presence.all_said
        yield _gauge("sleeper_leads", "1 where it was decided last what sleeps.", (), {(): int(sleeper.leads)})
        yield _counter("slept", "Instances put to sleep by this gateway.", (), {(): sleeper.slept})
        yield _counter(
            "sleeps_called_off",
            "Sleeps that somebody prevented, or that not all gateways agreed to in time.",
            (),
            {(): sleeper.called_off},
        )
        yield _gauge(
            "gateways_live",
            "Gateways that are heard, this one among them; 0 while the store is away.",
            (),
            {(): len(all_said)},
        )
        if self.leases is not None:
            apps = Counter(lease.app for lease in self.leases)
            names = (*self._admin.gateway.catalog.apps(), *apps)
            yield _gauge(
                "leases", "Leases that keep instances awake.", ("app",), {(name,): apps[name] for name in names}
            )

    def _catalog(self) -> Iterator[Metric]:
        admin = self._admin
        catalog = admin.gateway.catalog
        counts = catalog.counts()
        kinds = {("app",): counts.apps, ("instance",): counts.instances, ("gateway",): counts.gateways}
        yield _gauge("catalog_records", "Live records.", ("kind",), kinds)
        yield _gauge("catalog_tombstones", "Deleted records that are still remembered.", (), {(): counts.tombstones})
        yield _gauge("catalog_quarantined", "Records that cannot be used.", (), {(): counts.quarantined})
        yield _counter("catalog_bad_records", "Bad records met.", (), {(): catalog.quarantined_total})
        followers = [(follower, follower.state()) for follower in admin.followers]
        log = ("log",)
        yield _gauge(
            "catalog_connected",
            "Whether the log answered last.",
            log,
            {(s.source,): int(s.connected) for _, s in followers},
        )
        yield _gauge(
            "catalog_age_seconds",
            "Since the table was known to equal the log.",
            log,
            {(s.source,): s.age_s for _, s in followers if s.age_s is not None},
        )
        yield _gauge(
            "catalog_holding",
            "1 while records are kept that the log lacks.",
            log,
            {(s.source,): int(bool(s.holding)) for _, s in followers},
        )
        yield _counter(
            "catalog_resyncs", "Reads of the whole state.", log, {(s.source,): s.resyncs for _, s in followers}
        )
        for name, what, values in (
            ("applied", "taken", {(s.source,): f.records_applied for f, s in followers}),
            ("stale", "that were known or older", {(s.source,): f.records_stale for f, s in followers}),
            ("refused", "that cannot be used", {(s.source,): f.records_refused for f, s in followers}),
        ):
            yield _counter(f"catalog_{name}", f"Records {what}.", log, values)
        yield _counter(
            "catalog_apply_seconds",
            "Time spent on taking records.",
            log,
            {(s.source,): f.apply_s for f, s in followers},
        )
        yield InfoMetricFamily(
            "moorage_gateway", "This gateway.", {"version": admin.version, "region": admin.gateway.region}
        )
        yield _gauge("started_timestamp_seconds", "When it started, in Unix time.", (), {(): admin.started_at_s})
        yield _gauge("draining", "1 while it drains.", (), {(): int(admin.gateway.draining)})


def _by_app(counts: Mapping[str, int]) -> dict[tuple[str], int]:
    return {(app,): count for app, count in counts.items()}


def _counter(name: str, text: str, labels: tuple[str, ...], values: Mapping[Labels, Value]) -> Metric:
    family = CounterMetricFamily(f"moorage_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[Labels, Value]) -> Metric:
    family = GaugeMetricFamily(f"moorage_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
