"""Where the commands ask, and with which token."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.client import AdminError, Target, find
from gateway.cli.tables import ago


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_anything_it_is_the_default_address(folder: Path) -> None:
    assert find(None, None, None) == Target("http://127.0.0.1:8081")
    assert find(None, "", "") == Target("http://127.0.0.1:8081")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("10.0.0.7:81", "http://10.0.0.7:81"),
        ("http://admin.example:81/", "http://admin.example:81"),
        ("https://admin.example", "https://admin.example"),
        ("[::1]:81", "http://[::1]:81"),
    ],
)
def test_an_address_is_given_with_or_without_a_scheme(folder: Path, text: str, url: str) -> None:
    assert find(None, text, None).url == url


@pytest.mark.parametrize(
    "text", ["ftp://a:1", "http://", "http://a:x", "http://a:0", "http://a:99999", "a/b", "a:1?x", ":1"]
)
def test_what_is_no_address_is_said_to_be_none(folder: Path, text: str) -> None:
    with pytest.raises(AdminError, match="is no admin address"):
        find(None, text, None)


@pytest.mark.parametrize(
    ("listens", "asked"),
    [("0.0.0.0:81", "127.0.0.1:81"), ("[::]:81", "[::1]:81"), ("10.0.0.7:81", "10.0.0.7:81"), ("[::1]:81", "[::1]:81")],
)
def test_the_file_says_where(folder: Path, listens: str, asked: str) -> None:
    (folder / "moorage.toml").write_text(f'[gateway]\nadmin = "{listens}"\nadmin_token = "t"\n')
    assert find(None, None, None) == Target(f"http://{asked}", "t")
    assert find(None, None, "other") == Target(f"http://{asked}", "other")


def test_a_file_that_was_named_gives_its_token_to_any_address_one_that_lies_around_does_not(folder: Path) -> None:
    file = folder / "moorage.toml"
    file.write_text('[gateway]\nadmin_token = "t"\n')
    assert find(file, "10.0.0.7:81", None) == Target("http://10.0.0.7:81", "t")
    assert find(None, "10.0.0.7:81", None) == Target("http://10.0.0.7:81", None)
    assert "'t'" not in repr(find(file, None, None))


def test_a_token_may_lie_in_a_file_of_its_own(folder: Path) -> None:
    (folder / "token").write_text("t\n")
    (folder / "moorage.toml").write_text('[gateway]\nadmin_token = "file:token"\n')
    assert find(None, None, None).token == "t"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[gateway", "is not TOML"),
        ("gateway = 1", "gateway is not a table"),
        ('[gateway]\nadmin = "x"', "gateway.admin: "),
        ('[gateway]\nadmin = "127.0.0.1:0"', "chosen at each start"),
        ('[gateway]\nadmin_token = "file:missing"', "gateway.admin_token: "),
    ],
)
def test_a_file_that_does_not_say_where_is_named(folder: Path, text: str, message: str) -> None:
    file = folder / "other.toml"
    file.write_text(text)
    with pytest.raises(AdminError, match=r"other\.toml") as caught:
        find(file, None, None)
    assert message in str(caught.value)


def test_a_missing_file_is_named(folder: Path) -> None:
    with pytest.raises(
        AdminError, match=r"nowhere\.toml cannot be read: No such file or directory; name the admin address"
    ):
        find(Path("nowhere.toml"), None, None)


def test_durations_are_told_in_their_largest_unit() -> None:
    assert [ago(seconds) for seconds in (0, 59.9, 60, 3599, 3600, 86399, 86400, 10**6)] == [
        "0s", "59s", "1m", "59m", "1h", "23h", "1d", "11d",
    ]  # fmt: skip
