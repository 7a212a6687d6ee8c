"""Training runs that can't go on say why, and go on once that is mended. Real trainers in real pods."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster.promises import data, objects, space
from tests.cluster.promises.conftest import STEPS, Store
from tests.cluster.promises.operator_pod import OperatorPod
from tests.cluster.promises.space import Body, Late, Until, Watched, condition, get, patch, phase, reason, status, watch

pytestmark = pytest.mark.cluster
WRONG = "sha256:" + "0" * 64
PATIENCE = 240  # seconds; many trainers share two cores


@dataclass(frozen=True)
class Case:
    """A run that can't go on: how it is made, what it says, how it is mended."""

    reason: str
    words: str  # a regular expression that its message must match
    make: Callable[[str, Store], Body]
    mend: Callable[[str, Store], None]
    phase: str = "Failed"
    attempts: int = 1  # that were made before it said so


def _curate(directory: str, digest: Callable[[Store], str | None], **spec: Any) -> Callable[[str, Store], Body]:
    return lambda name, store: objects.curate(name, objects.data("conversations", directory, digest(store)), **spec)


def _sft(change: Callable[[Store], Body]) -> Callable[[str, Store], Body]:
    return lambda name, store: objects.sft(name, store.base, store.sft, **change(store))


def _spec(change: Callable[[Store], Body]) -> Callable[[str, Store], None]:
    return lambda name, store: patch("trainingrun", name, {"spec": change(store)})


def _put_it_there(name: str, store: Store) -> None:
    data.arrive_late()
    space.retry("trainingrun", name, "it-is-there-now")


_turns = _spec(lambda s: {"datasets": [objects.data("conversations", "promises-turns", s.turns)]})
CASES = {
    "a-missing-dataset": Case("DatasetMissing", r"promises-late\) does not exist", _curate("promises-late", lambda s: None), _put_it_there),
    "an-empty-dataset": Case("DatasetEmpty", r"no usable turns \(there were none\)", _curate("promises-empty", lambda s: s.empty), _turns),
    "changed-data": Case(
        "DigestMismatch",
        rf"has digest sha256:[0-9a-f]{{64}}, but {WRONG} was asked for",
        _curate("promises-turns", lambda s: WRONG),
        _turns,
    ),
    "a-model-without-weights": Case(
        "ModelInvalid",
        r"safetensors",
        _sft(lambda s: {"model": {"type": "Uri", "uri": f"{objects.STORE}/promises-no-weights", "digest": s.broken}}),
        _spec(lambda s: {"model": objects.model(s.base)}),
    ),
    "a-misspelt-parameter": Case(
        "InvalidParameter",
        r"parameters.maxagedays is not known; the nearest known: maxAgeDays",
        _curate("promises-turns", lambda s: s.turns, parameters={"maxagedays": 30}),
        _spec(lambda s: {"parameters": {"maxagedays": None, "maxAgeDays": 30}}),
    ),
    "too-little-memory": Case(
        "OutOfMemory",
        r"after 2 attempts of the same size: raise spec.resources.limits.memory \(now 160Mi\)",
        _sft(lambda s: {"resources": {"requests": {"cpu": "50m", "memory": "160Mi"}, "limits": {"memory": "160Mi"}}}),
        _spec(lambda s: {"resources": objects.SMALL}),
        attempts=2,
    ),
    "an-image-that-is-nowhere": Case(
        "ImagePullFailed",
        r"image localhost/flywheel/nowhere:dev can't be pulled .* push the image, or correct spec.image",
        _curate("promises-turns", lambda s: s.turns, image="localhost/flywheel/nowhere:dev"),
        _spec(lambda s: {"image": None}),
        phase="Pending",
    ),
}
mended: dict[str, Body] = {}


@pytest.fixture(scope="module")
def runs(store: Store, asked: float) -> Store:
    """All runs are asked for at once: they share the machine, and the suite its time."""
    for name, case in CASES.items():
        space.apply(case.make(name, store))
    return store


def fail_and_mend(name: str, store: Store) -> Body:
    """The run when it said that it can't go on; it has been mended since."""
    case = CASES[name]
    if name not in mended:
        said_so, ended = reason("Succeeded", case.reason), phase("Failed", "Succeeded")
        body = watch("trainingrun", name, lambda b: said_so(b) or ended(b), timeout=PATIENCE).last
        assert said_so(body), f"{name} ended with {condition(body, 'Succeeded')} instead of {case.reason}"
        mended[name] = _described(name, said_so)
        case.mend(name, store)
    return mended[name]


def _described(name: str, said_so: Until) -> Body:
    """The run, and what `kubectl describe` shows of that very state: the kubelet's words about an image change from try to try."""
    for _ in range(30):
        body = get("trainingrun", name)
        text = space.kubectl("describe", "trainingrun", name)
        same = get("trainingrun", name)["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]
        if same and said_so(body):
            return {**body, "described": text}
    raise Late(f"trainingrun {name} never stood still; last: {condition(body, 'Succeeded')}")


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_cannot_go_on_says_why_and_what_to_do(runs: Store, name: str) -> None:
    case, body = CASES[name], fail_and_mend(name, runs)
    told = condition(body, "Succeeded")
    assert re.search(case.words, told["message"]), told["message"]
    assert status(body)["phase"] == case.phase
    assert told["status"] == ("False" if case.phase == "Failed" else "Unknown")
    assert condition(body, "Progressing")["status"] == "False"
    assert len(status(body)["attempts"]) == case.attempts
    assert case.reason in body["described"]
    assert told["message"][:60] in " ".join(body["described"].split())


@pytest.mark.parametrize("name", CASES)
def test_a_mended_run_goes_on_to_its_artifact(runs: Store, name: str) -> None:
    before = len(status(fail_and_mend(name, runs))["attempts"])
    ended = phase("Succeeded", "Failed")
    # Until the operator has seen the mend, the state is that of the attempt before.
    body = watch("trainingrun", name, lambda b: ended(b) and len(status(b)["attempts"]) > before, timeout=PATIENCE).last
    attempts = status(body)["attempts"]
    assert status(body)["phase"] == "Succeeded", condition(body, "Succeeded")
    assert [a["number"] for a in attempts] == list(range(1, before + 2))
    made = status(body)["artifact"]
    assert data.digest_of(made["uri"]) == made["digest"]


def test_a_run_shows_its_progress_and_its_artifact_is_what_its_digest_says(trained: Watched) -> None:
    steps = [p["step"] for body in trained.seen if (p := status(body).get("progress")) and status(body)["phase"] == "Running"]
    assert any(0 < step < STEPS for step in steps), f"steps seen while it ran: {steps}"
    assert steps == sorted(steps)
    final = status(trained.last)
    assert (final["progress"]["step"], final["progress"]["percent"]) == (STEPS, 100)
    assert final["metrics"]["loss_last"] < final["metrics"]["loss_first"]
    assert data.digest_of(final["artifact"]["uri"]) == final["artifact"]["digest"]
    assert final["artifact"]["uri"].endswith(final["artifact"]["digest"].replace(":", "-"))


def test_a_job_that_is_deleted_by_hand_is_followed_by_another_attempt(store: Store) -> None:
    space.apply(objects.sft("deleted-job", store.base, store.sft, steps=20))
    job = status(watch("trainingrun", "deleted-job", phase("Running"), timeout=PATIENCE).last)["attempts"][0]["job"]
    space.kubectl("delete", "job", job, "--wait=false")
    body = watch("trainingrun", "deleted-job", phase("Succeeded", "Failed"), timeout=PATIENCE).last
    first, second = status(body)["attempts"]
    assert (first["reason"], first["counted"]) == ("Interrupted", False)
    assert f"Job {job} was deleted" in first["message"]
    assert second["reason"] == "Succeeded"


def test_a_suspended_run_gives_its_pod_back_and_goes_on_from_its_checkpoint(store: Store) -> None:
    name = "paused"
    space.apply(objects.sft(name, store.base, store.sft, steps=STEPS))
    watch("trainingrun", name, lambda b: (status(b).get("progress") or {}).get("step", 0) >= 5, timeout=PATIENCE)
    patch("trainingrun", name, {"spec": {"suspend": True}})
    body = watch("trainingrun", name, phase("Suspended", "Succeeded", "Failed"), timeout=30).last
    assert status(body)["phase"] == "Suspended", "the run was over before it was suspended: give it more STEPS"
    space.kubectl("wait", "--for=delete", "pod", "-l", f"modelflywheel.dev/training-run={name}", "--timeout=60s", timeout=70)
    paused = get("trainingrun", name)
    assert status(paused)["phase"] == "Suspended"
    patch("trainingrun", name, {"spec": {"suspend": False}})
    watched = watch("trainingrun", name, phase("Succeeded", "Failed"), timeout=PATIENCE)
    steps = [p["step"] for body in watched.seen if (p := status(body).get("progress")) and status(body)["phase"] == "Running"]
    assert steps, "no progress was seen after it went on"
    assert min(steps) >= 5, f"steps seen after it went on: {steps}"
    logs = space.kubectl("logs", "--tail=-1", "-l", f"batch.kubernetes.io/job-name={status(watched.last)['attempts'][0]['job']}")
    resumed = re.search(r"resuming at step (\d+)", logs)
    assert resumed, logs[-2000:]
    assert int(resumed[1]) >= 5
    assert len(status(watched.last)["attempts"]) == 1


def test_no_run_leaves_a_job_that_lives_on_and_the_operator_never_restarts(runs: Store, operator: OperatorPod) -> None:
    for job in space.children("jobs", "modelflywheel.dev/training-run"):
        watch("job", job["metadata"]["name"], lambda b: not status(b).get("active"), timeout=30)
    operator.no_restarts()
