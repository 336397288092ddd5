"""The client of the Engine API where a real engine behaves too well: odd versions, nonsense, silence, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.agent import docker_api
from gateway.agent.docker_api import DockerApi, DockerError, Event
from tests.loops import both_loops
from tests.net.yard import LIMIT_S

ENGINE = {"ApiVersion": "1.41", "MinAPIVersion": "1.12"}


class Fake:
    """Answers each path with what it is given: a JSON value, a status with text, bytes as they are, or never (None)."""

    def __init__(self, answers: dict[str, object]) -> None:
        self.answers = {"/version": ENGINE, **answers}
        self.asked: list[str] = []
        self.heard: Callable[[], None] = lambda: None

    async def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                target = head.split(b" ", 2)[1].decode()
                self.asked.append(target)
                self.heard()
                answer = self.answers.get(target.partition("?")[0])
                if answer is None:
                    await reader.read()
                    return
                writer.write(self.written(answer))
                await writer.drain()
                if isinstance(answer, bytes):
                    return
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    def written(self, answer: object) -> bytes:
        if isinstance(answer, bytes):
            return answer
        status, text = answer if isinstance(answer, tuple) else (200, json.dumps(answer))
        date = "Wed, 25 Nov 2026 10:23:11 GMT"
        return f"HTTP/1.1 {status} Said\r\nDate: {date}\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


@contextlib.asynccontextmanager
async def faked(folder: Path, **answers: object) -> AsyncIterator[tuple[Fake, DockerApi]]:
    """A client, and what it talks to; the answers' names are paths with `_` for `/`, after the version."""
    fake = Fake({f"/v1.41{name.replace('_', '/')}": answer for name, answer in answers.items()})
    async with await asyncio.start_unix_server(fake.accepted, folder / "socket"):
        async with DockerApi(f"unix://{folder / 'socket'}") as api:
            yield fake, api


# --- versions --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("newest", "oldest", "spoken"),
    [("1.41", "1.12", "1.41"), ("1.47", "1.24", "1.47"), ("1.52", "1.44", "1.52"), ("1.99", "1.44", "1.52")],
)
async def test_the_newest_version_that_both_know_is_spoken(
    tmp_path: Path, newest: str, oldest: str, spoken: str
) -> None:
    async with faked(tmp_path) as (fake, api):
        fake.answers |= {
            "/version": {"ApiVersion": newest, "MinAPIVersion": oldest},
            f"/v{spoken}/containers/json": [],
        }
        assert await api.containers() == []
        await api.containers()
        assert [path.partition("?")[0] for path in fake.asked] == ["/version", *[f"/v{spoken}/containers/json"] * 2]


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ({"ApiVersion": "1.40"}, "speaks API 1.40; 1.41 or later is needed"),
        ({"ApiVersion": "2.5", "MinAPIVersion": "1.53"}, "speaks API 1.53 or later; 1.52 is known here"),
        ({"Version": "1"}, "is no Docker engine"),
        ({"ApiVersion": 7}, "is no Docker engine"),
        ([], "is no Docker engine"),
        ((200, "<html>"), "answered nonsense"),
        ((403, '{"message": "not you"}'), "not you"),
        ((502, "bad gateway"), "bad gateway"),
        ((500, ""), "status 500"),
    ],
    ids=str,
)
async def test_what_cannot_be_talked_to_is_said(tmp_path: Path, version: object, said: str) -> None:
    async with faked(tmp_path) as (fake, api):
        fake.answers["/version"] = version
        with pytest.raises(DockerError, match=said):
            await api.containers()


@pytest.mark.parametrize(
    "url", ["", "/var/run/docker.sock", "unix://host/x", "http://host:1", "tcp://host", "tcp://h:1/x"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        DockerApi(url)


# --- answers ---------------------------------------------------------------------------


async def test_nonsense_is_no_container(tmp_path: Path) -> None:
    async with faked(tmp_path, _containers_json=[{}], _containers_x_json={"Id": 5}) as (_, api):
        with pytest.raises(DockerError, match="nonsense"):
            await api.containers()
        with pytest.raises(DockerError, match="nonsense"):
            await api.inspect("x")


async def test_an_absent_container_is_none_and_a_refusal_has_its_words(tmp_path: Path) -> None:
    refusal = (409, '{"message": "it is paused"}')
    async with faked(tmp_path, _containers_x_json=(404, "{}"), _containers_x_start=refusal) as (_, api):
        assert await api.inspect("x") is None
        with pytest.raises(DockerError, match="it is paused") as caught:
            await api.start("x")
        assert caught.value.status == 409


async def test_an_id_stays_within_its_path(tmp_path: Path) -> None:
    async with faked(tmp_path) as (fake, api):
        fake.answers["/v1.41/containers/..%2Fx%3F/json"] = (404, "{}")
        assert await api.inspect("../x?") is None


async def test_a_grace_is_told_in_whole_seconds(tmp_path: Path) -> None:
    async with faked(tmp_path, _containers_x_stop=(304, "")) as (fake, api):
        await api.stop("x", 0.2)
        assert fake.asked[-1].endswith("/stop?t=1")


async def test_an_engine_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_api, "CALL_S", 0.05)
    async with faked(tmp_path, _containers_json=None) as (_, api):
        with pytest.raises(DockerError, match="did not answer within") as caught:
            await api.containers()
        assert caught.value.status == 0


async def test_an_engine_that_is_not_there_is_said(tmp_path: Path) -> None:
    async with DockerApi(f"unix://{tmp_path / 'nothing'}") as api:
        with pytest.raises(DockerError, match="cannot be asked"):
            await api.containers()


# --- events ----------------------------------------------------------------------------

_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"


def _line(action: str, time_s: int) -> bytes:
    raw = {"Action": action, "Actor": {"ID": "x", "Attributes": {"signal": "15"}}, "timeNano": time_s * 10**9 + 1}
    return json.dumps(raw).encode() + b"\n"


@both_loops
async def test_events_go_on_where_they_broke_off(tmp_path: Path) -> None:
    happened: list[Event] = []
    connections = 0

    async def connected() -> None:
        nonlocal connections
        connections += 1

    async with faked(tmp_path, _events=_STREAM + b"\n[]\n{}\nx\n" + _line("die", 7)) as (fake, api):
        again = asyncio.Event()

        async def one(event: Event) -> None:
            happened.append(event)
            if len(happened) == 2:
                again.set()

        await run_until(api.follow(["die", "start"], connected, one), again)
    assert happened == [Event("die", "x", {"signal": "15"}, 7000)] * 2
    assert connections == 2
    events = [path for path in fake.asked if "/events" in path]
    assert ["since=1795602191" in events[0], "since=7" in events[1]] == [True, True]
    assert "moorage.app" in events[0]


async def test_a_failure_while_following_is_tried_again(tmp_path: Path) -> None:
    tries = 0
    done = asyncio.Event()

    async def connected() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise DockerError("no list today")
        done.set()

    async with faked(tmp_path, _events=_STREAM) as (_, api):
        await run_until(api.follow(["die"], connected, _ignore), done)
    assert tries == 2


async def test_a_silent_stream_is_opened_anew(tmp_path: Path) -> None:
    """The other end may be gone without a word."""
    opened = 0
    done = asyncio.Event()

    async def connected() -> None:
        nonlocal opened
        opened += 1
        if opened == 3:
            done.set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                writer.write(fake.written(ENGINE) if b"/version" in head else _STREAM)
        writer.close()

    fake = Fake({})
    async with await asyncio.start_unix_server(accepted, tmp_path / "socket"):
        async with DockerApi(f"unix://{tmp_path / 'socket'}") as api:
            with structlog.testing.capture_logs() as logs:
                await run_until(api.follow(["die"], connected, _ignore, silence_s=0.1), done)
    assert logs == [], "silence is no fault"


async def test_an_engine_without_events_is_said_once(tmp_path: Path) -> None:
    async def connected() -> None:
        raise AssertionError("there is no stream")

    async with faked(tmp_path, _events=(403, '{"message": "not for you"}')) as (fake, api):
        tried = asyncio.Event()
        fake.heard = lambda: tried.set() if len([path for path in fake.asked if "/events" in path]) == 3 else None
        with structlog.testing.capture_logs() as logs:
            await run_until(api.follow(["die"], connected, _ignore), tried)
    assert [(log["log_level"], log["error"]) for log in logs] == [("warning", "not for you")]


async def _ignore(event: Event) -> None:
    pass


async def run_until(work: Awaitable[None], done: asyncio.Event) -> None:
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_awaited(work))
        await done.wait()
        task.cancel()


async def _awaited(work: Awaitable[None]) -> None:
    await work


# --- tcp and TLS -----------------------------------------------------------------------


class Authority:
    """A certificate authority that signs what it is asked to."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._signed(self._key, "authority", self._key, ca=True)

    def issue(self, folder: Path, name: str) -> Path:
        """A folder with ca.pem, cert.pem and key.pem for 127.0.0.1."""
        folder.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        pem = serialization.Encoding.PEM
        (folder / "ca.pem").write_bytes(self.certificate.public_bytes(pem))
        (folder / "cert.pem").write_bytes(self._signed(key, name, self._key, ca=False).public_bytes(pem))
        plain = serialization.NoEncryption()
        (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        return folder

    def _signed(
        self, key: ec.EllipticCurvePrivateKey, name: str, by: ec.EllipticCurvePrivateKey, *, ca: bool
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        builder = x509.CertificateBuilder(
            issuer, subject, key.public_key(), x509.random_serial_number(), now - day, now + day
        )
        local = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        builder = builder.add_extension(local, critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        return builder.sign(by, hashes.SHA256())


@contextlib.asynccontextmanager
async def serving_tls(folder: Path) -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.pem")
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    fake = Fake({"/v1.41/containers/json": []})
    async with await asyncio.start_server(fake.accepted, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def test_tcp_is_spoken_with_certificates_on_both_sides(tmp_path: Path) -> None:
    ours, others = Authority(), Authority()
    async with serving_tls(ours.issue(tmp_path / "server", "server")) as port:
        url = f"tcp://localhost:{port}"
        async with DockerApi(url, certificates=ours.issue(tmp_path / "client", "client")) as api:
            assert await api.containers() == []
            assert api.host == "localhost"
        stranger = others.issue(tmp_path / "stranger", "client")
        (stranger / "ca.pem").write_bytes((tmp_path / "server" / "ca.pem").read_bytes())
        for folder in (stranger, others.issue(tmp_path / "elsewhere", "client")):
            async with DockerApi(url, certificates=folder) as api:
                with pytest.raises(DockerError, match="cannot be asked"):
                    await api.containers()


async def test_tcp_without_certificates_is_plain(tmp_path: Path) -> None:
    fake = Fake({"/v1.41/containers/json": []})
    async with await asyncio.start_server(fake.accepted, "127.0.0.1", 0) as server:
        async with DockerApi(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}") as api:
            assert await api.containers() == []


def test_missing_certificates_are_said(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"."):
        DockerApi("tcp://localhost:2376", certificates=tmp_path)
