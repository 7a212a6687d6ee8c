"""The contract between operator and router: `routes.json` (ARCHITECTURE §3), parsed strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_TEXT = 64 * 1024
_HEADER = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_RESERVED_HEADERS = ("x-flywheel-", "x-envoy-")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")


class RoutesError(ValueError):
    """Routes that must not reach Envoy; the message names the field, the value and the mend."""


@dataclass(frozen=True)
class Arm:
    """One model that answers: a Deployment and a Service of vLLM."""

    arm: str
    generation: str
    service: str
    port: int = 8000

    def __post_init__(self) -> None:
        for field in ("arm", "generation", "service"):
            value = getattr(self, field)
            if not isinstance(value, str) or not _LABEL.fullmatch(value):
                raise RoutesError(f"{field} must be a Kubernetes name (a-z, 0-9 and '-', at most 63), not {value!r}")
        if not _is_int(self.port) or not 1 <= self.port <= 65535:
            raise RoutesError(f"port must be an integer between 1 and 65535, not {self.port!r}")


@dataclass(frozen=True)
class Routes:
    """Who answers whom. `weight_percent` is the candidate's share and, equally, the control's."""

    revision: int
    stable: Arm
    candidate: Arm | None = None
    experiment: str | None = None
    salt: str | None = None
    weight_percent: float = 0
    header: str = "x-user-id"

    def __post_init__(self) -> None:
        if not _is_int(self.revision) or not 1 <= self.revision < 2**53:
            raise RoutesError(f"revision must be an integer from 1 up, not {self.revision!r}")
        if not isinstance(self.header, str) or not _HEADER.fullmatch(self.header) or self.header.startswith(_RESERVED_HEADERS):
            raise RoutesError(f"assignment.header must be a lower-case header name outside x-flywheel- and x-envoy-, not {self.header!r}")
        _check_weight(self.weight_percent)
        for field in ("experiment", "salt"):
            value = getattr(self, field)
            if value is not None and (not isinstance(value, str) or not _NAME.fullmatch(value)):
                raise RoutesError(f"{field} must be letters, digits, '.', '_' or '-' (at most 253) or null, not {value!r}")
        if self.candidate is None:
            if self.weight_percent or self.experiment is not None or self.salt is not None:
                raise RoutesError("without a candidate, experiment and salt must be null and weightPercent 0")
            return
        if self.experiment is None or self.salt is None:
            raise RoutesError("a candidate needs experiment and salt: without them its users could not be told apart")
        if self.candidate.service == self.stable.service or self.candidate.arm == self.stable.arm:
            raise RoutesError(f"candidate and stable must be two arms, both are {self.stable.arm!r}")

    @property
    def weight(self) -> int:
        """The candidate's share in 1/10000."""
        return round(self.weight_percent * 100)

    @property
    def arms(self) -> tuple[Arm, ...]:
        return (self.stable,) if self.candidate is None else (self.stable, self.candidate)


def parse_routes(text: str) -> Routes:
    """Read `routes.json`. Raises RoutesError; nothing is guessed and nothing unknown is passed over."""
    if len(text) > MAX_TEXT:
        raise RoutesError(f"routes.json is {len(text)} characters long, more than {MAX_TEXT}")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RoutesError(f"routes.json is not JSON: {error}") from None
    _check_keys("routes.json", body, ("revision", "experiment", "salt", "weightPercent", "assignment", "stable", "candidate"))
    _check_keys("assignment", body["assignment"], ("header",))
    return Routes(
        revision=body["revision"],
        stable=_parse_arm("stable", body["stable"]),
        candidate=None if body["candidate"] is None else _parse_arm("candidate", body["candidate"]),
        experiment=body["experiment"],
        salt=body["salt"],
        weight_percent=body["weightPercent"],
        header=body["assignment"]["header"],
    )


def format_routes(routes: Routes) -> str:
    """The inverse of `parse_routes`: what the operator writes into the ConfigMap."""

    def arm(value: Arm) -> dict[str, Any]:
        return {"arm": value.arm, "generation": value.generation, "service": value.service, "port": value.port}

    body = {
        "revision": routes.revision,
        "experiment": routes.experiment,
        "salt": routes.salt,
        "weightPercent": routes.weight_percent,
        "assignment": {"header": routes.header},
        "stable": arm(routes.stable),
        "candidate": None if routes.candidate is None else arm(routes.candidate),
    }
    return json.dumps(body, indent=1)


def _parse_arm(role: str, body: Any) -> Arm:
    _check_keys(role, body, ("arm", "generation", "service", "port"))
    try:
        return Arm(**body)
    except RoutesError as error:
        raise RoutesError(f"{role}.{error}") from None


def _check_keys(where: str, body: Any, keys: tuple[str, ...]) -> None:
    if not isinstance(body, Mapping):
        raise RoutesError(f"{where} must be a JSON object, not {type(body).__name__}")
    if missing := [key for key in keys if key not in body]:
        raise RoutesError(f"{where} lacks {', '.join(missing)} (null where there is none)")
    if unknown := sorted(set(body) - set(keys)):
        raise RoutesError(f"{where} has the unknown key {unknown[0]!r}: is the router older than the operator?")


def _check_weight(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 50:
        raise RoutesError(f"weightPercent must be between 0 and 50 (control takes as much as the candidate), not {value!r}")
    if abs(value * 100 - round(value * 100)) > 1e-6:
        raise RoutesError(f"weightPercent has at most two decimals, not {value!r}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
