"""A namespace as a tree: Flywheel, champion, laps, stages with what runs them, rollouts. Pure: objects in, nodes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from flywheel.cli.reading import Body, condition, controller, dig, items, name, number, phase, text, when
from flywheel.cli.words import difference, percent, seconds, short

CONDITION = {
    "Flywheel": "Ready",
    "Generation": "Progressing",
    "TrainingRun": "Progressing",
    "RewardModel": "Ready",
    "Rollout": "Progressing",
}


@dataclass
class Node:
    """A line of the tree."""

    kind: str
    name: str
    phase: str = ""
    percent: float | None = None
    eta_seconds: float | None = None
    reason: str = ""
    message: str = ""
    children: list[Node] = field(default_factory=list)

    def dump(self) -> dict[str, Any]:
        """For scripts: what is absent is left out."""
        fields = {"kind": self.kind, "name": self.name, "phase": self.phase, "percent": self.percent, "etaSeconds": self.eta_seconds}
        told = {key: value for key, value in (fields | {"reason": self.reason, "message": self.message}).items() if value not in (None, "")}
        return told | ({"children": [child.dump() for child in self.children]} if self.children else {})

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()

    def words(self) -> str:
        """All but kind, name and phase: `40 %, 3 min to go, Retrying: …`."""
        left = f"{seconds(self.eta_seconds)} to go" if self.eta_seconds else ""
        why = ": ".join(part for part in (self.reason, self.message) if part)
        return "  ".join(part for part in (percent(self.percent), left, why) if part)


def forest(bodies: Sequence[Body], wanted: str | None = None) -> list[Node]:
    """The Flywheels (or one of them), and what belongs to none."""
    tree = _Forest(bodies)
    flywheels = [body for body in tree.of("Flywheel") if wanted in (None, name(body))]
    nodes = [tree.flywheel(body) for body in flywheels]
    if wanted is None:
        nodes += tree.left_over(nodes)
    return nodes


class _Forest:
    """The objects, found by kind, name and owner."""

    def __init__(self, bodies: Sequence[Body]) -> None:
        self._bodies = sorted(bodies, key=lambda body: (text(body, "metadata.creationTimestamp"), name(body)))
        self._named = {(text(body, "kind"), name(body)): body for body in bodies}

    def of(self, kind: str) -> Iterable[Body]:
        return (body for body in self._bodies if text(body, "kind") == kind)

    def flywheel(self, body: Body) -> Node:
        node = _node(body)
        if champion := dig(body, "status.champion"):
            ready = next((text(a, "readyReplicas") for a in items(body, "status.arms") if a.get("name") == champion.get("arm")), "")
            pods = f", {ready} ready pods" if ready else ""
            node.children.append(
                Node(
                    "Champion", text(champion, "generation"), message=f"{short(text(champion, 'digest'))} on {text(champion, 'arm')}{pods}"
                )
            )
        node.children += [self.generation(lap) for lap in self.of("Generation") if text(lap, "spec.flywheel") == name(body)]
        node.children += [_node(one) for one in self.of("Rollout") if text(one, "spec.flywheel") == name(body) and controller(one) is None]
        return node

    def generation(self, body: Body) -> Node:
        node = _node(body)
        node.percent = None if dig(body, "status.decision") else number(body, "status.percent")
        for stage in items(body, "status.stages"):
            node.children.append(self._stage(stage))
        if rollout := text(body, "status.rollout"):
            found = self._named.get(("Rollout", rollout))
            node.children.append(self.rollout(found) if found else Node("Rollout", rollout, "New"))
        return node

    def _stage(self, stage: Body) -> Node:
        reason, _, message = text(stage, "message").rpartition(": ") if stage.get("phase") == "Passed" else ("", "", text(stage, "message"))
        node = Node("Stage", text(stage, "name"), text(stage, "phase"), reason=reason, message=message)
        if node.phase == "Running":
            node.percent, node.eta_seconds = number(stage, "percent"), number(stage, "etaSeconds")
        node.children += [
            Node("Gate", text(gate, "metric"), text(gate, "onFailure"), message=text(gate, "message"))
            for gate in items(stage, "gates")
            if gate.get("passed") is False
        ]
        child = self._named.get((text(stage, "kind"), text(stage, "child")))
        if child:
            node.children.append(self._child(child))
        return node

    def _child(self, body: Body) -> Node:
        if text(body, "kind") != "RewardModel":
            return _node(body)
        node = _node(body)
        run = self._named.get(("TrainingRun", text(body, "status.trainingRun")))
        node.children += [_node(run)] if run else []
        return node

    def rollout(self, body: Body) -> Node:
        node = _node(body)
        node.children += [
            Node("Arm", text(arm, "name"), text(arm, "role"), message=f"{text(arm, 'readyReplicas') or 0} ready pods")
            for arm in items(body, "status.arms")
        ]
        node.children += [
            Node("Metric", text(metric, "name"), text(metric, "state"), message=difference(metric))
            for metric in items(body, "status.metrics")
        ]
        return node

    def left_over(self, nodes: Sequence[Node]) -> list[Node]:
        """What belongs to nothing that is shown: standalone runs, reward models and rollouts, laps of a Flywheel that is gone."""
        shown = {(node.kind, node.name) for root in nodes for node in root.walk()}
        rest: list[Node] = []
        for kind, render in (
            ("Generation", self.generation),
            ("RewardModel", self._child),
            ("Rollout", self.rollout),
            ("TrainingRun", _node),
        ):
            for body in self.of(kind):
                if (kind, name(body)) not in shown and controller(body) is None:
                    rest.append(render(body))
                    shown |= {(node.kind, node.name) for node in rest[-1].walk()}
        return rest


def _node(body: Body) -> Node:
    """An object by its phase, its progress and the reason for both."""
    kind = text(body, "kind")
    why = condition(body, CONDITION.get(kind, ""))
    node = Node(kind, name(body), phase(body), reason=text(why, "reason"), message=text(why, "message"))
    if node.reason == node.phase:
        node.reason = ""
    if kind == "TrainingRun":
        node.message = f"{text(body, 'spec.method')}" if node.phase in ("Running", "Succeeded") else node.message
    if kind in ("TrainingRun", "RewardModel") and node.phase in ("Running", "Training"):
        node.percent, node.eta_seconds = number(body, "status.progress.percent"), number(body, "status.progress.etaSeconds")
    if kind == "Rollout" and not dig(body, "status.decision"):
        node.message = text(body, "status.summary") or node.message
    if dig(body, "spec.suspend") is True:
        node.message = f"suspended; {node.message}" if node.message else "suspended"
    if kind == "Flywheel" and (due := when(body, "status.nextLapTime")):
        node.message += f"; the next lap is due {due:%Y-%m-%d %H:%M} UTC"
    return node
