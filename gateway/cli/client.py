"""The commands' way to a running gateway: where its admin API is, with which token, and what its refusals mean.

The address and the token come from the options, the environment (MOORAGE_ADMIN, MOORAGE_ADMIN_TOKEN) or the
configuration file. Of the file only these two keys are read: the rest, and the secrets it needs, are the gateway's.
httpx2 is imported when something is asked, so that other commands start without it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from pydantic_core import PydanticCustomError

from gateway.config.references import Sources, read_reference
from gateway.config.values import listener
from gateway.core.model import Address

if TYPE_CHECKING:
    import httpx2

DEFAULT_FILE = Path("moorage.toml")
DEFAULT_ADDRESS = "127.0.0.1:8081"
CONNECT_S = 3.0
ANSWER_S = 75.0
"""Longer than the longest wait that the API knows."""
PAGE = 1000
"""The longest page that it gives."""


class AdminError(Exception):
    """What was asked for did not happen. The text says why and what to do; `error` is the API's own, if it spoke."""

    def __init__(self, text: str, error: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.error = dict(error) if error is not None else {"code": "", "message": text}


@dataclass(frozen=True, slots=True)
class Target:
    """Where to ask, and with what."""

    url: str
    token: str | None = field(default=None, repr=False)


def find(config: Path | None, admin: str | None, token: str | None) -> Target:
    """The gateway that is meant. Raises AdminError.

    A file that merely lies in the current folder lends its token to its own address only.
    """
    if admin:
        file_token = _from_file(config)[1] if config is not None and not token else None
        return Target(_url(admin), token or file_token)
    if config is None and not DEFAULT_FILE.exists():
        return Target(_url(DEFAULT_ADDRESS), token or None)
    address, file_token = _from_file(config or DEFAULT_FILE, want_token=not token)
    return Target(_url(address), token or file_token)


class AdminClient:
    """Asks one gateway's admin API. Every method raises AdminError."""

    def __init__(self, target: Target, client: httpx2.Client) -> None:
        self._target = target
        self._client = client

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        return self._ask("GET", path, params)

    def post(self, path: str, params: Mapping[str, Any] | None = None, body: object = None) -> Any:
        return self._ask("POST", path, params, body)

    def delete(self, path: str) -> Any:
        return self._ask("DELETE", path)

    def machines(self, app: str) -> Iterator[Any]:
        """Every machine of an app, page by page."""
        after = ""
        while True:
            page = self.get(machines_path(app), {"limit": PAGE, "after": after})
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1]["id"]

    def apps(self) -> Iterator[Any]:
        """Every app, page by page."""
        after = ""
        while True:
            page = self.get("/v1/apps", {"limit": PAGE, "after": after})
            yield from page["apps"]
            if page["next"] is None:
                return
            after = page["next"]

    def _ask(self, method: str, path: str, params: Mapping[str, Any] | None = None, body: object = None) -> Any:
        import httpx2

        url = self._target.url
        try:
            response = self._client.request(method, path, params=params, json=body)
        except httpx2.ConnectError:
            raise AdminError(
                f"nothing listens at {url}: start the gateway, or name its admin address with --admin or -c FILE"
            ) from None
        except httpx2.TimeoutException:
            raise AdminError(f"{url} did not answer in time: look at the gateway's log") from None
        except httpx2.TransportError as error:
            raise AdminError(f"{url} did not answer: {str(error) or type(error).__name__}") from None
        return _read(url, response)


@contextmanager
def connected(config: Path | None, admin: str | None, token: str | None) -> Iterator[AdminClient]:
    """A client for the gateway that is meant. Raises AdminError."""
    import httpx2

    target = find(config, admin, token)
    headers = {"authorization": f"Bearer {target.token}"} if target.token else {}
    timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S)
    # A proxy of the environment has no business between an operator and a loopback address.
    with httpx2.Client(base_url=target.url, headers=headers, timeout=timeout, trust_env=False) as client:
        yield AdminClient(target, client)


def machines_path(app: str) -> str:
    return f"/v1/apps/{quote(app, safe='')}/machines"


def machine_path(app: str, id: str) -> str:
    return f"{machines_path(app)}/{quote(id, safe='')}"


def _read(url: str, response: httpx2.Response) -> Any:
    try:
        value = response.json()
    except ValueError:
        raise AdminError(f"{url} is no admin API: it answers {response.status_code} and no JSON") from None
    if response.is_success:
        return value
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        raise AdminError(f"{url} is no admin API: it answers {response.status_code}")
    code, message = str(error.get("code", "")), str(error.get("message", ""))
    match code:
        case "AD01":
            text = f"{message}: set MOORAGE_ADMIN_TOKEN, give --token, or name the gateway's file by -c"
        case "PB13":
            text = f"{url} is the gateway's public listener: name its admin address with --admin"
        case _:
            where = "/".join(str(part) for key in ("app", "instance") if (part := error.get(key)))
            text = f"{where + ': ' if where not in message else ''}{message} ({code}). {error.get('remedy', '')}"
    faults = error.get("faults")
    if isinstance(faults, list):
        text += "".join(f"\n  {one['key'] or 'request'}: {one['message']}; {one['remedy']}" for one in faults)
    if error.get("detail"):
        text += f"\n{error['detail']}"
    raise AdminError(text, error)


def _url(text: str) -> str:
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        port = 0
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or parts.path.strip("/") or parts.query:
        raise AdminError(f"{text} is no admin address: write host:port, or http://host:port")
    return f"{parts.scheme}://{parts.netloc}"


def _from_file(path: Path, *, want_token: bool = True) -> tuple[str, str | None]:
    """`admin` and `admin_token` of a configuration file."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AdminError(f"{path} cannot be read: {error.strerror}; name the admin address with --admin") from None
    except ValueError:
        raise AdminError(f"{path} is not TOML: run `moorage check -c {path}`") from None
    section = document.get("gateway", {})
    if not isinstance(section, dict):
        raise AdminError(f"{path}: gateway is not a table: run `moorage check -c {path}`")
    key = "admin"
    try:
        address = listener(section.get(key, DEFAULT_ADDRESS))
        key = "admin_token"
        token = section.get(key)
        if token is not None and want_token:
            token = read_reference(str(token), Sources(folder=path.absolute().parent))
    except PydanticCustomError as error:
        context = error.context or {}
        raise AdminError(f"{path}: gateway.{key}: {context['message']}; {context['remedy']}") from None
    if address.port == 0:
        raise AdminError(f"{path}: the admin port is chosen at each start: name it with --admin")
    return str(_reachable(address)), token if want_token else None


def _reachable(address: Address) -> Address:
    """Where a listener is asked from its own machine: one for every address, at loopback."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host)
    return address if loopback is None else Address(loopback, address.port)
