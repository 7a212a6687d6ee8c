"""The operator is upgraded, rolled back, uninstalled and installed again in the middle of a rollout: users and vLLM never notice.

The tests tell one story, from a rollout under an earlier release to its end under this one; each needs those before it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dev.demo import install, kube
from flywheel.api.crd import crds
from tests.cluster import objects as small
from tests.cluster.promises import objects, release, space
from tests.cluster.promises.conftest import Store
from tests.cluster.promises.objects import SERVICE
from tests.cluster.promises.operator_pod import SYSTEM, OperatorPod
from tests.cluster.promises.space import Body, Watched, get, kubectl, phase, status, watch
from tests.cluster.promises.users import served
from tests.released import RELEASES, unpack

pytestmark = pytest.mark.cluster
CANDIDATE, GONE = "outlasting", "promises-gone"
LASTING = ("experiment", "salt", "windowStartTime", "windowEndTime", "prepareStartTime", "weights", "arms")
RATE = 4.0  # requests a second


@pytest.fixture(scope="module", params=RELEASES)
def earlier(request: pytest.FixtureRequest, store: Store, trained: Watched, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Body]:
    """A rollout with half of the users in it, made from its first object on by the operator of an earlier release."""
    if os.environ.get("FLYWHEEL_OPERATOR_INSTALLED"):
        pytest.skip("the operator is to be left as it is")
    tree: Path = unpack(request.param, tmp_path_factory.mktemp("released"))
    try:
        release.install_released(tree, request.param)
        space.apply(objects.flywheel(store.base))
        champion = status(watch("flywheel", SERVICE, phase("Serving"), timeout=600).last)["champion"]
        space.apply(objects.rollout(CANDIDATE, champion, status(trained.last)["artifact"]))
        watch("rollout", CANDIDATE, lambda b: (status(b).get("weights") or {}).get("acknowledged") == 50, timeout=600)
        yield get("rollout", CANDIDATE)
    finally:
        install.install_operator()


def _vllm() -> dict[str, tuple[str, int]]:
    """Every pod that serves a model: its uid, and how often its containers have ended."""
    pods = space.children("pods", "modelflywheel.dev/component=vllm")
    return {p["metadata"]["name"]: (p["metadata"]["uid"], sum(c["restartCount"] for c in status(p)["containerStatuses"])) for p in pods}


def _state() -> dict[str, Any]:
    """All that an operator could spoil in the middle of a rollout."""
    body = get("rollout", CANDIDATE)
    children = {
        item["metadata"]["name"]: item["metadata"]["uid"]
        for kind in ("trainingruns", "jobs", "controllerrevisions", "deployments")
        for item in json.loads(kubectl("get", kind, "-o", "json"))["items"]
    }
    return {
        "rollout": {field: status(body)[field] for field in LASTING},
        "enrolled": [entry["event"] for entry in status(body)["history"]].count("Enrolling"),
        "routes": json.loads(get("configmap", f"{SERVICE}-routes")["data"]["routes.json"]),
        "champion": {key: status(get("flywheel", SERVICE))["champion"][key] for key in ("generation", "digest", "arm")},
        "vllm": _vllm(),
        "children": children,
    }


@contextmanager
def _unnoticed(*, measured: bool = True) -> Iterator[None]:
    """Whatever happens to the operator meanwhile: no request fails, and afterwards nothing is other than before."""
    before = _state()
    with served(rate=RATE) as users:
        yield
        if measured:  # a pass of the operator that is there now: it has looked at the users once more
            looked = status(get("rollout", CANDIDATE)).get("metrics")
            watch("rollout", CANDIDATE, lambda b: status(b).get("metrics") != looked, timeout=120)
        users.ask_more(20)
    assert _state() == before


def test_an_upgrade_in_mid_rollout_changes_nothing_for_users_and_restarts_no_vllm(earlier: Body) -> None:
    before = release.image()
    with _unnoticed():
        release.helm("upgrade", release.NAME, str(release.CHART), "--reset-values")  # else the earlier release's image would stay
    assert release.image() != before
    wanted = {body["metadata"]["name"]: body["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for body in crds().values()}
    assert release.schemas() == wanted
    assert kube.get("job", "flywheel-crds", SYSTEM) is None, "the hook was left behind"


def test_a_rollback_in_mid_rollout_changes_nothing_either_and_keeps_the_newer_schemas(earlier: Body) -> None:
    before, schemas = release.image(), release.schemas()
    with _unnoticed():
        release.helm("rollback", release.NAME)
    assert release.image() != before
    assert release.schemas() == schemas


def test_an_uninstalled_operator_leaves_what_serves_and_nothing_that_cannot_be_deleted(earlier: Body, store: Store) -> None:
    _give_away()
    with _unnoticed(measured=False):
        release.helm("uninstall", release.NAME)
        kube.wait("the operator to be gone", lambda: OperatorPod().pods() == [], timeout=60)
    assert len(release.schemas()) == 5
    left = kube.kubectl(
        "get", "all,serviceaccounts,roles,rolebindings", "-n", SYSTEM, "-l", "app.kubernetes.io/name=flywheel", "-o", "name"
    )
    assert left.split() == []
    everything = json.loads(kubectl("get", f"{kube.KINDS},jobs,deployments,controllerrevisions,configmaps,services", "-o", "json"))["items"]
    held = [f"{body['kind']} {body['metadata']['name']}" for body in everything if body["metadata"].get("finalizers")]
    assert held == [], "without an operator nobody would take these finalizers away"
    space.apply(objects.sft("unrecorded", store.base, store.sft, suspend=True))
    kubectl("delete", "trainingrun", "unrecorded", "--wait=true", timeout=30)
    kube.kubectl("delete", "namespace", GONE, "--wait=true", "--timeout=120s", timeout=130)


def _give_away() -> None:
    """A namespace with one object of each kind that the operator has seen."""
    kube.kubectl("delete", "namespace", GONE, "--ignore-not-found", "--wait=true")
    install.namespace(GONE)
    for body in (small.flywheel(), small.generation(suspend=True), small.sft(suspend=True), small.reward_model(), small.rollout()):
        space.apply(body, namespace=GONE)
    kube.wait("the operator to see them", lambda: all(status(b) for b in _given_away()), timeout=60)


def _given_away() -> list[Body]:
    items: list[Body] = json.loads(kube.kubectl("get", kube.KINDS, "-n", GONE, "-o", "json"))["items"]
    return items


def test_an_operator_that_is_installed_again_picks_everything_up(earlier: Body) -> None:
    with _unnoticed():
        release.helm("install", release.NAME, str(release.CHART))
    space.patch("rollout", CANDIDATE, {"spec": {"abort": True}})
    with served(rate=RATE) as users:
        watch("rollout", CANDIDATE, phase("RolledBack"), timeout=60)
        users.ask_more(20)
    assert status(get("rollout", CANDIDATE))["decision"]["reason"] == "Aborted"
