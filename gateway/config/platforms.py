"""How instances on other platforms are named in the file, and how those platforms are asked."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import PlainValidator

from gateway.config.faults import bad, shown
from gateway.config.values import Written, text_of

_FLY = re.compile(r"[a-z0-9][a-z0-9-]{0,62}/[a-z0-9]{1,64}", re.ASCII)
_NAME = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
_WORKLOAD = re.compile(rf"statefulset/{_NAME}/{_NAME}/[0-9]{{1,5}}|deployment/{_NAME}/{_NAME}", re.ASCII)
_URL = re.compile(r"https?://[0-9A-Za-z.:\[\]-]{1,260}", re.ASCII)
IN_CLUSTER = "in-cluster"


def fly_machine(value: object) -> str:
    """A machine as `app/machine`; empty for none."""
    text = text_of(value, 'such as "my-app/148e306f1d2089"')
    if text and not _FLY.fullmatch(text):
        raise bad(f"{shown(text)} names no Fly Machine", 'write "app/machine-id"')
    return text


def workload(value: object) -> str:
    """A Pod of a StatefulSet, or a Deployment; empty for none."""
    text = text_of(value, 'such as "statefulset/default/tools/0"')
    if text and not _WORKLOAD.fullmatch(text):
        remedy = 'write "statefulset/NAMESPACE/NAME/ORDINAL" or "deployment/NAMESPACE/NAME"'
        raise bad(f"{shown(text)} names no workload", remedy)
    return text


def api_url(value: object) -> str:
    """Where an API is, without a path."""
    text = text_of(value, 'such as "https://api.machines.dev"')
    if not _URL.fullmatch(text):
        raise bad(f"{shown(text)} is no URL of an API", 'write "https://host" or "https://host:port"')
    return text


def kubernetes_api(value: object) -> str:
    """Where the Kubernetes API is; empty for none."""
    text = text_of(value, f'such as "{IN_CLUSTER}"')
    return text if text in ("", IN_CLUSTER) else api_url(text)


FlyMachine = Annotated[str, PlainValidator(fly_machine), Written("app/machine")]
Workload = Annotated[str, PlainValidator(workload), Written("name")]
ApiUrl = Annotated[str, PlainValidator(api_url), Written("URL")]
KubernetesApi = Annotated[str, PlainValidator(kubernetes_api), Written("URL")]
