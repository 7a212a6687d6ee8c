"""Garbage collection is decided before its run exists, and its mark keeps whatever anything refers to."""

from __future__ import annotations

import copy
import datetime as dt
import hashlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flywheel.api.flywheel import ChampionStatus, Flywheel, FlywheelStatus
from flywheel.api.generation import Generation
from flywheel.api.rollout import Rollout
from flywheel.api.training_run import TrainingRun, TrainingRunStatus
from flywheel.plan.base import Create, Delete
from flywheel.plan.collection import ASK, gone, may_be_gone, needs_mark, plan_collection
from flywheel.plan.garbage import COLLECTION, MAX_KEPT, PREFIX, Mark, mark, releasable
from tests.plan.generation_world import digest_of
from tests.plan.test_flywheel import T0, flywheel
from tests.plan.test_lineage import champion, lap, rollout

HOUR = dt.timedelta(hours=1)
DELETE = {"artifacts": {"retention": {"policy": "Delete"}}}
Body = dict[str, Any]


class Store:
    """A Flywheel whose collections are run by a test."""

    def __init__(self, *laps: Generation, **spec: Any) -> None:
        self.flywheel, self.laps, self.rollouts, self.now = flywheel(**spec), list(laps), list[Rollout](), T0
        self.runs: dict[str, TrainingRun] = {}
        self.mark = Mark(("0" * PREFIX,), ("uid",))
        self.deleted: list[str] = []

    @property
    def status(self) -> FlywheelStatus:
        return self.flywheel.status

    def ask(self, token: str) -> None:
        meta = self.flywheel.metadata.model_copy(update={"annotations": {ASK: token}})
        self.flywheel = self.flywheel.model_copy(update={"metadata": meta})

    def step(self, *, crash: bool = False) -> list[Any]:
        """One pass; a crash loses what should have been done."""
        taken = self.mark if needs_mark(self.status, self.runs) else None
        plan = plan_collection(self.flywheel, self.status, self.laps, self.rollouts, self.runs, taken, self.now)
        self.flywheel = self.flywheel.model_copy(update={"status": FlywheelStatus.model_validate(plan.status.dump())})
        for action in () if crash else plan.actions:
            if isinstance(action, Create):
                body = action.manifest
                self.runs.setdefault(body["metadata"]["name"], TrainingRun.model_validate(body))
            elif isinstance(action, Delete):
                self.deleted.append(action.name)
                self.runs.pop(action.name)
        self.now += HOUR
        return list(plan.actions)

    def end(self, phase: str = "Succeeded", **metrics: float) -> None:
        name = self.status.collection.name  # type: ignore[union-attr]
        made = {"uri": "file:///flywheel/artifacts/report", "digest": digest_of("report"), "kind": "report"}
        body = {"phase": phase, "metrics": metrics, "artifact": made, "completionTime": self.now}
        self.runs[name] = self.runs[name].model_copy(update={"status": TrainingRunStatus.model_validate(body)})


def ended(name: str, hours: int, verdict: str = "Rejected", **status: Any) -> Generation:
    body = lap(name, hours, verdict, completionTime=T0 + hours * HOUR, rollout=None, **status)
    return body.model_copy(update={"metadata": body.metadata.model_copy(update={"generation": 1})})


def test_its_pod_comes_from_where_the_laps_pods_come_from_patched_default_stages_too() -> None:
    patch = {"name": "curate", "patch": {"run": {"image": "registry.example/trainer:v2", "serviceAccountName": "trainer"}}}
    store = Store(generationTemplate={"stagePatches": [patch]})
    store.ask("dry-run now")
    store.step()
    store.step()
    (run,) = store.runs.values()
    assert (run.spec.image, run.spec.service_account_name) == ("registry.example/trainer:v2", "trainer")


def test_nothing_is_collected_unless_the_policy_or_a_person_says_so() -> None:
    store = Store(ended("g1", 1))
    assert store.step() == []
    assert store.status.collection is None


def test_each_laps_end_is_followed_by_one_collection() -> None:
    store = Store(ended("g1", 1), **DELETE)
    assert store.step() == [], "the decision is on record before anything is made"
    assert store.status.collection is not None
    assert not store.status.collection.dry_run
    (made,) = store.step()
    assert made.manifest["spec"]["method"] == "GarbageCollect"
    assert made.manifest["spec"]["parameters"] == {
        "flywheel": "demo",
        "markedAt": "2026-11-23T12:00:00.000000Z",
        "graceSeconds": 604800,
        "dryRun": False,
        "keep": {"digests": ["0" * PREFIX], "runs": ["uid"]},
    }
    assert store.step() == []
    store.end(collected_artifacts=2, collected_bytes=10)
    store.step()
    assert (store.status.collection.phase, store.status.collection.metrics["collected_artifacts"]) == ("Done", 2)
    for _ in range(3):
        store.step()
    assert len(store.runs) == 1
    store.laps.append(ended("g2", 9))
    store.step()
    store.step()
    assert len(store.runs) == 2


def test_a_lap_that_runs_is_waited_for() -> None:
    store = Store(ended("g1", 1), **DELETE)
    store.flywheel = store.flywheel.model_copy(update={"status": FlywheelStatus(active=("g2",))})
    store.step()
    assert store.status.collection is None


def test_a_crash_between_decision_and_run_makes_one_run_with_the_decisions_time() -> None:
    store = Store(ended("g1", 1), **DELETE)
    store.step(crash=True)
    for crash in (True, True, False, False):
        store.step(crash=crash)
    (run,) = store.runs.values()
    assert run.spec.parameters["markedAt"] == "2026-11-23T12:00:00.000000Z"


def test_whoever_asks_gets_an_answer_once() -> None:
    store = Store()
    store.ask("dry-run now")
    store.step()
    store.step()
    (run,) = store.runs.values()
    assert run.spec.parameters["dryRun"] is True
    store.end(collected_artifacts=1)
    for _ in range(3):
        store.step()
    assert store.status.collection is not None
    assert (store.status.collection.asked, store.status.collection.phase, len(store.runs)) == ("dry-run now", "Done", 1)
    store.ask("delete now")
    store.step()
    store.step()
    assert [r.spec.parameters["dryRun"] for r in store.runs.values()] == [True, False]


def test_a_request_that_is_none_is_no_request() -> None:
    store = Store()
    store.ask("delete-everything")
    store.step()
    assert store.status.collection is None


def test_in_a_bucket_nothing_is_ever_deleted() -> None:
    store = Store(ended("g1", 1), storage={"uri": "s3://bucket/x"})
    store.ask("delete now")
    store.step()
    assert store.status.collection is not None
    assert store.status.collection.dry_run


def test_a_failed_collection_says_why_and_the_next_lap_is_followed_by_another() -> None:
    store = Store(ended("g1", 1), **DELETE)
    store.step()
    store.step()
    store.end("Failed")
    store.step()
    assert store.status.collection is not None
    assert store.status.collection.phase == "Failed"
    store.laps.append(ended("g2", 9))
    store.step()
    store.step()
    assert len(store.runs) == 2


def test_more_references_than_fit_into_a_run_delete_nothing() -> None:
    store = Store(ended("g1", 1), **DELETE)
    store.mark = Mark(tuple(str(i) for i in range(MAX_KEPT + 1)), ())
    store.step()
    store.step()
    assert store.runs == {}
    assert store.status.collection is not None
    assert store.status.collection.phase == "Failed"
    assert "nothing is deleted" in (store.status.collection.message or "")


def test_runs_of_old_collections_go_but_for_the_last_three() -> None:
    store = Store(**DELETE)
    for number in range(6):
        store.laps.append(ended(f"g{number}", number))
        store.step()
        store.step()
        store.end()
        store.step()
        store.step()
    assert (len(store.runs), len(store.deleted)) == (3, 3)


# -------------------------------------------------------------------------------------------------------------- released


def kept_rejected(number: int) -> dict[str, Any]:
    return {"artifacts": {"retention": {"policy": "Delete", "keepRejected": number}}}


def test_by_default_every_lap_that_exists_keeps_its_artifacts() -> None:
    assert releasable(flywheel(**DELETE), [ended("g1", 1)], []) == ()


def test_beyond_the_newest_rejected_laps_the_others_are_released_and_stay_so() -> None:
    laps = [ended(f"g{i}", i) for i in range(4)] + [ended("won", 0, "Promoted")]
    store = Store(*laps, **kept_rejected(2))
    store.step()
    assert store.status.released == ("g0", "g1")
    assert may_be_gone(store.flywheel, "g0")
    assert not may_be_gone(store.flywheel, "g3")
    runs = [
        TrainingRun.model_validate(
            {
                "metadata": {"name": f"{name}-sft", "labels": {"modelflywheel.dev/generation": name}},
                "spec": {"method": "SFT"},
                "status": {"artifact": {"uri": "file:///m", "digest": digest_of(name)}},
            }
        )
        for name in ("g0", "g3")
    ]
    assert gone(store.flywheel, runs) == {digest_of("g0")}
    assert gone(None, runs) == frozenset()
    spec = store.flywheel.spec.model_copy(update={"artifacts": flywheel().spec.artifacts})
    store.flywheel = store.flywheel.model_copy(update={"spec": spec})
    store.step()
    assert store.status.released == ("g0", "g1"), "what may be gone is not there again because the retention has changed"
    store.laps = store.laps[1:]
    store.step()
    assert store.status.released == ("g1",)


def test_a_dry_run_releases_nothing() -> None:
    store = Store(ended("g1", 1), **{"artifacts": {"retention": {"keepRejected": 0}}})
    store.ask("dry-run now")
    store.step()
    assert store.status.released == ()


def test_a_lap_that_goes_on_serves_or_is_asked_for_again_is_not_released() -> None:
    fly = flywheel(**kept_rejected(0))
    retried = ended("retried", 1)
    meta = retried.metadata.model_copy(update={"annotations": {"modelflywheel.dev/retry": "now"}})
    retried = retried.model_copy(update={"metadata": meta})
    edited = ended("edited", 1)
    edited = edited.model_copy(update={"metadata": edited.metadata.model_copy(update={"generation": 2})})
    asks = ended("asks", 1)
    open_rollout = rollout("asks", 5, 1)
    owner = {"apiVersion": "v", "kind": "Generation", "name": "asks", "uid": "asks"}
    open_rollout = Rollout.model_validate({**open_rollout.dump(), "metadata": {"name": "asks-rollout", "ownerReferences": [owner]}})
    serves = ended("serves", 1)
    fly = fly.model_copy(update={"status": FlywheelStatus(champion=champion("serves", 2))})
    assert releasable(fly, [retried, edited, asks, serves, lap("runs", 1)], [open_rollout]) == ()
    assert releasable(fly, [ended("plain", 1)], []) == ("plain",)


# ------------------------------------------------------------------------------------------------------------------ mark


def hexes(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def body(kind: str, name: str, owner: str | None = None, namespace: str = "demo", **parts: Any) -> Body:
    owners = [{"uid": owner}] if owner else []
    return {
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "uid": f"{namespace}/{kind}/{name}", "ownerReferences": owners},
        **parts,
    }


def of_flywheel(fly: Flywheel) -> Body:
    return {
        "kind": "Flywheel",
        "metadata": {"name": "demo", "namespace": "demo", "uid": "u-f"},
        "spec": fly.spec.dump(),
        "status": fly.status.dump(),
    }


def test_what_any_object_mentions_stays_whatever_for() -> None:
    bodies = [
        body("TrainingRun", "a", status={"artifact": {"digest": "sha256:" + hexes("made")}}),
        body("ConfigMap", "b", namespace="other", data={"run.json": '{"uri": "file:///x/sha256-' + hexes("in text") + '"}'}),
        body("ControllerRevision", "arm", data={"model": {"digest": "sha256:" + hexes("parked")}}),
        of_flywheel(flywheel()),
    ]
    found = mark(flywheel(), (), bodies)
    assert all(found.keeps("sha256:" + hexes(what)) for what in ("made", "in text", "parked"))
    assert found.keeps(flywheel().spec.base.digest)
    assert not found.keeps("sha256:" + hexes("nobody"))


def test_the_list_of_an_earlier_collection_is_no_reference_but_its_report_stays() -> None:
    run = body("TrainingRun", "gc", spec={"keep": "sha256:" + hexes("old")}, status={"artifact": {"digest": "sha256:" + hexes("report")}})
    run["metadata"]["labels"] = {COLLECTION: "delete"}
    job = body("Job", "gc-a1", owner="demo/TrainingRun/gc", data="sha256:" + hexes("old"))
    found = mark(flywheel(), (), [run, job])
    assert not found.keeps("sha256:" + hexes("old"))
    assert found.keeps("sha256:" + hexes("report"))


def test_long_gone_champions_and_remembered_rejects_let_go_of_models_but_not_of_records() -> None:
    champions = tuple(champion(f"c{i}", -i) for i in range(5))
    lineage = ({"generation": "x", "digest": "sha256:" + hexes("x"), "recordDigest": "sha256:" + hexes("record")},)
    fly = flywheel(artifacts={"retention": {"keepChampions": 2}})
    status = FlywheelStatus.model_validate(
        {"champion": champions[0].dump(), "previous": [c.dump() for c in champions[1:]], "lineage": lineage}
    )
    fly = fly.model_copy(update={"status": status})
    found = mark(fly, (), [of_flywheel(fly)])
    assert [found.keeps(c.digest) for c in champions] == [True, True, True, False, False]
    assert (found.keeps("sha256:" + hexes("x")), found.keeps("sha256:" + hexes("record"))) == (False, True)


def released_lap() -> list[Body]:
    return [
        body(
            "Generation",
            "g1",
            spec={"flywheel": "demo"},
            status={"model": {"digest": "sha256:" + hexes("model")}, "recordArtifact": {"digest": "sha256:" + hexes("record")}},
        ),
        body("TrainingRun", "g1-sft", owner="demo/Generation/g1", status={"phase": "Succeeded", "artifact": "sha256:" + hexes("sft")}),
        body("Job", "g1-sft-a1", owner="demo/TrainingRun/g1-sft", data="sha256:" + hexes("job")),
    ]


def test_a_released_lap_lets_go_of_all_but_its_record() -> None:
    found = mark(flywheel(), ("g1",), released_lap())
    assert [found.keeps("sha256:" + hexes(what)) for what in ("model", "sft", "job", "record")] == [False, False, False, True]


def test_what_a_kept_object_refers_to_by_name_stays_though_its_lap_was_released() -> None:
    user = body("TrainingRun", "mine", spec={"model": {"type": "TrainingRun", "trainingRun": "g1-sft"}}, status={"phase": "Pending"})
    found = mark(flywheel(), ("g1",), [*released_lap(), user])
    assert [found.keeps("sha256:" + hexes(what)) for what in ("sft", "model")] == [True, False]
    user["spec"] = {"model": {"type": "Generation", "generation": "g1"}}
    assert mark(flywheel(), ("g1",), [*released_lap(), user]).keeps("sha256:" + hexes("model"))


def test_a_lap_of_that_name_elsewhere_is_not_the_released_one() -> None:
    elsewhere = copy.deepcopy(released_lap())
    for one in elsewhere:
        one["metadata"] |= {"namespace": "other", "uid": one["metadata"]["uid"].replace("demo", "other"), "ownerReferences": []}
    others = copy.deepcopy(released_lap())
    others[0]["spec"]["flywheel"] = "another"
    for bodies in (elsewhere, others):
        assert mark(flywheel(), ("g1",), bodies).keeps("sha256:" + hexes("model"))


def test_checkpoints_stay_as_long_as_their_run_may_go_on() -> None:
    phases = {"a": "Running", "b": "Failed", "c": "Succeeded", "d": None}
    bodies = [body("TrainingRun", name, status={"phase": phase} if phase else {}) for name, phase in phases.items()]
    assert mark(flywheel(), (), bodies).runs == ("demo/TrainingRun/a", "demo/TrainingRun/b", "demo/TrainingRun/d")


NAMES = [f"g{i}" for i in range(6)]
WORLD = st.lists(
    st.tuples(
        st.sampled_from(["Generation", "TrainingRun", "RewardModel", "Rollout", "ControllerRevision"]),
        st.integers(0, 5),
        st.sampled_from([None, "g0", "g1", "g2"]),  # the lap that owns it
        st.lists(st.integers(0, 12), max_size=3),  # what it mentions
        st.sampled_from([None, "g0", "g1", "g2"]),  # the lap that it names
    ),
    max_size=14,
)


@given(WORLD, st.sets(st.sampled_from(NAMES[:3])), st.lists(st.integers(0, 12), max_size=3), st.lists(st.integers(0, 12), max_size=5))
def test_nothing_that_can_be_reached_from_what_stays_is_ever_collected(
    world: Any, released: set[str], champions: list[int], mentions: list[int]
) -> None:
    def digest(number: int) -> str:
        return "sha256:" + hexes(f"artifact {number}")

    bodies: dict[tuple[str, str], Body] = {}
    for kind, number, owner, held, named in world:
        spec: Body = {"flywheel": "demo", "holds": [digest(n) for n in held]}
        if named and kind in ("TrainingRun", "RewardModel"):
            spec["model"] = {"type": "Generation", "generation": named}
        made = body(kind, f"g{number}", owner=f"demo/Generation/{owner}" if owner and kind != "Generation" else None, spec=spec)
        bodies[kind, f"g{number}"] = made
    reigns = [ChampionStatus(generation="c", uri="file:///m", digest=digest(n), arm="a", since=T0) for n in champions]
    fly = flywheel(artifacts={"retention": {"keepRejected": 0}})
    fly = fly.model_copy(update={"status": FlywheelStatus(champion=reigns[0] if reigns else None, previous=tuple(reigns[1:]))})
    routes = body("ConfigMap", "demo-routes", data={"x": str([digest(n) for n in mentions])})
    found = mark(fly, tuple(released), [*bodies.values(), routes, of_flywheel(fly)])

    gone = {("Generation", name) for name in released}
    roots = [b for key, b in bodies.items() if key not in gone and not _owned_by(b, released & {n for k, n in bodies if k == "Generation"})]
    needed = {d for b in roots for d in b["spec"]["holds"]} | {c.digest for c in reigns} | {digest(n) for n in mentions}
    for b in roots:  # what they name is needed too
        named = b["spec"].get("model", {}).get("generation")
        if named and ("Generation", named) in bodies:
            needed |= set(bodies["Generation", named]["spec"]["holds"])
    assert [d for d in needed if not found.keeps(d)] == []


def _owned_by(one: Body, laps: set[str]) -> bool:
    return any(owner["uid"].removeprefix("demo/Generation/") in laps for owner in one["metadata"]["ownerReferences"])
