"""Names of objects, and of the things that can change about them."""

from __future__ import annotations

from typing import NamedTuple

KINDS = ("Flywheel", "Generation", "TrainingRun", "RewardModel", "Rollout")
# The children that decisions read, by API version; all of them carry the managed-by label.
CHILDREN = {"Job": "batch/v1", "Pod": "v1", "Deployment": "apps/v1", "ConfigMap": "v1", "ControllerRevision": "apps/v1"}
# Children of kinds that not every cluster has.
OPTIONAL = {"JobSet": "jobset.x-k8s.io/v1alpha2"}
CACHED = frozenset(KINDS) | frozenset(CHILDREN) | frozenset(OPTIONAL)


class Key(NamedTuple):
    """One object."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class Topic(NamedTuple):
    """A set of objects that a pass may have looked at: one by name, or all that share an owner, a label or a model service."""

    what: str  # name, owner, label or service
    kind: str
    namespace: str
    value: str
