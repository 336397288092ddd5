"""Whatever the file is, reading it ends in a Config or in faults, and in nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import ConfigFaults, Fault, load, parse

_KEYS = (
    "gateway apps tools listen admin secret catalog limits connections header_bytes hosts path key concurrency soft"
    " hard checks interval instances id address command env cwd region workers auto_stop trusted_proxies x"
    " agent url inside docker start_limit"
    " org replay_sources replay_cache ttl type name allow_bypass region_groups replay_buffer_bytes"
)
_WORDS = (
    "http://h:80 tcp://h:1 unix:///s 127.0.0.1:8080 / a.b 5m 64KiB redis://h env:X file:x i-1 header:x app:x cookie h/*"
)
_keys = st.sampled_from(_KEYS.split())
_leaves = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(codec="ascii"), max_size=6),
    st.sampled_from(_WORDS.split()),
)
_documents = st.dictionaries(
    _keys,
    st.recursive(_leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4)),
    max_size=4,
)


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value).replace("\x7f", "\\u007f")
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case dict():
            return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
        case _:
            return str(value)


def _parses_or_reports(text: str) -> None:
    found: tuple[Fault, ...] = ()
    try:
        parse(text, environ={})
    except ConfigFaults as error:
        found = error.faults
        assert found, text
    for fault in found:
        assert 1 <= fault.line <= text.count("\n") + 1
        assert fault.message
        assert fault.remedy
        assert str(fault).isprintable()


@given(_documents)
def test_any_document_parses_or_reports(document: dict[str, object]) -> None:
    _parses_or_reports("\n".join(f"{key} = {_toml(value)}" for key, value in document.items()))


@given(_documents)
def test_any_app_parses_or_reports(document: dict[str, object]) -> None:
    _parses_or_reports("[apps.tools]\n" + "\n".join(f"{key} = {_toml(value)}" for key, value in document.items()))


@given(st.text(st.sampled_from("[]{}\"'=.,#\\ \n\ra1é\0"), max_size=40))
def test_any_text_parses_or_reports(text: str) -> None:
    _parses_or_reports(text)


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"[gateway]\nlisten = \n", ":2: TOML: Invalid value; correct the syntax"),
        (b"[gateway]\n[gateway]\n", ":2: TOML: Cannot declare ('gateway',) twice"),
        (b"a = 1\n# caf\xe9\n", ":2: is not UTF-8"),
        (b"a = " + b"[" * 100_000, ":1: TOML: "),
        (b"a = " + b"9" * 10_000, ":1: TOML: "),
    ],
)
def test_a_file_that_is_no_toml(tmp_path: Path, raw: bytes, fault: str) -> None:
    path = tmp_path / "moorage.toml"
    path.write_bytes(raw)
    with pytest.raises(ConfigFaults) as caught:
        load(path)
    assert f"{path}{fault}" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigFaults, match="cannot be read: No such file or directory; name a file with -c"):
        load(tmp_path / "nothing.toml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigFaults, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_file_of_absurd_size(tmp_path: Path) -> None:
    path = tmp_path / "moorage.toml"
    with path.open("wb") as file:
        file.truncate(17 * 1024 * 1024)
    with pytest.raises(ConfigFaults, match="is larger than"):
        load(path)


def test_a_secret_file_of_absurd_size(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 70_000)
    with pytest.raises(ConfigFaults, match="is larger than 65536 bytes"):
        parse('[gateway]\nadmin_token = "file:big"\n[apps.tools]\n', folder=tmp_path)


@pytest.mark.parametrize("reference", ["file:raw", "file:a\\u0000b"])
def test_a_secret_file_that_is_no_text(tmp_path: Path, reference: str) -> None:
    (tmp_path / "raw").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigFaults, match="is not a text file"):
        parse(f'[gateway]\nadmin_token = "{reference}"\n[apps.tools]\n', folder=tmp_path)
