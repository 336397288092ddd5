"""From a moorage.toml to a Config, or to every fault in it at once."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic_core import PydanticCustomError

from gateway.config.across import AppTables, check_across
from gateway.config.faults import ConfigFaults, Fault, key_text, shown
from gateway.config.lines import KeyPath, LineIndex, syntax_line
from gateway.config.references import Sources
from gateway.config.sections import AgentSettings, AppSection, GatewaySettings, InstanceSection
from gateway.config.unbuilt import take_unbuilt
from gateway.config.validate import Finding, SectionT, Table, read_table, unknown_key
from gateway.config.values import app_name
from gateway.core.model import Address, App

_TABLES = ("gateway", "agent", "apps")
MAX_FILE_BYTES = 16 * 1024 * 1024
"""About a hundred thousand instances; more belongs in the catalog, through the admin API."""


@dataclass(frozen=True, slots=True)
class InstanceConfig:
    """An instance as the file declares it: static (`address`), started by a driver (`command`), or on a platform."""

    id: str
    address: Address | None = None
    command: tuple[str, ...] | None = None
    region: str = "local"
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: Path | None = None
    fly: str = ""
    kubernetes: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class AppConfig:
    """An app as the file declares it, with its instances in the file's order."""

    app: App
    instances: tuple[InstanceConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration, valid once it exists."""

    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    apps: tuple[AppConfig, ...] = ()
    agent: AgentSettings = field(default_factory=AgentSettings)


def load(path: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> Config:
    """Read the configuration file at `path`; raises ConfigFaults. Relative paths in it start at its folder."""
    file = str(path)
    try:
        with open(path, "rb") as opened:
            raw = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigFaults([Fault(file, 1, "", f"cannot be read: {reason}", "name a file with -c")]) from None
    if len(raw) > MAX_FILE_BYTES:
        remedy = "register instances through the admin API instead"
        raise ConfigFaults([Fault(file, 1, "", f"is larger than {MAX_FILE_BYTES} bytes", remedy)])
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigFaults([Fault(file, line, "", "is not UTF-8", "save it as UTF-8: TOML is nothing else")]) from None
    return parse(text, file, folder=Path(path).absolute().parent, environ=environ)


def parse(
    text: str, file: str = "moorage.toml", *, folder: Path = Path(), environ: Mapping[str, str] | None = None
) -> Config:
    """Make a Config of the text of a configuration file; raises ConfigFaults. `file` is its name in messages."""
    try:
        document = tomllib.loads(text)
        index = LineIndex(text)
    except ValueError as error:
        line = syntax_line(error, text)
        message = str(error).partition(" (at ")[0]
        raise ConfigFaults([Fault(file, line, "", f"TOML: {message}", "correct the syntax")]) from None
    except RecursionError:
        raise ConfigFaults([Fault(file, 1, "", "TOML: nested too deeply", "flatten the arrays or tables")]) from None
    sources = Sources(os.environ if environ is None else environ, folder)
    config, findings = _read(document, sources)
    if findings:
        raise ConfigFaults(
            Fault(file, index.line(found.path), key_text(found.path), found.message, found.remedy) for found in findings
        )
    return config


def _read(document: dict[str, object], sources: Sources) -> tuple[Config, list[Finding]]:
    findings = [
        Finding(
            found.path,
            f"{shown(found.value)} is not built yet",
            "remove it" if found.row.inert is None else f"remove it or set {shown(found.row.inert)}",
        )
        for found in take_unbuilt(document)
    ]
    findings += [unknown_key((key,), list(_TABLES)) for key in document if key not in _TABLES]
    gateway = read_table(GatewaySettings, document.get("gateway", {}), ("gateway",), sources)
    findings += gateway.findings
    agent = read_table(AgentSettings, document.get("agent", {}), ("agent",), sources)
    findings += agent.findings
    # Apps may also come from the labels of containers, from another agent or through the admin API.
    elsewhere = agent.section is not None and bool(agent.section.docker or not agent.section.inside)
    apps = tuple(_apps(document, sources, findings, elsewhere=elsewhere))
    findings += check_across(gateway, agent, apps)
    if findings:
        return Config(), findings
    settings = _whole(gateway)
    return Config(settings, tuple(_app(app, settings.region) for app in apps), _whole(agent)), findings


def _apps(
    document: dict[str, object], sources: Sources, findings: list[Finding], *, elsewhere: bool
) -> Iterator[AppTables]:
    raw = document.get("apps", {})
    if not isinstance(raw, dict):
        findings.append(Finding(("apps",), f"{shown(raw)} is not a table", "write [apps.NAME]"))
        return
    if not raw and not elsewhere:
        findings.append(Finding(("apps",), "there is no app", "add a table [apps.NAME]"))
    for name, table in raw.items():
        path: KeyPath = ("apps", name)
        try:
            app_name(name)
        except PydanticCustomError as error:
            context = error.context or {}
            findings.append(Finding(path, context["message"], context["remedy"]))
        instances = table.pop("instances", []) if isinstance(table, dict) else []
        app = read_table(AppSection, table, path, sources)
        findings += app.findings
        yield AppTables(name, app, tuple(_instances(instances, (*path, "instances"), sources, findings)))


def _instances(
    raw: object, path: KeyPath, sources: Sources, findings: list[Finding]
) -> Iterator[Table[InstanceSection]]:
    if not isinstance(raw, list):
        findings.append(Finding(path, f"{shown(raw)} is not a list of tables", "write [[apps.NAME.instances]]"))
        return
    for number, item in enumerate(raw):
        instance = read_table(InstanceSection, item, (*path, number), sources)
        findings += instance.findings
        yield instance


def _whole(table: Table[SectionT]) -> SectionT:
    if table.section is None:
        raise AssertionError(f"{key_text(table.path)} has no fault and no section")
    return table.section


def _app(tables: AppTables, region: str) -> AppConfig:
    sections = map(_whole, tables.instances)
    instances = tuple(
        InstanceConfig(
            id=section.id,
            address=section.address,
            command=section.command or None,
            region=section.region or region,
            env=dict(section.env),
            cwd=section.cwd,
            fly=section.fly,
            kubernetes=section.kubernetes,
            port=section.port or 0,
        )
        for section in sections
    )
    return AppConfig(_whole(tables.app).value(tables.name), instances)
