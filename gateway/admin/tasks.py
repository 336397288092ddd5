"""Keep-awake leases (Fly's Sprites call them tasks): who works where no request shows it says so for a while.

A lease ends by itself; who dies with it does not keep its instance up. It keeps the sleeper away, and nothing else: it
neither starts an instance nor holds up an operator's stop. Leases live in the presence store, shared by all gateways.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.answers import AdminCode, Fault, Refusal, answer
from gateway.admin.asking import json_body, no_body, no_query
from gateway.admin.machines import named
from gateway.admin.needs import Admin
from gateway.core.model import Instance
from gateway.core.presence import LEASE_NAME, MAX_LEASE_S, TooManyLeases
from gateway.log.base import LogUnavailable

_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?(?:ms|s|m|h))+", re.ASCII)
_PART = re.compile(r"([\d.]+)(ms|s|m|h)", re.ASCII)
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Tasks:
    """The endpoints under /v1/apps/{app}/machines/{id}/tasks."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    async def tasks(self, request: Request) -> Response:
        no_query(request)
        instance = named(self._admin, request)
        with _asking(instance):
            leases = await self._admin.whereabouts.held(instance.app)
        return answer({"tasks": [_view(one.name, one.left_s) for one in leases if one.id == instance.id]})

    async def hold_task(self, request: Request) -> Response:
        """A new lease; a live one of that name is left as it is."""
        no_query(request)
        body = await json_body(request)
        instance = named(self._admin, request)
        name, expire_s = lease_of(body)
        with _asking(instance):
            held = await self._admin.whereabouts.hold(instance.app, instance.id, name, expire_s, replace=False)
        if not held:
            raise Refusal(AdminCode.AD12, f"a lease {name} is live", app=instance.app, instance=instance.id)
        location = {"location": f"/v1/apps/{instance.app}/machines/{instance.id}/tasks/{name}"}
        return answer(_view(name, expire_s), 201, location)

    async def renew_task(self, request: Request) -> Response:
        """A lease that ends when this says, whether there was one or not."""
        no_query(request)
        body = await json_body(request)
        instance = named(self._admin, request)
        name, expire_s = lease_of(body, request.path_params["name"])
        with _asking(instance):
            await self._admin.whereabouts.hold(instance.app, instance.id, name, expire_s, replace=True)
        return answer(_view(name, expire_s))

    async def release_task(self, request: Request) -> Response:
        no_query(request)
        await no_body(request)
        instance, name = named(self._admin, request), request.path_params["name"]
        released = False
        if LEASE_NAME.fullmatch(name):
            with _asking(instance):
                released = await self._admin.whereabouts.release(instance.app, instance.id, name)
        if not released:
            raise Refusal(AdminCode.AD03, f"there is no lease {name[:64]}", app=instance.app, instance=instance.id)
        return Response(status_code=204, headers={"cache-control": "no-store"})


@contextlib.contextmanager
def _asking(instance: Instance) -> Iterator[None]:
    """What keeps the store from it, as a refusal."""
    try:
        yield
    except TooManyLeases as error:
        raise Refusal(AdminCode.AD12, str(error), app=instance.app, instance=instance.id) from None
    except LogUnavailable as error:
        message = "leases can be neither read nor changed: the catalog's store is away"
        again = {"retry-after": "1"}
        raise Refusal(
            AdminCode.AD13, message, app=instance.app, instance=instance.id, detail=str(error), headers=again
        ) from None


def lease_of(body: object, name: str = "") -> tuple[str, float]:
    """Name and seconds that a body asks for, the name perhaps in the path. Raises Refusal with every fault."""
    if not isinstance(body, dict):
        remedy = 'send {"name": "import", "expire": "5m"}'
        raise Refusal(AdminCode.AD07, faults=[Fault("", "the body is not an object", remedy)])
    faults = [
        Fault(key[:60], "unknown key", "remove it; known here: name, expire")
        for key in body
        if key not in ("name", "expire")
    ]
    said = body.get("name", name)
    if not isinstance(said, str) or not LEASE_NAME.fullmatch(said):
        faults.append(Fault("name", "is no name of a lease", "send 1 to 64 letters, digits, dots, `_` or `-`"))
    elif name and said != name:
        faults.append(Fault("name", "is another name than the path's", "leave it out"))
    expire_s = _seconds(body.get("expire"))
    if not 0 < expire_s <= MAX_LEASE_S:
        remedy = f'send seconds, or text such as "5m": more than 0, at most {MAX_LEASE_S / 3600:g} h'
        faults.append(Fault("expire", "is missing" if "expire" not in body else "is not a usable duration", remedy))
    if faults:
        raise Refusal(AdminCode.AD07, faults=faults)
    return str(said), expire_s


def _seconds(value: object) -> float:
    """Seconds, or a duration as the configuration file writes it; NaN for what is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) <= MAX_LEASE_S else math.nan
    if isinstance(value, str) and len(value) <= 40 and _DURATION.fullmatch(value):
        return sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(value))
    return math.nan


def _view(name: str, left_s: float) -> dict[str, object]:
    return {"name": name, "left_s": round(left_s, 3)}
