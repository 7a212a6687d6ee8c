"""Names of objects, and of the things that can change about them."""

from __future__ import annotations

from typing import NamedTuple

KINDS = ("Flywheel", "Generation", "TrainingRun", "RewardModel", "Rollout")
# The children that decisions read, by API version; all of them carry the managed-by label.
CHILDREN = {"Job": "batch/v1", "Pod": "v1", "Deployment": "apps/v1", "ConfigMap": "v1", "ControllerRevision": "apps/v1"}
# Children of kinds that not every cluster has.
OPTIONAL = {"JobSet": "jobset.x-k8s.io/v1alpha2"}
# Children of which decisions read only that they are there and whose their fields are: watched without spec and status.
PARTS = {
    "Service": "v1",
    "ServiceAccount": "v1",
    "PodDisruptionBudget": "policy/v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
}
WATCHED_FOR_EDITS = frozenset({"Deployment", *PARTS})
CACHED = frozenset(KINDS) | frozenset(CHILDREN) | frozenset(OPTIONAL) | frozenset(PARTS)
UNOWNED = frozenset({"Pod", *PARTS})  # children that nobody looks up by their owner
LABELS = ("flywheel", "training-run")  # by which children are looked up


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
