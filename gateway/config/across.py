"""What must hold between keys and between tables: each rule one function, from sections to findings.

A rule is silent about a key that has a fault of its own: that fault comes first. Such a key stands at its default here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.config.faults import shown
from gateway.config.lines import KeyPath
from gateway.config.sections import AgentSettings, AppSection, GatewaySettings, InstanceSection
from gateway.config.validate import Finding, Table
from gateway.core.model import Address, AutoStop
from gateway.core.replay_settings import Scope


@dataclass(frozen=True, slots=True)
class AppTables:
    """One app of the file, by its own table and those of its instances."""

    name: str
    app: Table[AppSection]
    instances: tuple[Table[InstanceSection], ...]


def check_across(
    gateway: Table[GatewaySettings], agent: Table[AgentSettings], apps: tuple[AppTables, ...]
) -> Iterator[Finding]:
    """Every fault that no single key shows."""
    yield from _admin(gateway)
    yield from _listeners(gateway)
    yield from _shared_secret(gateway)
    yield from _region_groups(gateway)
    yield from _agent_url(agent)
    yield from _agent_listener(gateway, agent)
    yield from _agent_outside(gateway, agent)
    yield from _routes(apps)
    for app in apps:
        yield from _concurrency(app.app)
        yield from _sleep(app.app)
        yield from _replay_sources(app.app)
        yield from _replay_cache(app.app)
        yield from _instance_ids(app)
        for instance in app.instances:
            yield from _instance(instance)
            yield from _loop(gateway, instance)
            yield from _platform(agent, instance)


def _loopback(address: Address) -> bool:
    if address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False


def _admin(gateway: Table[GatewaySettings]) -> Iterator[Finding]:
    settings = gateway.section
    if settings is None or gateway.faulty & {"admin", "admin_token"}:
        return
    if settings.admin_token is None and not _loopback(settings.admin):
        message = f"{shown(str(settings.admin))} is not a loopback address, and there is no admin_token"
        yield Finding(
            (*gateway.path, "admin"), message, 'set admin_token = "env:MOORAGE_ADMIN_TOKEN", or listen on 127.0.0.1'
        )


def _overlap(one: Address, other: Address) -> bool:
    wildcards = {"0.0.0.0", "::"}
    return one.port == other.port != 0 and (one.host == other.host or bool(wildcards & {one.host, other.host}))


def _listeners(gateway: Table[GatewaySettings]) -> Iterator[Finding]:
    settings = gateway.section
    if settings is None or gateway.faulty & {"admin", "listen"}:
        return
    if _overlap(settings.listen, settings.admin):
        message = f"{shown(str(settings.admin))} is taken by the public listener, {settings.listen}"
        yield Finding((*gateway.path, "admin"), message, "use another port")
    private = settings.private
    if private is None or "private" in gateway.faulty:
        return
    for what, taken in (("public", settings.listen), ("admin", settings.admin)):
        if _overlap(private, taken):
            message = f"{shown(str(private))} is taken by the {what} listener, {taken}"
            yield Finding((*gateway.path, "private"), message, "use another port")


def _shared_secret(gateway: Table[GatewaySettings]) -> Iterator[Finding]:
    settings = gateway.section
    if settings is None or gateway.faulty & {"catalog", "secret"}:
        return
    if settings.catalog.startswith("redis") and not settings.secret:
        message = "a Redis catalog needs a secret: gateways that share it open each other's seals"
        yield Finding((*gateway.path, "secret"), message, 'set secret = ["env:MOORAGE_SECRET"]')


def _region_groups(gateway: Table[GatewaySettings]) -> Iterator[Finding]:
    if gateway.section is None:
        return
    for name, regions in gateway.section.region_groups.items():
        path = (*gateway.path, "region_groups", name)
        if not regions:
            yield Finding(path, "has no region", "name at least one, or remove the group")
        yield from _twice(path, regions)


def _agent_url(agent: Table[AgentSettings]) -> Iterator[Finding]:
    settings = agent.section
    if settings is None or agent.faulty & {"listen", "url"}:
        return
    listen = settings.listen
    if settings.url and listen is None:
        message = "is where an agent is asked, but this one does not listen"
        yield Finding((*agent.path, "url"), message, 'set listen too, such as "127.0.0.1:8082"')
    if listen is not None and not settings.url and _is_every(listen):
        message = f"{shown(str(listen))} is every address of this machine: none that others could be told"
        yield Finding((*agent.path, "listen"), message, 'set url too, such as "http://10.0.0.5:8082"')


def _is_every(address: Address) -> bool:
    try:
        return ipaddress.ip_address(address.host).is_unspecified
    except ValueError:
        return False


def _agent_listener(gateway: Table[GatewaySettings], agent: Table[AgentSettings]) -> Iterator[Finding]:
    if gateway.section is None or agent.section is None or agent.section.listen is None:
        return
    listen = agent.section.listen
    for key, what in (("listen", "public"), ("admin", "admin")):
        taken: Address = getattr(gateway.section, key)
        if key not in gateway.faulty and _overlap(listen, taken):
            message = f"{shown(str(listen))} is taken by the {what} listener, {taken}"
            yield Finding((*agent.path, "listen"), message, "use another port")


def _agent_outside(gateway: Table[GatewaySettings], agent: Table[AgentSettings]) -> Iterator[Finding]:
    if gateway.section is None or agent.section is None or "catalog" in gateway.faulty:
        return
    if not agent.section.inside and gateway.section.catalog == "memory:":
        message = "is false, but a memory: catalog is shared with no agent outside"
        yield Finding((*agent.path, "inside"), message, 'set [gateway] catalog = "sqlite:moorage.db", or a Redis')


def _twice(path: KeyPath, entries: tuple[str, ...]) -> Iterator[Finding]:
    for number, entry in enumerate(entries):
        if entry in entries[:number]:
            yield Finding((*path, number), f"{shown(entry)} is listed twice", "remove one")


def _routes(apps: tuple[AppTables, ...]) -> Iterator[Finding]:
    taken: dict[tuple[str, str], str] = {}
    for app in apps:
        section = app.app.section
        if section is None or app.app.faulty & {"hosts", "path"}:
            continue
        for number, host in enumerate(section.hosts or ("",)):
            where = (*app.app.path, "hosts", number) if host else app.app.path
            what = f"{host or 'every host'}{section.path}"
            owner = taken.setdefault((host, section.path), app.name)
            if owner != app.name:
                yield Finding(where, f"{what} already belongs to app {owner}", "give one of them another host or path")
            elif host in section.hosts[:number]:
                yield Finding(where, f"{shown(host)} is listed twice", "remove one")


def _sleep(app: Table[AppSection]) -> Iterator[Finding]:
    """An app that is put to sleep and never woken is down for good."""
    settings = app.section
    if settings is None or app.faulty & {"auto_stop", "auto_start"}:
        return
    if settings.auto_stop is not AutoStop.OFF and not settings.auto_start:
        message = f'is "{settings.auto_stop}", but `auto_start` is off: what sleeps would never wake'
        yield Finding((*app.path, "auto_stop"), message, 'set auto_start = true, or auto_stop = "off"')


def _concurrency(app: Table[AppSection]) -> Iterator[Finding]:
    if app.section is None or "concurrency" in app.faulty:
        return
    limits = app.section.concurrency.value()
    if limits.hard is not None and limits.soft > limits.hard:
        message = f"soft ({limits.soft}) is above hard ({limits.hard})"
        yield Finding((*app.path, "concurrency", "soft"), message, "lower soft or raise hard")


def _replay_sources(app: Table[AppSection]) -> Iterator[Finding]:
    if app.section is not None:
        yield from _twice((*app.path, "replay_sources"), app.section.replay_sources)


def _replay_cache(app: Table[AppSection]) -> Iterator[Finding]:
    if app.section is None:
        return
    seen: set[Scope] = set()
    for number, rule in enumerate(app.section.replay_cache):
        if rule.path in seen:
            message = f"{shown(str(rule.path))} is the path of a rule above"
            yield Finding((*app.path, "replay_cache", number, "path"), message, "remove one, or give it another path")
        seen.add(rule.path)


def _instance_ids(app: AppTables) -> Iterator[Finding]:
    seen: set[str] = set()
    for instance in app.instances:
        if instance.section is None:
            continue
        name = instance.section.id
        if name in seen:
            yield Finding((*instance.path, "id"), f"{shown(name)} is the id of an instance above", "choose another id")
        seen.add(name)


def _instance(instance: Table[InstanceSection]) -> Iterator[Finding]:
    section = instance.section
    if section is None or instance.faulty & {"address", "command", "fly", "kubernetes"}:
        return
    command = (*instance.path, "command")
    if section.fly or section.kubernetes:
        return
    match section.address, section.command:
        case None, ():
            remedy = 'add address = "host:port", or command = ["program", "--port", "{port}"]'
            yield Finding(instance.path, "has neither an address nor a command", remedy)
        case None, words:
            if not words[0]:
                yield Finding(command, "names no program", "put the program first")
            if "env" not in instance.faulty and not any("{port}" in text for text in (*words, *section.env.values())):
                yield Finding(command, "never says {port}", 'add "--port", "{port}", or env = { PORT = "{port}" }')
        case _, ():
            for key in ("env", "cwd"):
                if key in section.model_fields_set:
                    yield Finding((*instance.path, key), "goes only with a command", "remove it")
        case _:
            yield Finding(
                command, "stands beside an address", "keep one: address for a static instance, command to start it"
            )


def _platform(agent: Table[AgentSettings], instance: Table[InstanceSection]) -> Iterator[Finding]:
    """An instance that another platform runs, and how that platform is asked."""
    section = instance.section
    if section is None or agent.section is None or instance.faulty & {"fly", "kubernetes", "port"}:
        return
    named = [key for key in ("fly", "kubernetes", "address", "command") if getattr(section, key)]
    on = next((key for key in ("fly", "kubernetes") if getattr(section, key)), "")
    if not on:
        if section.port is not None:
            yield Finding((*instance.path, "port"), "goes only with `fly` or `kubernetes`", "remove it")
        return
    if len(named) > 1:
        yield Finding((*instance.path, on), f"stands beside `{named[1]}`", "keep one of them")
    if section.port is None:
        yield Finding(instance.path, "has no port", "add port = NUMBER: where it listens")
    if on == "fly" and agent.section.fly_token is None and "fly_token" not in agent.faulty:
        yield Finding((*instance.path, on), "cannot be asked for without a token", 'set [agent] fly_token = "env:NAME"')
    if on == "kubernetes" and not agent.section.kubernetes and "kubernetes" not in agent.faulty:
        yield Finding((*instance.path, on), "cannot be asked for", 'set [agent] kubernetes = "in-cluster"')


def _loop(gateway: Table[GatewaySettings], instance: Table[InstanceSection]) -> Iterator[Finding]:
    if gateway.section is None or instance.section is None or "listen" in gateway.faulty:
        return
    if instance.section.address == gateway.section.listen:
        yield Finding((*instance.path, "address"), "is the gateway's own listener", "name the instance's port")
