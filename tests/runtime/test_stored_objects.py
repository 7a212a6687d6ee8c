"""Objects of earlier releases, as a cluster had stored them, under today's operator: it goes on where they stand, with what is there."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

import pytest

from flywheel.api.crd import KINDS, crds
from flywheel.api.crd_upgrade import fields
from flywheel.plan.base import LABEL
from flywheel.plan.rollout_observed import Acknowledgement
from tests.api.stored import MOMENTS, stored
from tests.plan.rollout_world import BETTER, EQUAL, evidence
from tests.runtime import faketime
from tests.runtime.simulated_api import NAMESPACE, Body, Ref, State
from tests.runtime.simulated_cluster import METRICS, SimulatedCluster, result

FLYWHEEL = "wanted"
START = 5  # seconds in which the pods of the stored Deployments and Jobs get ready
PATIENCE = 120  # seconds for what is left of a lap
MODELS = {kind.name: kind.model for kind in KINDS}
SCHEMAS = {crd["spec"]["names"]["kind"]: set(fields(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])) for crd in crds().values()}
ALL = pytest.mark.parametrize(("release", "moment"), MOMENTS)
OPEN = ("parameters", "podTemplate", "metrics", "evidence", "requests", "limits", "inputs")  # maps: their keys are no fields


class Restored(SimulatedCluster):
    """A cluster that has been brought back from what was stored."""

    def __init__(self, taken: dt.datetime, bodies: list[Body]) -> None:
        state = State()
        for body in moved(bodies):
            meta = body["metadata"]
            kept = {**body, "metadata": {**meta, "generation": meta.get("generation", 1)}}
            if body["kind"] == "Job" and not any(c["status"] == "True" for c in body.get("status", {}).get("conditions") or ()):
                kept.pop("status", None)  # its pod is brought back too
            state.objects[Ref(body["kind"], meta["name"])] = kept
            state.changed[Ref(body["kind"], meta["name"])] = taken
            state.version = max(state.version, int(meta["resourceVersion"]))
        super().__init__(state, taken)
        self.answer = lambda experiment: evidence(EQUAL, BETTER)
        self.ends = lambda pod: (0, result(pod, {**METRICS, "loss_last": 1.0}))

    async def acknowledgements(self, pods: Mapping[str, str]) -> tuple[Acknowledgement, ...]:
        """TrafficRouter."""
        revision = json.loads(self.state.objects[Ref("ConfigMap", f"{FLYWHEEL}-routes")]["data"]["routes.json"])["revision"]
        return tuple(Acknowledgement(pod, revision, True) for pod in pods)


def moved(bodies: list[Body]) -> list[Body]:
    """The same in the simulated namespace, wherever that is said: in addresses and experiments too."""
    text = json.dumps(bodies)
    for namespace in {body["metadata"]["namespace"] for body in bodies}:
        text = text.replace(namespace, NAMESPACE)
    made: list[Body] = json.loads(text)
    return made


async def live_on(release: str, moment: str, seconds: int) -> tuple[State, list[Exception]]:
    """Today's operator takes over; what there is so many seconds later."""
    cluster = Restored(*stored(release, moment))
    await cluster.live(START)
    async with cluster.operator() as operator:
        await cluster.live(seconds)
        return cluster.state, operator.errors


def roles(state: State) -> dict[tuple[str, ...], list[str]]:
    """The children by what they are for."""
    found: dict[tuple[str, ...], list[str]] = {}
    for ref, body in sorted(state.objects.items()):
        labels = body["metadata"].get("labels") or {}
        role = tuple(labels.get(LABEL + name, "") for name in ("generation", "stage", "record", "training-run", "attempt", "arm"))
        if ref.kind in ("TrainingRun", "RewardModel", "Rollout", "Job", "Deployment", "ControllerRevision") and any(role):
            found.setdefault((ref.kind, *role), []).append(ref.name)
    return found


@ALL
def test_there_is_an_object_of_every_kind(release: str, moment: str) -> None:
    kinds = {body["kind"] for one in (r for r in MOMENTS if r[0] == release) for body in stored(*one)[1]}
    assert kinds >= MODELS.keys()


@ALL
def test_every_stored_field_is_read_and_kept(release: str, moment: str) -> None:
    for body in stored(release, moment)[1]:
        if (model := MODELS.get(body["kind"])) is not None:
            read = model.model_validate(body).dump()
            for part in ("spec", "status"):
                assert list(lost(body.get(part), read.get(part), f"{body['kind']} {part}")) == []


@ALL
def test_every_stored_field_is_in_todays_schema(release: str, moment: str) -> None:
    """Else the API server would cut it at the next write."""
    for body in stored(release, moment)[1]:
        if body["kind"] in SCHEMAS:
            paths = {path for part in ("spec", "status") for path in leaves(body.get(part), part)}
            unknown = {path for path in paths - SCHEMAS[body["kind"]] if not any(word in path for word in OPEN)}
            assert unknown == set(), body["kind"]


@ALL
def test_where_nothing_is_to_do_nothing_is_done(release: str, moment: str) -> None:
    """Of what has ended: not a word of its status is other, and no child is made anew."""
    state, errors = faketime.run(live_on(release, moment, 20))
    assert errors == []
    ends = ("Succeeded", "Ready", "Promoted", "RolledBack")
    ended = [b for b in moved(stored(release, moment)[1]) if b["kind"] in MODELS and b["status"].get("phase") in ends]
    assert ended or moment == "mid-lap"
    for body in ended:
        now = state.objects[Ref(body["kind"], body["metadata"]["name"])]
        assert list(lost(body["status"], now["status"], f"{body['kind']} {body['metadata']['name']}")) == []
        assert now["spec"] == body["spec"]


@ALL
def test_a_lap_goes_on_to_its_end_with_the_children_it_has(release: str, moment: str) -> None:
    state, errors = faketime.run(live_on(release, moment, PATIENCE))
    assert errors == []
    had, has = roles(_state(release, moment)), roles(state)
    for role, names in had.items():
        assert set(has.get(role, names)) <= set(names), f"{role} has a child of another name"
    (lap,) = state.every("Generation")
    assert lap["status"]["phase"] == "Promoted", lap["status"]
    frozen = {ref: body for ref, body in state.objects.items() if body["metadata"].get("labels", {}).get(LABEL + "component") == "vllm"}
    for ref, body in frozen.items():
        old = _state(release, moment).objects.get(ref)
        if old is not None and ref.kind == "Deployment":
            # What is applied now was there before: the API server's defaults, which the simulated one has not, come on top.
            assert list(lost(body["spec"]["template"], old["spec"]["template"], ref.name)) == [], "a vLLM would be restarted"


def _state(release: str, moment: str) -> State:
    state = State()
    for body in moved(stored(release, moment)[1]):
        state.objects[Ref(body["kind"], body["metadata"]["name"])] = body
    return state


def lost(old: Any, new: Any, path: str) -> Any:
    """Where something that was stored is not there any more, or is something else; what came to it is welcome."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in old.items():
            yield from lost(value, new.get(key), f"{path}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from lost(one, other, f"{path}[{number}]")
    elif old != new and not _same_time(old, new):
        yield f"{path}: {old!r} became {new!r}"


def _same_time(old: Any, new: Any) -> bool:
    try:
        return dt.datetime.fromisoformat(str(old)) == dt.datetime.fromisoformat(str(new))
    except (ValueError, TypeError):
        return False


def leaves(value: Any, path: str) -> Any:
    """The paths of all fields below a value, as a schema has them."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield f"{path}.{key}"
            yield from leaves(child, f"{path}.{key}")
    elif isinstance(value, list):
        for child in value:
            yield from leaves(child, f"{path}[]")
