"""Upgrades of the CRDs on a real API server of their own: the cluster's may be in use.

Its operator's hook can't run there, for there are no pods; what the hook runs, does.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flywheel.api.crd import crds
from tests.cluster.api_server import Answer, ApiServer, find_program, started
from tests.cluster.objects import flywheel, generation, reward_model, rollout, sft
from tests.cluster.test_stored_objects import kept
from tests.released import RELEASES, unpack

pytestmark = pytest.mark.cluster
REPOSITORY = Path(__file__).resolve().parents[2]
OBJECTS = [flywheel(suspend=True), generation(suspend=True), sft(suspend=True), reward_model(), rollout(suspend=True)]
Crd = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    missing = [name for name in ("etcd", "kube-apiserver", "kubectl", "openssl", "helm") if find_program(name) is None]
    if missing:
        message = f"{', '.join(missing)} can't be found; run `make cluster-up`"
        (pytest.fail if os.environ.get("FLYWHEEL_REQUIRE_CLUSTER") else pytest.skip)(message)
    directory = tmp_path_factory.mktemp("upgrades")
    with started(directory) as server:
        yield server
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def bare(server: ApiServer) -> ApiServer:
    """Without our CRDs and releases."""
    server.kubectl("delete", "crd", *(f"{name}.modelflywheel.dev" for name in _plurals()), "--ignore-not-found", "--wait=true")
    server.kubectl("delete", "secrets", "-n", "default", "-l", "owner=helm")
    server.kubectl("delete", "clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/managed-by=Helm")
    server.kubectl("delete", "all,roles,rolebindings,serviceaccounts", "-n", "default", "-l", "app.kubernetes.io/managed-by=Helm")
    return server


def _plurals() -> list[str]:
    return [crd["spec"]["names"]["plural"] for crd in crds().values()]


def helm(server: ApiServer, *arguments: str) -> str:
    environment = {**os.environ, "KUBECONFIG": str(server.kubeconfig)}
    done = subprocess.run(
        [str(find_program("helm")), *arguments, "-n", "default"], capture_output=True, text=True, check=False, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def install_crds(server: ApiServer) -> str:
    """What the chart's hook does."""
    environment = {**os.environ, "KUBECONFIG": str(server.kubeconfig), "PYTHONPATH": str(REPOSITORY / "operator")}
    command = [sys.executable, "-m", "flywheel.runtime.install_crds"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def stored(server: ApiServer, plural: str) -> Crd:
    answer = server.kubectl("get", "crd", f"{plural}.modelflywheel.dev", "-o", "json")
    assert answer.accepted, answer.error
    body: Crd = json.loads(answer.output)
    return body


def schema(body: Crd) -> Any:
    return body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def as_this_release(server: ApiServer) -> list[str]:
    """Kinds whose CRD in the cluster has another schema than this checkout's."""
    return [plural for plural, wanted in zip(_plurals(), crds().values(), strict=True) if schema(stored(server, plural)) != schema(wanted)]


def chart_with(change: Any, tmp_path: Path) -> Path:
    """A chart whose crds/ are this checkout's, changed."""
    chart = tmp_path / "chart"
    (chart / "crds").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: flywheel\nversion: 0.0.1\n")
    for name, body in copy.deepcopy(crds()).items():
        change(body)
        (chart / "crds" / name).write_text(yaml.safe_dump(body))
    return chart


def older(body: Crd) -> None:
    """Without a field that there is now; with a rule that has been given up since."""
    spec = schema(body)["properties"]["spec"]
    del spec["properties"]["suspend"]
    spec.setdefault("x-kubernetes-validations", []).append({"rule": "true", "message": "of old"})


def newer(body: Crd) -> None:
    """With a field that this release doesn't know."""
    schema(body)["properties"]["spec"]["properties"]["mood"] = {"type": "string"}


def test_an_upgrade_brings_the_whole_schema_and_takes_away_what_was_given_up(bare: ApiServer, tmp_path: Path) -> None:
    helm(bare, "install", "flywheel", str(chart_with(older, tmp_path)))
    assert as_this_release(bare) == _plurals()
    assert "of old" in json.dumps(stored(bare, "rollouts"))
    assert install_crds(bare).count(": replaced") == 5
    assert as_this_release(bare) == []
    assert install_crds(bare).count(": unchanged") == 5


def test_by_hand_an_apply_does_the_same(bare: ApiServer, tmp_path: Path) -> None:
    """It may force: versions of a CRD are one value to the API server, so nothing that Helm has put there is left among them."""
    helm(bare, "install", "flywheel", str(chart_with(older, tmp_path)))
    bare.install_crds(REPOSITORY / "crds")
    assert as_this_release(bare) == []


def test_where_there_are_none_they_are_created_and_served_at_once(bare: ApiServer) -> None:
    assert install_crds(bare).count(": created") == 5
    for body in OBJECTS:
        assert bare.check(body).accepted


def test_crds_of_a_newer_release_stay_and_so_does_what_is_stored_by_them(bare: ApiServer, tmp_path: Path) -> None:
    helm(bare, "install", "flywheel", str(chart_with(newer, tmp_path)))
    body = rollout(suspend=True)
    body["spec"]["mood"] = "calm"
    assert bare.apply(body).accepted
    told = install_crds(bare)
    assert told.count("left as it is, for it is of a newer release (this one does not know spec.mood)") == 5, told
    assert _spec(bare, "rollout", "ab")["mood"] == "calm"


@pytest.mark.parametrize("release", RELEASES)
def test_from_an_earlier_chart_to_this_one_and_back_no_stored_object_is_lost(bare: ApiServer, tmp_path: Path, release: str) -> None:
    helm(bare, "install", "flywheel", str(unpack(release, tmp_path) / "helm" / "flywheel"))
    for body in OBJECTS:
        answer = bare.apply(body)
        assert answer.accepted, answer.error
    before = [_spec(bare, body["kind"], body["metadata"]["name"]) for body in OBJECTS]

    install_crds(bare)  # the hook of the upgrade
    helm(bare, "upgrade", "flywheel", str(REPOSITORY / "helm" / "flywheel"), "--no-hooks")
    assert as_this_release(bare) == []
    assert [kept(old, new) for old, new in zip(before, _specs(bare), strict=True)] == [True] * 5
    after = _specs(bare)

    helm(bare, "rollback", "flywheel", "1", "--no-hooks")
    assert as_this_release(bare) == [], "a rollback changed the CRDs"
    assert _specs(bare) == after
    helm(bare, "uninstall", "flywheel", "--no-hooks")
    assert _specs(bare) == after
    for body in OBJECTS:
        answer = bare.kubectl("delete", f"{body['kind'].lower()}s.modelflywheel.dev", body["metadata"]["name"], "--wait=true", timeout=30)
        assert answer.accepted, answer.error


def _spec(server: ApiServer, kind: str, name: str) -> Any:
    answer: Answer = server.kubectl("get", f"{kind.lower()}s.modelflywheel.dev", name, "-o", "json")
    assert answer.accepted, answer.error
    return json.loads(answer.output)["spec"]


def _specs(server: ApiServer) -> list[Any]:
    return [_spec(server, body["kind"], body["metadata"]["name"]) for body in OBJECTS]
