"""The chart's hook that brings the CRDs: when it is there, what it may do, and how its pod runs."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path

import pytest
import yaml

from flywheel.api.crd import crds
from tests.chart.test_chart import CHART, Manifest, deployment, helm, of_kind, template

pytestmark = pytest.mark.cluster  # as all tests that need helm


def hooks(*settings: str) -> list[Manifest]:
    return [body for body in template(*settings) if "helm.sh/hook" in (body["metadata"].get("annotations") or {})]


def test_it_runs_before_anything_of_the_release_changes_and_leaves_nothing_behind() -> None:
    found = hooks()
    assert [body["kind"] for body in found] == ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Job"]
    for body in found:
        assert body["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert body["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    weights = [int(body["metadata"]["annotations"]["helm.sh/hook-weight"]) for body in found]
    assert weights == sorted(weights)
    assert weights[-1] > weights[-2], "the Job needs its rights before it starts"


def test_it_may_write_our_crds_and_nothing_else() -> None:
    (role,) = of_kind("ClusterRole", hooks())
    named, unnamed = role["rules"]
    assert named["resourceNames"] == [body["metadata"]["name"] for body in crds().values()]
    assert (named["verbs"], unnamed["verbs"]) == (["get", "update"], ["create"])
    assert {resource for rule in role["rules"] for resource in rule["resources"]} == {"customresourcedefinitions"}
    (binding,) = of_kind("ClusterRoleBinding", hooks())
    assert [subject["name"] for subject in binding["subjects"]] == ["flywheel-crds"]


def test_the_operator_itself_has_no_right_over_crds() -> None:
    for role in of_kind("ClusterRole", template()):
        if "helm.sh/hook" not in (role["metadata"].get("annotations") or {}):
            assert not any("customresourcedefinitions" in rule["resources"] for rule in role["rules"])


def test_its_pod_is_the_operators_image_under_the_restricted_standard() -> None:
    (job,) = of_kind("Job", hooks("image.tag=v2"))
    pod, operator = job["spec"]["template"]["spec"], deployment("image.tag=v2")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == operator["containers"][0]["image"]
    assert pod["securityContext"] == operator["securityContext"]
    assert container["securityContext"] == operator["containers"][0]["securityContext"]
    assert container["resources"]["limits"]["memory"] == "256Mi"
    assert pod["restartPolicy"] == "Never"


def test_its_pod_is_not_taken_for_the_operators() -> None:
    (job,) = of_kind("Job", hooks())
    selector, labels = deployment()["spec"]["selector"]["matchLabels"], job["spec"]["template"]["metadata"]["labels"]
    assert not selector.items() <= labels.items()


@pytest.mark.parametrize("setting", ["crds.upgrade=false", "watchNamespaces={demo}"])
def test_it_can_be_left_out_and_is_where_the_release_has_no_rights_over_the_cluster(setting: str) -> None:
    assert hooks(setting) == []


def test_values_of_a_release_that_knew_no_hook_can_be_reused() -> None:
    done = helm("template", "flywheel", str(CHART), "--set", "crds=null")
    assert done.returncode == 0, done.stderr
    assert "kind: Job" in done.stdout


def test_a_release_fits_into_its_secret() -> None:
    """Helm keeps chart and manifests, compressed, in a Secret of at most 1 MiB."""
    files = [path.read_bytes() for path in sorted(Path(CHART).rglob("*")) if path.is_file()]
    kept = b"".join(base64.b64encode(content) for content in files) + yaml.safe_dump_all(template()).encode()
    assert len(base64.b64encode(gzip.compress(kept))) < 512 * 1024
