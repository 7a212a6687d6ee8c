"""EndpointSlices -> endpoints of an arm. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flywheel.specs.envoy import Endpoint


def endpoints_of(slices: Iterable[Mapping[str, Any]], port: int) -> tuple[Endpoint, ...]:
    """Every pod once. Ready in one slice is ready (a pod may stand in two while slices are rewritten)."""
    found: dict[tuple[str, int], bool] = {}
    for one in slices:
        target = _target_port(one.get("ports") or (), port)
        if one.get("addressType") not in ("IPv4", "IPv6") or target is None:
            continue
        for endpoint in one.get("endpoints") or ():
            ready = (endpoint.get("conditions") or {}).get("ready") is not False  # unknown counts as ready, as Kubernetes says
            for address in endpoint.get("addresses") or ():
                found[address, target] = found.get((address, target), False) or ready
    return tuple(Endpoint(address, target, ready) for (address, target), ready in sorted(found.items()))


def _target_port(ports: Sequence[Mapping[str, Any]], port: int) -> int | None:
    """Slices hold target ports: the Service's own number if it is there, else the only one, else the one called http."""
    numbers = [one["port"] for one in ports if one.get("port")]
    if port in numbers:
        return port
    if len(numbers) == 1:
        return int(numbers[0])
    return next((int(one["port"]) for one in ports if one.get("name") == "http" and one.get("port")), None)
