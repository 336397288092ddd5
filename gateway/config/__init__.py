"""moorage.toml: from the file to frozen settings, with every fault reported at once.

`sections` declares the keys, `values` and `references` what can be written, `across` what must hold between them,
`unbuilt` what does not exist yet, `lines` where each key stands. Nothing here opens a socket; only `load_secrets`
writes.
"""

from gateway.config.faults import ConfigFaults, Fault
from gateway.config.load import AppConfig, Config, InstanceConfig, load, parse
from gateway.config.secrets import SecretFileError, load_secrets
from gateway.config.sections import AgentSettings, GatewaySettings, LimitSettings

__all__ = [
    "AgentSettings",
    "AppConfig",
    "Config",
    "ConfigFaults",
    "Fault",
    "GatewaySettings",
    "InstanceConfig",
    "LimitSettings",
    "SecretFileError",
    "load",
    "load_secrets",
    "parse",
]
