"""The operator's settings, from the environment (the chart's values)."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from flywheel.plan.base import Defaults
from flywheel.plan.prices import PriceError, PriceTable, parse_prices

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


class SettingsError(ValueError):
    """A setting that makes no sense; the message names the variable and its value."""


@dataclass(frozen=True)
class Settings:
    """Everything that is decided outside."""

    defaults: Defaults = field(default_factory=Defaults)
    namespaces: tuple[str, ...] = ()  # empty: all
    leader_election: bool = False
    namespace: str = "default"  # of the operator: where its Lease lives
    identity: str = ""
    pod: str = ""  # the pod we run in; empty outside of one
    port: int = 8080
    log_level: str = "INFO"
    gpu_budget: int | None = None  # most GPUs in training at once, in all namespaces together; None: as many as are asked for


def load_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read FLYWHEEL_* variables. What isn't set has the default that the local cluster uses."""
    texts = [f.name for f in fields(Defaults) if f.name != "prices"]
    set_ones = {name: value for name in texts if (value := environment.get("FLYWHEEL_" + name.upper(), "").strip())}
    namespaces = tuple(sorted({n.strip() for n in environment.get("FLYWHEEL_WATCH_NAMESPACES", "").split(",") if n.strip()}))
    return Settings(
        defaults=Defaults(**set_ones, prices=_prices(environment.get("FLYWHEEL_PRICES", ""))),
        namespaces=namespaces,
        leader_election=_flag(environment, "FLYWHEEL_LEADER_ELECTION"),
        namespace=environment.get("POD_NAMESPACE") or _own_namespace(),
        identity=f"{environment.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4().hex[:8]}",
        pod=environment.get("POD_NAME", ""),
        port=_port(environment.get("FLYWHEEL_PORT", "8080")),
        log_level=environment.get("FLYWHEEL_LOG_LEVEL", "INFO").upper(),
        gpu_budget=_gpu_budget(environment.get("FLYWHEEL_GPU_BUDGET", "").strip()),
    )


def _flag(environment: Mapping[str, str], name: str) -> bool:
    value = environment.get(name, "").strip().lower()
    if value not in _TRUE + _FALSE:
        raise SettingsError(f"{name} must be true or false, not {value!r}")
    return value in _TRUE


def _prices(value: str) -> PriceTable:
    try:
        return parse_prices(value)
    except PriceError as error:
        raise SettingsError(f"FLYWHEEL_PRICES {error}") from None


def _port(value: str) -> int:
    if not value.isdigit() or int(value) > 65535:
        raise SettingsError(f"FLYWHEEL_PORT must be a port number, not {value!r}")
    return int(value)


def _gpu_budget(value: str) -> int | None:
    if value and not (value.isascii() and value.isdigit() and len(value) <= 7):
        raise SettingsError(f"FLYWHEEL_GPU_BUDGET must be a number of GPUs, or empty for no limit, not {value!r}")
    return int(value) if value else None


def _own_namespace() -> str:
    return _NAMESPACE_FILE.read_text().strip() if _NAMESPACE_FILE.exists() else "default"
