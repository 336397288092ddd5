"""The seal's keys: configured, or made once and kept."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.config import Config, GatewaySettings, SecretFileError, load_secrets


def config(catalog: str, *secrets: str) -> Config:
    return Config(GatewaySettings(catalog=catalog, secret=tuple(map(SecretStr, secrets))))


def test_configured_secrets_are_taken_in_order(tmp_path: Path) -> None:
    settings = config(f"sqlite:{tmp_path}/m.db", "first secret 16b", "second secret 16")
    assert load_secrets(settings) == (b"first secret 16b", b"second secret 16")
    assert not list(tmp_path.iterdir())


def test_a_missing_secret_is_made_once_and_kept_beside_the_catalog(tmp_path: Path) -> None:
    settings = config(f"sqlite:{tmp_path}/m.db")
    (secret,) = load_secrets(settings)
    kept = tmp_path / "moorage.secret"
    assert load_secrets(settings) == (secret,)
    assert len(bytes.fromhex(secret.decode())) == 32
    assert kept.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["moorage.secret"]


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    settings = config(f"sqlite:{tmp_path}/m.db")
    found: set[tuple[bytes, ...]] = set()
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        found.add(load_secrets(settings))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1


def test_a_memory_catalog_gets_a_new_secret_each_time() -> None:
    assert load_secrets(config("memory:")) != load_secrets(config("memory:"))


@pytest.mark.parametrize("content", [b"", b"short", b"not hex, but long enough to be a key of some kind", b"\xff" * 64])
def test_a_damaged_secret_file_is_refused_not_used(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "moorage.secret").write_bytes(content)
    with pytest.raises(SecretFileError, match=r"moorage\.secret"):
        load_secrets(config(f"sqlite:{tmp_path}/m.db"))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecretFileError, match="No such file or directory; make its folder writable, or set `secret`"):
        load_secrets(config(f"sqlite:{tmp_path}/nowhere/m.db"))


def test_a_shared_catalog_has_no_place_for_a_secret() -> None:
    with pytest.raises(SecretFileError, match="set `secret` under"):
        load_secrets(config("redis://h"))
