"""Which Deployments can be adopted, and what is said of those that can't."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flywheel.api.flywheel import ChampionStatus
from flywheel.api.reasons import Reason
from flywheel.plan.adoption import AdoptedState, adopted_arm, adopted_state, anchor, asked_for, obstacle, service_actions
from flywheel.specs.vllm import arm_name
from tests.plan.test_flywheel import BASE, T0, flywheel

ADOPT = {"deployment": "llama", "port": 8001}
FLYWHEEL = flywheel(adopt=ADOPT)


def deployment(**changes: Any) -> dict[str, Any]:
    spec = {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "llama"}},
        "template": {"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 8001}]}, {"name": "mesh"}]}},
    }
    meta = {"name": "llama", "namespace": "demo", "uid": "theirs", "generation": 3, **changes.pop("metadata", {})}
    return {"metadata": meta, "spec": {**spec, **changes}, "status": {"readyReplicas": 2, "observedGeneration": 3}}


def seen(models: tuple[str, ...] | None = ("demo",), silence: str = "", **changes: Any) -> AdoptedState:
    return replace(adopted_state("arm", deployment(**changes), None), models=models, silence=silence)


def why(state: AdoptedState | None, *, routed: bool = False) -> tuple[Reason, str] | None:
    assert FLYWHEEL.spec.adopt is not None
    return obstacle(FLYWHEEL, FLYWHEEL.spec.adopt, state, routed=routed)


def test_a_deployment_whose_pods_answer_to_the_name_that_candidates_will_have_is_fit() -> None:
    assert why(seen()) is None
    assert why(seen(models=("other", "demo"))) is None
    assert why(seen(models=())) is None  # it does not say, or only to who has its key


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        (None, Reason.STARTING, "has not been looked at yet"),
        (AdoptedState(), Reason.REFERENCE_NOT_FOUND, "Deployment llama does not exist"),
        (seen(metadata={"labels": {"app.kubernetes.io/managed-by": "flywheel-operator"}}), Reason.INVALID_SPEC, "was made by the operator"),
        (
            seen(selector={"matchLabels": {"app": "x"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]}),
            Reason.INVALID_SPEC,
            "use matchLabels alone",
        ),
        (seen(models=None), Reason.STARTING, "has yet to be asked what it serves"),
        (
            seen(models=None, silence="refused"),
            Reason.NOT_READY,
            "on port 8001: refused; correct spec.adopt.port (its containers declare 8001)",
        ),
        (seen(models=("org/Llama",)), Reason.INVALID_SPEC, "set spec.serving.modelName to org/Llama"),
        (seen(metadata={"deletionTimestamp": "now"}), Reason.REFERENCE_NOT_FOUND, "does not exist"),
    ],
)
def test_what_makes_a_deployment_unfit_is_said_with_its_mend(state: AdoptedState | None, reason: Reason, words: str) -> None:
    found = why(state)
    assert found is not None
    assert found[0] is reason
    assert words in found[1]


def test_one_that_users_are_sent_to_is_asked_no_more() -> None:
    assert why(seen(models=None), routed=True) is None
    assert why(seen(models=("org/Llama",)), routed=True) is None


def test_an_adopted_arm_never_has_the_name_of_one_that_the_operator_makes() -> None:
    asked = asked_for(FLYWHEEL)
    assert asked is not None
    assert asked[0] == adopted_arm(FLYWHEEL, BASE) != arm_name("demo-initial", BASE)
    assert len(asked[0]) <= 63
    assert asked_for(flywheel()) is None


def test_the_service_is_applied_only_when_it_is_not_as_it_should_be() -> None:
    champion = ChampionStatus(generation="demo-initial", uri="file:///x", digest=BASE, arm="arm", since=T0, adopted=FLYWHEEL.spec.adopt)
    frozen = {**anchor(FLYWHEEL, champion, []), "metadata": {"name": "arm", "namespace": "demo", "uid": "u-anchor"}}
    assert service_actions(FLYWHEEL, champion, None, seen()) == []
    (applied,) = service_actions(FLYWHEEL, champion, frozen, seen())
    made = applied.manifest
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u-anchor"
    assert made["spec"]["ports"] == [{"name": "http", "port": 8000, "targetPort": 8001, "protocol": "TCP"}]
    standing = adopted_state("arm", deployment(), {**made, "spec": {**made["spec"], "clusterIP": "10.0.0.1"}})
    assert service_actions(FLYWHEEL, champion, frozen, standing) == []
    moved = adopted_state("arm", deployment(selector={"matchLabels": {"app": "new"}}), made)
    (again,) = service_actions(FLYWHEEL, champion, frozen, moved)
    assert again.manifest["spec"]["selector"] == {"app": "new"}
    assert service_actions(FLYWHEEL, champion, frozen, AdoptedState(service=made)) == []
