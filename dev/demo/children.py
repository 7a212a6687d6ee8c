"""Whether anything was made twice: one run a stage, one Job an attempt, one Rollout a lap, however often the operator was killed."""

from __future__ import annotations

import json
from collections import Counter

from dev.demo import kube

LABEL = "modelflywheel.dev/"
UNIQUE = {  # kind -> the labels that no two of its objects may share
    "trainingruns": ("generation", "stage"),
    "rewardmodels": ("generation", "stage"),
    "rollouts": ("generation",),
    "jobs": ("training-run", "attempt"),
}


def doubles(namespace: str) -> list[str]:
    """What exists twice, in words; empty when all is well."""
    found = []
    for kind, labels in UNIQUE.items():
        selector = ",".join(LABEL + label for label in labels)
        items = json.loads(kube.kubectl("get", kind, "-n", namespace, "-l", selector, "-o", "json"))["items"]
        counts = Counter(tuple(item["metadata"]["labels"][LABEL + label] for label in labels) for item in items)
        found += [f"{count} {kind} of {'/'.join(key)}" for key, count in counts.items() if count > 1]
    return found
