"""A service and its users: what serves outlives what decided, and a candidate that leaves takes nobody with it.

The tests tell one story from the first champion to the deletion of the Flywheel; each needs those before it.
"""

from __future__ import annotations

import datetime as dt
import json

import pytest

from tests.cluster.promises import objects, space
from tests.cluster.promises.conftest import Store
from tests.cluster.promises.objects import SERVICE
from tests.cluster.promises.operator_pod import OperatorPod
from tests.cluster.promises.space import Body, Watched, condition, get, kubectl, patch, phase, status, watch
from tests.cluster.promises.users import access_log, crowd, one_reply, served

pytestmark = pytest.mark.cluster
CANDIDATE, LAP = "rescued", "lap-1"
CUTOVER_LIMIT = 2.0  # seconds from the decision to the last request that reached the candidate


def _weights(body: Body) -> tuple[int, int | None]:
    weights = status(body).get("weights") or {}
    return weights.get("intended", 0), weights.get("acknowledged")


def _arms() -> dict[str, Body]:
    return {
        arm["metadata"]["name"]: arm
        for arm in space.children("deployments", f"modelflywheel.dev/flywheel={SERVICE},modelflywheel.dev/component=vllm")
    }


@pytest.fixture(scope="module")
def candidate(trained: Watched) -> Body:
    """A model that is not the champion's."""
    artifact: Body = status(trained.last)["artifact"]
    return artifact


# ------------------------------------------------------------------------------------------------------- a service


def test_a_flywheel_serves_its_base_to_users(champion: Body) -> None:
    reply = one_reply()
    assert reply["status"] == 200, reply
    assert isinstance(reply["text"], str)
    assert reply["generation"] == champion["generation"] == f"{SERVICE}-initial"


def test_objects_can_be_asked_for_by_name_and_all_at_once(champion: Body, candidate: Body) -> None:
    watch("flywheel", SERVICE, phase("Serving"), timeout=60)
    header, row = kubectl("get", "flywheel", SERVICE).splitlines()
    assert header.split()[:3] == ["NAME", "PHASE", "CHAMPION"]
    assert row.split()[:3] == [SERVICE, "Serving", champion["generation"]]
    everything = kubectl("get", "modelflywheel")
    assert f"flywheel.modelflywheel.dev/{SERVICE}" in everything
    assert "trainingrun.modelflywheel.dev/trained" in everything


def test_explain_tells_what_an_analysis_is() -> None:
    text = kubectl("explain", "rollouts.modelflywheel.dev.spec.analysis")
    assert "When and how the verdict is reached" in text
    fields = ("interval", "window", "horizon", "alpha", "minimumUsers")
    assert all(f"  {name}\t" in text for name in fields), text
    assert "whole weeks" in text


# ----------------------------------------------------------------------------------------- a candidate that can't start


@pytest.fixture(scope="module")
def late(champion: Body, candidate: Body) -> Body:
    """A Rollout whose candidate has no time to get ready."""
    space.apply(objects.rollout(CANDIDATE, champion, candidate, serving=objects.serving("--no-such-option", readyTimeout="8s")))
    return _failed_unnoticed(champion)


@pytest.fixture(scope="module")
def broken(late: Body, champion: Body) -> Body:
    """The same with all the time it needs, but with an argument that vLLM doesn't know."""
    patch("rollout", CANDIDATE, {"spec": {"serving": {"readyTimeout": "8m"}, "rollback": {"maxRestarts": 1}}})
    return _failed_unnoticed(champion)


def _failed_unnoticed(champion: Body) -> Body:
    with served(rate=2) as users:  # for as long as it takes, beside a vLLM that starts again and again
        watched = watch("rollout", CANDIDATE, phase("Failed"), timeout=480)
        users.until(lambda replies: len(replies) >= 5)
    assert {reply["generation"] for reply in users.replies} == {champion["generation"]}
    assert {_weights(body)[0] for body in watched.seen} == {0}, "users were to meet a model that never answered"
    told, decision = condition(watched.last, "Promoted"), status(watched.last)["decision"]
    assert (told["status"], told["reason"], decision["verdict"]) == ("False", "CandidateFailed", "Rollback")
    assert decision["message"] in told["message"]
    return watched.last


def test_a_candidate_that_never_gets_ready_fails_and_users_never_notice(late: Body) -> None:
    decision = status(late)["decision"]
    assert decision["reason"] == "NeverReady"
    assert "limit serving.readyTimeout 8s" in decision["message"]


def test_a_candidate_that_crashes_fails_with_its_last_words_and_users_never_notice(broken: Body) -> None:
    decision = status(broken)["decision"]
    assert decision["reason"] == "CrashLoop"
    assert "limit rollback.maxRestarts 1" in decision["message"]
    assert "unrecognized arguments: --no-such-option" in decision["message"], "vLLM's own words are missing"


def test_describe_of_a_failed_rollout_says_why(broken: Body) -> None:
    text = kubectl("describe", "rollout", CANDIDATE)
    assert "CrashLoop" in text
    assert "unrecognized arguments: --no-such-option" in text


def test_a_failed_rollout_goes_on_once_its_spec_is_mended(broken: Body, operator: OperatorPod, champion: Body) -> None:
    patch("rollout", CANDIDATE, {"spec": {"serving": objects.serving()}})
    body = watch("rollout", CANDIDATE, lambda b: _weights(b) == (10, 10), timeout=480).last
    assert status(body)["phase"] == "Progressing"
    first, arms = status(body), _arms()

    # The operator dies while the first step lasts: the experiment, its users and both arms stay what they are.
    print(f"\nthe operator was back {operator.kill():.1f} s after it was killed")
    body = watch("rollout", CANDIDATE, lambda b: _weights(b) == (50, 50), timeout=90).last
    for field in ("experiment", "salt", "windowStartTime", "windowEndTime", "prepareStartTime"):
        assert status(body)[field] == first[field], f"{field} was lost with the operator"
    assert {name: arm["metadata"]["uid"] for name, arm in _arms().items()} == {name: arm["metadata"]["uid"] for name, arm in arms.items()}
    assert len(arms) == 2
    assert [entry["event"] for entry in status(body)["history"]].count("Enrolling") == 1


# ------------------------------------------------------------------------------------------------------------- abort


def test_an_aborted_candidate_gets_no_request_two_seconds_later_and_no_request_fails(broken: Body) -> None:
    watch("rollout", CANDIDATE, lambda b: _weights(b) == (50, 50), timeout=480)
    with served() as users:
        users.until(lambda replies: sum(r["generation"] == CANDIDATE for r in replies) >= 15)
        patch("rollout", CANDIDATE, {"spec": {"abort": True}})
        decision = status(watch("rollout", CANDIDATE, lambda b: bool(status(b).get("decision")), timeout=20).last)["decision"]
        body = watch("rollout", CANDIDATE, phase("RolledBack"), timeout=20).last
        users.ask_more(40)
    decided = dt.datetime.fromisoformat(decision["time"])
    lines = access_log(users.replies)
    assert len(lines) == len(users.replies)
    assert {line["status"] for line in lines} == {200}
    arm = next(a["name"] for a in status(body)["arms"] if a["generation"] == CANDIDATE)
    reached = [dt.datetime.fromisoformat(line["time"]) for line in lines if line["answeredArm"] == arm]
    lag = (max(reached) - decided).total_seconds()
    after = sum(reply["at"] > decided.timestamp() for reply in users.replies)
    print(f"\nabort: the last request reached the candidate {lag:+.3f} s after the decision; {after} of {len(lines)} came later, 0 failed")
    assert after >= 40
    assert lag <= CUTOVER_LIMIT
    assert (decision["verdict"], decision["reason"]) == ("Rollback", "Aborted")


def test_deleting_the_rollout_leaves_the_champion_serving(champion: Body) -> None:
    with served() as users:
        kubectl("delete", "rollout", CANDIDATE, "--wait=true")
        space.gone("rollout", CANDIDATE, timeout=30)
        users.ask_more(24)
    assert {reply["generation"] for reply in users.replies} == {champion["generation"]}
    assert status(get("flywheel", SERVICE))["champion"]["digest"] == champion["digest"]


# ------------------------------------------------------------------------------------------------- a lap that wins, and goes


@pytest.fixture(scope="module")
def promoted(store: Store, champion: Body) -> Body:
    """A Generation whose users stayed longer; it is champion."""
    space.apply(objects.lap(LAP, store.sft))
    body = watch("generation", LAP, lambda b: bool(status(b).get("rollout")) or status(b).get("phase") == "Failed", timeout=180).last
    assert status(body)["phase"] != "Failed", status(body)
    watch("rollout", status(body)["rollout"], lambda b: _weights(b) == (50, 50), timeout=480)
    with crowd(favourite=LAP) as users:
        body = watch("generation", LAP, phase("Promoted", "RolledBack", "Inconclusive", "Rejected", "Failed"), timeout=90).last
    assert not [reply for reply in users.replies if reply["status"] != 200]
    return body


def test_a_model_that_users_stay_with_becomes_champion(promoted: Body) -> None:
    decision = status(promoted)["decision"]
    assert decision["verdict"] == "Promoted", decision
    body = watch(
        "flywheel", SERVICE, lambda b: status(b)["champion"]["generation"] == LAP and status(b)["phase"] == "Serving", timeout=60
    ).last
    assert status(body)["previous"][0]["generation"] == f"{SERVICE}-initial"


def test_deleting_the_winning_generation_leaves_its_model_serving(promoted: Body) -> None:
    arm, rollout = status(get("flywheel", SERVICE))["champion"]["arm"], status(promoted)["rollout"]
    before = _arms()[arm]["metadata"]["uid"]
    with served() as users:
        kubectl("delete", "generation", LAP, "--wait=true")
        space.gone("rollout", rollout, timeout=60)
        users.ask_more(24)
    assert {reply["generation"] for reply in users.replies} == {LAP}
    body = watch("flywheel", SERVICE, phase("Serving"), timeout=60).last
    assert status(body)["champion"]["generation"] == LAP
    assert _arms()[arm]["metadata"]["uid"] == before


def test_deleting_the_flywheel_leaves_its_champion_serving(promoted: Body) -> None:
    with served() as users:
        kubectl("delete", "flywheel", SERVICE, "--wait=true")
        space.gone("flywheel", SERVICE, timeout=30)
        users.ask_more(24)
    assert {reply["generation"] for reply in users.replies} == {LAP}
    pods = json.loads(kubectl("get", "pods", "-l", f"modelflywheel.dev/flywheel={SERVICE}", "-o", "json"))["items"]
    restarts = {pod["metadata"]["name"]: _restarts(status(pod)) for pod in pods}
    assert not any(restarts.values()), restarts


def _restarts(pod: Body) -> int:
    """Of all containers, Envoy among them: a native sidecar counts as an init container."""
    containers = [*(pod.get("containerStatuses") or ()), *(pod.get("initContainerStatuses") or ())]
    return sum(container["restartCount"] for container in containers)
