"""The environment that child processes get: the agent's own, without what belongs to the gateway."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

OWN_PREFIX: Final = "MOORAGE_"
"""The gateway's settings and secrets (MOORAGE_SECRET, MOORAGE_ADMIN_TOKEN) are nothing for an app to know."""


def inherited_environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(OWN_PREFIX)}


def instance_environ(
    app: str, id: str, region: str, incarnation: str, port: int, extra: Mapping[str, str]
) -> dict[str, str]:
    """What a started instance sees: Fly's runtime names where Fly has them (docs "Machine Runtime Environment").

    `extra` wins over what is inherited, the names set here win over both.
    """
    return {
        **inherited_environ(),
        **{name: fill_port(value, port) for name, value in extra.items()},
        "PORT": str(port),
        "FLY_APP_NAME": app,
        "FLY_MACHINE_ID": id,
        "FLY_REGION": region,
        "MOORAGE_INSTANCE": f"{app}/{id}",
        "MOORAGE_INCARNATION": incarnation,
    }


def fill_port(text: str, port: int) -> str:
    """Replace `{port}`; every other brace stays, because commands carry JSON."""
    return text.replace("{port}", str(port))
