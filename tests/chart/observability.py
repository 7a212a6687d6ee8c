"""The chart's alerts and dashboard, taken apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
ALERTS = REPOSITORY / "helm" / "flywheel" / "files" / "alerts.yaml"
DASHBOARD = REPOSITORY / "helm" / "flywheel" / "files" / "dashboard.json"
VARIABLES = {"$__rate_interval": "1m", "$__range": "1h", "$namespace": ".*"}  # what Grafana would put in


def alerts() -> list[dict[str, Any]]:
    """All alerting rules."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """All panels that ask for something."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """Every query of the dashboard as Prometheus gets it, by panel and letter."""
    found = {f"{panel['title']} {target['refId']}": target["expr"] for panel in panels() for target in panel["targets"]}
    for name, value in VARIABLES.items():
        found = {title: query.replace(name, value) for title, query in found.items()}
    return found
