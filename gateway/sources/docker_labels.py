"""What the labels of containers say: an app's settings, and which of its instances each container is.

`moorage.app` and `moorage.port` make a container an instance; any other `moorage.KEY` is a key of its app's table in
moorage.toml, read by the same section, with the same faults and remedies. Pure: nothing is asked or logged here.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from gateway.agent.base import DriverName, InstanceKey, Spec
from gateway.config.across import AppTables, check_across
from gateway.config.faults import shown
from gateway.config.references import Sources
from gateway.config.sections import AgentSettings, AppSection, GatewaySettings, Section
from gateway.config.unbuilt import take_unbuilt
from gateway.config.validate import Finding, read_table, section_of
from gateway.config.values import Written, app_name, instance_id, region_name
from gateway.core.model import App

_OWN = ("app", "port", "id", "region", "network")
"""Labels about the instance. All others are about its app."""
_NUMBERS = ("number", "duration", "size")
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,6})?", re.ASCII)
_ONE_OFF = "com.docker.compose.oneoff"


class Labelled(Protocol):
    """A container, as far as it matters here."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def created_s(self) -> int: ...
    @property
    def key(self) -> InstanceKey | None: ...


@dataclass(frozen=True, slots=True)
class Found:
    """A container that is an instance."""

    container: str
    """Its name."""
    app: App
    spec: Spec
    says: bool
    """Whether any of its labels is about the app. One that says nothing agrees with everybody."""


class LabelFault(typing.NamedTuple):
    """One thing that is wrong with a container's labels."""

    label: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Faulty:
    """A container whose labels cannot be used."""

    container: str
    faults: tuple[LabelFault, ...]

    def __str__(self) -> str:
        return "; ".join(f"{label}: {message}; {remedy}" for label, message, remedy in self.faults)


@dataclass(frozen=True, slots=True)
class Roster:
    """What all containers together say."""

    instances: Mapping[InstanceKey, tuple[App, Spec]]
    apps: Mapping[str, App]
    """Those whose settings come from labels."""
    complaints: tuple[tuple[str, str], ...]
    """(container, what is wrong), in order of names."""


# --- one container ---------------------------------------------------------------------


def read_container(container: Labelled, *, label: str = "moorage.app", region: str = "local") -> Found | Faulty:
    """The instance that a container is, or what is wrong with its labels.

    Args:
        label: the one that names its app; the others begin as it does.
        region: of a container that does not say its own.
    """
    prefix = label.rpartition(".")[0] + "."
    texts = {key.removeprefix(prefix): text for key, text in container.labels.items() if key.startswith(prefix)}
    faults: list[LabelFault] = []

    def checked(key: str, check: Any, text: str) -> str:
        try:
            check(text)
        except PydanticCustomError as error:
            context = error.context or {}
            faults.append(LabelFault(f"{prefix}{key}", context["message"], context["remedy"]))
        return text

    name = checked("app", app_name, texts.get("app", ""))
    id = checked("id", instance_id, container.key.id if container.key is not None else "")
    region = checked("region", region_name, texts.get("region", region))
    port = texts.get("port")
    if port is None:
        remedy = "add it: the port that the instance listens on"
        faults.append(LabelFault(f"{prefix}port", "is missing", remedy))
    elif not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        faults.append(LabelFault(f"{prefix}port", f"{shown(port)} is not a port", "use 1 to 65535"))
    about_app = {key: text for key, text in texts.items() if key not in _OWN}
    app = _read_app(name, about_app, prefix, faults)
    if faults or app is None or port is None:
        return Faulty(container.name, tuple(faults))
    spec = Spec(InstanceKey(name, id), region=region, platform=DriverName.DOCKER, target=container.id, port=int(port))
    return Found(container.name, app, spec, bool(about_app))


def _read_app(name: str, texts: Mapping[str, str], prefix: str, faults: list[LabelFault]) -> App | None:
    table = _Table(AppSection, prefix, faults)
    for key in sorted(texts):
        table.put(key, texts[key])
    raw = table.raw()
    findings = [
        Finding(one.path[2:], f"{shown(one.value)} is not built yet", "remove it")
        for one in take_unbuilt({"apps": {name: raw}})
    ]
    sources = Sources(environ={})
    read = read_table(AppSection, raw, (), sources)
    findings += read.findings
    gateway = read_table(GatewaySettings, {}, ("gateway",), sources)
    agent = read_table(AgentSettings, {}, ("agent",), sources)
    findings += check_across(gateway, agent, (AppTables(name, read, ()),))
    faults += [LabelFault(table.label(found.path), found.message, found.remedy) for found in findings]
    return read.section.value(name) if read.section is not None else None


# --- labels to a table of the file -----------------------------------------------------


class _Table:
    """Labels put together to one table of the file, as if TOML had been read."""

    def __init__(self, model: type[Section], prefix: str, faults: list[LabelFault]) -> None:
        self._model = model
        self._prefix = prefix
        self._faults = faults
        self._values: dict[str, object] = {}
        self._tables: dict[str, _Table] = {}
        self._lists: dict[str, dict[int, _Table]] = {}

    def put(self, key: str, text: str) -> None:
        """Take one label, without the prefix."""
        first, _, rest = key.partition(".")
        info = next((info for name, info in self._model.model_fields.items() if (info.alias or name) == first), None)
        section = section_of(info.annotation) if info is not None else None
        if info is None:
            self._values[key] = _untyped(text)
        elif section is None:
            # With more after it, it is a key that no table has.
            self._values[key] = text if rest else _typed(text, info)
        elif not rest:
            label = f"{self._prefix}{first}"
            near = next(iter(section.model_fields))
            self._faults.append(LabelFault(label, "has no value of its own", f"write {label}.{near} and the like"))
        elif typing.get_origin(info.annotation) is tuple:
            number, _, below = rest.partition(".")
            numbered = number.isascii() and number.isdigit() and len(number) <= 2
            entries = self._lists.setdefault(first, {})
            prefix = f"{self._prefix}{first}.{number}." if numbered else f"{self._prefix}{first}."
            entry = entries.setdefault(int(number) if numbered else 0, _Table(section, prefix, self._faults))
            entry.put(below if numbered else rest, text)
        else:
            table = self._tables.setdefault(first, _Table(section, f"{self._prefix}{first}.", self._faults))
            table.put(rest, text)

    def raw(self) -> dict[str, object]:
        """What TOML would have given."""
        lists = {key: [entries[number].raw() for number in sorted(entries)] for key, entries in self._lists.items()}
        return {**self._values, **{key: table.raw() for key, table in self._tables.items()}, **lists}

    def label(self, path: tuple[str | int, ...]) -> str:
        """The label that a fault at `path` is about."""
        if not path:
            return self._prefix.removesuffix(".")
        first, *rest = path
        if (table := self._tables.get(str(first))) is not None:
            return table.label(tuple(rest))
        if (entries := self._lists.get(str(first))) and rest and isinstance(rest[0], int):
            return entries[sorted(entries)[rest[0]]].label(tuple(rest[1:]))
        return f"{self._prefix}{first}"


def _typed(text: str, info: FieldInfo) -> object:
    """The text of a label as the value that TOML would have given for this key."""
    if typing.get_origin(info.annotation) is tuple:
        (entry, *_) = typing.get_args(info.annotation)
        parts = [part.strip() for part in text.split(",")] if text.strip() else []
        return [_value(part, _written(entry, ())) for part in parts]
    return _value(text, _written(info.annotation, info.metadata))


def _value(text: str, written: str) -> object:
    if written == "true or false":
        return {"true": True, "false": False}.get(text, text)
    if written in _NUMBERS and _NUMBER.fullmatch(text):
        return float(text) if "." in text else int(text)
    return text


def _untyped(text: str) -> object:
    """For a key that has no section's field: it is refused, or changes nothing and is written in the file's way."""
    if text == "":
        return []
    return int(text) if _NUMBER.fullmatch(text) and "." not in text else text


def _written(annotation: object, metadata: Iterable[object]) -> str:
    """The word of a type's `Written` mark; empty where there is none."""
    for mark in metadata:
        if isinstance(mark, Written):
            return mark.type
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _written(args[0], args[1:])
    if origin in (typing.Union, types.UnionType):
        return next((word for part in args if (word := _written(part, ()))), "")
    return ""


# --- all containers --------------------------------------------------------------------


def read_containers(
    containers: Iterable[Labelled],
    *,
    label: str = "moorage.app",
    region: str = "local",
    settled: Mapping[str, App] = types.MappingProxyType({}),
) -> Roster:
    """Everything that the containers say together.

    Of two containers for one instance the older one is it. The settings of an app are those of the first container, by
    name, that says any.

    Args:
        settled: apps whose settings come from elsewhere and are not the labels' to change.
    """
    complaints: list[tuple[str, str]] = []
    found: dict[InstanceKey, tuple[Labelled, Found]] = {}
    for container in sorted(containers, key=lambda one: (one.created_s, one.id)):
        # `docker compose run` copies the labels of its service.
        if container.key is None or container.labels.get(_ONE_OFF, "").lower() == "true":
            continue
        read = read_container(container, label=label, region=region)
        if isinstance(read, Faulty):
            complaints.append((container.name, str(read)))
        elif (held := found.get(read.spec.key)) is None:
            found[read.spec.key] = (container, read)
        elif not _replaces(container, held[0]):
            text = f"{read.spec.key} is {held[0].name} already; give it another {label.rpartition('.')[0]}.id"
            complaints.append((container.name, text))
    by_name = sorted((one for _, one in found.values()), key=lambda one: one.container)
    apps = _settings(by_name, settled, complaints)
    instances = {one.spec.key: (apps.get(one.app.name) or settled[one.app.name], one.spec) for one in by_name}
    return Roster(instances, apps, tuple(sorted(complaints)))


def _replaces(container: Labelled, held: Labelled) -> bool:
    """Whether Compose has made it to take the place of the other, which will be gone soon."""
    return container.labels.get("com.docker.compose.replace", "") in (held.id, held.name)


def _settings(
    by_name: Collection[Found], settled: Mapping[str, App], complaints: list[tuple[str, str]]
) -> dict[str, App]:
    speakers: dict[str, Found] = {}
    for one in by_name:
        if one.says:
            speakers.setdefault(one.app.name, one)
    apps: dict[str, App] = {}
    for one in by_name:
        name = one.app.name
        speaker = speakers.get(name, one)
        app, whose = settled.get(name, speaker.app), speaker.container
        if name not in settled:
            apps[name] = app
        if one.says and one.app != app:
            other = "the configuration file" if name in settled else whose
            keys = ", ".join(_differences(one.app, app))
            complaints.append((one.container, f"says otherwise of app {name} than {other}, which counts: {keys}"))
    return apps


def _differences(one: App, other: App) -> list[str]:
    names = [field.name for field in dataclasses.fields(App)]
    return [name.removesuffix("_s") for name in names if getattr(one, name) != getattr(other, name)]
