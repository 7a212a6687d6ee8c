"""Objects as the API server of a cluster had stored them under an earlier release, at three moments of a lap. They are never changed.

A new release adds a directory: `python -m tests.api.stored RELEASE MOMENT NAMESPACE FLYWHEEL` takes them from a cluster (of the laps of
tests/cluster/promises/laps.py).
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
MOMENTS = tuple(sorted((path.parent.name, path.stem) for path in HERE.glob("*/*.yaml")))  # (release, moment)
KINDS = "flywheels,generations,trainingruns,rewardmodels,rollouts,jobs,deployments,controllerrevisions,configmaps,services,"
KINDS += "serviceaccounts,roles,rolebindings,poddisruptionbudgets"
Body = dict[str, Any]


@cache
def stored(release: str, moment: str) -> tuple[dt.datetime, list[Body]]:
    """When they were taken, and the objects of one Flywheel; nobody may change them."""
    document = yaml.safe_load((HERE / release / f"{moment}.yaml").read_text())
    return dt.datetime.fromisoformat(document["takenAt"]), document["items"]


def written(items: list[Body], flywheel: str, taken: dt.datetime) -> str:
    """The text of a file: what belongs to one Flywheel, without the API server's book-keeping."""
    kept = []
    for body in items:
        meta = body["metadata"]
        if flywheel in (
            meta["name"],
            (meta.get("labels") or {}).get("modelflywheel.dev/flywheel"),
            (body.get("spec") or {}).get("flywheel"),
        ):
            kept.append({**body, "metadata": {key: value for key, value in meta.items() if key != "managedFields"}})
    return yaml.safe_dump({"takenAt": taken.isoformat(), "items": kept}, width=140, sort_keys=False, allow_unicode=True)


if __name__ == "__main__":
    release, moment, namespace, flywheel = sys.argv[1:]
    told = subprocess.run(["kubectl", "get", KINDS, "-n", namespace, "-o", "json"], check=True, capture_output=True, text=True).stdout
    (HERE / release).mkdir(exist_ok=True)
    (HERE / release / f"{moment}.yaml").write_text(written(json.loads(told)["items"], flywheel, dt.datetime.now(dt.UTC)))
