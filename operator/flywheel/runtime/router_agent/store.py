"""The directory shared with Envoy: discovery files, and what must outlive the agent."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from flywheel.specs.envoy import Endpoint, Routes, RoutesError, format_routes, parse_routes

log = logging.getLogger(__name__)
_ORDER = {"cds.json": 1, "rds.json": 2}  # endpoints, then clusters, then routes


class Store:
    def __init__(self, run: Path) -> None:
        self.run, self.xds = run, run / "xds"
        self._state = run / "state.json"
        self.xds.mkdir(parents=True, exist_ok=True)

    def swap(self, files: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace what differs, each file by one rename."""
        for name in sorted(files, key=lambda name: _ORDER.get(name, 0)):
            text = json.dumps(files[name])
            path = self.xds / name
            if not path.exists() or path.read_text() != text:
                replace(path, text)

    def forget(self, keep: Mapping[str, Any]) -> None:
        """Delete endpoint files of arms that are gone."""
        for path in self.xds.glob("eds-*.json"):
            if path.name not in keep:
                path.unlink()

    def save(self, routes: Routes, endpoints: Mapping[str, Sequence[Endpoint]]) -> None:
        known = {service: [astuple(one) for one in found] for service, found in endpoints.items()}
        replace(self._state, json.dumps({"routes": format_routes(routes), "endpoints": known}))

    def load(self) -> tuple[Routes | None, dict[str, tuple[Endpoint, ...]]]:
        """What the last agent in this pod knew."""
        try:
            state = json.loads(self._state.read_text())
            known = {service: tuple(Endpoint(*one) for one in found) for service, found in state["endpoints"].items()}
            return parse_routes(state["routes"]), known
        except FileNotFoundError:
            return None, {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("the state of the last agent can't be read, starting without it: %s", error)
            return None, {}


def read_seed(path: Path) -> Routes | None:
    """The mounted ConfigMap, if there is a good one."""
    try:
        return parse_routes(path.read_text())
    except OSError:
        return None
    except RoutesError as error:
        log.warning("the mounted routes can't be used: %s", error)
        return None


def replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
