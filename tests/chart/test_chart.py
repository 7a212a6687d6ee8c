"""What `helm template` and `helm lint` make of the chart. They need no cluster, but the helm that `make cluster-up` builds.

Without it they are skipped, unless FLYWHEEL_REQUIRE_CLUSTER is set: then they fail, so that CI can't pass by skipping.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from flywheel.plan.base import Defaults
from flywheel.plan.prices import PriceTable
from flywheel.runtime.settings import load_settings
from flywheel.specs.router import role_rules
from tests.cluster.api_server import find_program

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "helm" / "flywheel"
pytestmark = pytest.mark.cluster  # `make test-cluster` has helm, on a bare machine `make test-unit` has not
Manifest = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def _helm_is_there() -> None:
    if find_program("helm") is None:
        message = "helm is neither on PATH nor in the cache of `make cluster-up`"
        (pytest.fail if os.environ.get("FLYWHEEL_REQUIRE_CLUSTER") else pytest.skip)(message)


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(find_program("helm")), *arguments], capture_output=True, text=True, timeout=60, check=False)


def template(*settings: str) -> list[Manifest]:
    options = [word for setting in settings for word in ("--set", setting)]
    done = helm("template", "flywheel", str(CHART), "--namespace", "flywheel-system", "--kube-version", "1.29.0", *options)
    assert done.returncode == 0, done.stderr
    return [body for body in yaml.safe_load_all(done.stdout) if body]


def of_kind(kind: str, manifests: list[Manifest]) -> list[Manifest]:
    return [body for body in manifests if body["kind"] == kind]


def deployment(*settings: str) -> Manifest:
    (only,) = of_kind("Deployment", template(*settings))
    return only


def rules(*settings: str) -> list[Manifest]:
    (only,) = [r for r in of_kind("ClusterRole", template(*settings)) if r["metadata"]["name"] == "flywheel"]
    found: list[Manifest] = only["rules"]
    return found


def test_the_chart_passes_lint() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout


def test_the_defaults_are_the_operators_own() -> None:
    container = deployment()["spec"]["template"]["spec"]["containers"][0]
    environment = {item["name"]: item.get("value") for item in container["env"]}
    defaults = Defaults()
    assert (defaults.prices, "FLYWHEEL_PRICES" in environment) == (PriceTable(), False)
    for field in set(Defaults.__dataclass_fields__) - {"prices"}:
        assert environment[f"FLYWHEEL_{field.upper()}"] == getattr(defaults, field)
    assert environment["FLYWHEEL_WATCH_NAMESPACES"] == ""
    assert container["image"] == defaults.operator_image


@pytest.mark.parametrize(("given", "value"), [("null", ""), ("0", "0"), ("1000000", "1000000")])
def test_a_gpu_budget_reaches_the_operator_and_none_is_none(given: str, value: str) -> None:
    container = deployment(f"gpuBudget={given}")["spec"]["template"]["spec"]["containers"][0]
    assert {item["name"]: item.get("value") for item in container["env"]}["FLYWHEEL_GPU_BUDGET"] == value


def test_the_pod_keeps_to_the_restricted_pod_security_standard() -> None:
    pod = deployment()["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]["memory"] == "512Mi"


def test_probes_ask_what_the_operator_answers() -> None:
    container = deployment()["spec"]["template"]["spec"]["containers"][0]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]


def test_one_replica_is_replaced_not_doubled() -> None:
    assert deployment()["spec"]["replicas"] == 1
    assert deployment()["spec"]["strategy"] == {"type": "Recreate"}


def test_two_replicas_need_leader_election() -> None:
    done = helm("template", str(CHART), "--set", "replicas=2,leaderElection=false")
    assert "replicas is 2, but leaderElection is false" in done.stderr
    assert deployment("replicas=2")["spec"]["replicas"] == 2


def test_the_operator_asks_for_no_wildcard_no_secret_and_no_exec() -> None:
    for rule in rules():
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        assert not {"secrets", "pods/exec", "nodes", "clusterroles", "namespaces"} & set(rule["resources"])
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])


def test_the_operator_may_not_change_what_people_write() -> None:
    verbs = {verb for rule in rules() if "flywheels" in rule["resources"] for verb in rule["verbs"]}
    assert verbs == {"get", "list", "watch"}


def test_the_operator_holds_what_it_grants_to_the_router() -> None:
    """Kubernetes refuses a Role that grants more than its maker holds."""
    for granted in role_rules("companion"):
        for resource in granted["resources"]:
            held = {
                verb
                for rule in rules()
                if resource in rule["resources"] and granted["apiGroups"][0] in rule["apiGroups"]
                for verb in rule["verbs"]
            }
            assert set(granted["verbs"]) <= held, resource


def test_the_operator_may_look_whose_a_thing_is_before_it_applies_it() -> None:
    """Else the first apply could only overwrite blindly, or be refused for ever."""
    applied = ["deployments", "services", "serviceaccounts", "configmaps", "roles", "rolebindings", "poddisruptionbudgets"]
    for resource in [*applied, "trainingruns", "rewardmodels", "rollouts"]:
        verbs = {verb for rule in rules() if resource in rule["resources"] for verb in rule["verbs"]}
        assert {"get", "create", "patch"} <= verbs, resource


def test_namespaced_mode_needs_no_cluster_role_for_the_operator() -> None:
    manifests = template("watchNamespaces={demo,prod}", "rbac.aggregate=false")
    assert of_kind("ClusterRole", manifests) == []
    assert of_kind("ClusterRoleBinding", manifests) == []
    namespaces = {role["metadata"]["namespace"] for role in of_kind("Role", manifests)}
    assert namespaces == {"demo", "prod", "flywheel-system"}
    (pod,) = of_kind("Deployment", manifests)
    environment = {item["name"]: item.get("value") for item in pod["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert environment["FLYWHEEL_WATCH_NAMESPACES"] == "demo,prod"


def test_people_who_may_edit_a_namespace_may_edit_its_flywheels() -> None:
    roles = {role["metadata"]["name"]: role for role in of_kind("ClusterRole", template())}
    assert roles["flywheel-edit"]["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert roles["flywheel-view"]["rules"][0]["verbs"] == ["get", "list", "watch"]


def test_approvals_are_a_right_of_their_own_and_guarded_where_the_api_server_can() -> None:
    (role,) = [r for r in of_kind("ClusterRole", template()) if r["metadata"]["name"] == "flywheel-approve"]
    verbs = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert verbs == {("generations", "approve"), ("rollouts", "promote")}
    aggregated = [label for label in role["metadata"]["labels"] if label.startswith("rbac.authorization.k8s.io/aggregate-to-")]
    assert aggregated == ["rbac.authorization.k8s.io/aggregate-to-admin"]
    assert of_kind("ValidatingAdmissionPolicy", template()) == []  # of Kubernetes 1.29
    newer = helm("template", "flywheel", str(CHART), "--kube-version", "1.30.0").stdout
    manifests = [body for body in yaml.safe_load_all(newer) if body]
    policies = {body["metadata"]["name"] for body in of_kind("ValidatingAdmissionPolicy", manifests)}
    bindings = {body["spec"]["policyName"] for body in of_kind("ValidatingAdmissionPolicyBinding", manifests)}
    assert policies == bindings == {"flywheel-approvals", "flywheel-promotions"}
    assert all(body["spec"]["failurePolicy"] == "Fail" for body in of_kind("ValidatingAdmissionPolicy", manifests))
    off = helm("template", "flywheel", str(CHART), "--kube-version", "1.34.0", "--set", "approvalPolicy.enabled=false").stdout
    assert "ValidatingAdmissionPolicy" not in off


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ("replica=2", "replica"),
        ("prometheus.address=prometheus:9090", "/prometheus/address"),
        ("logLevel=loud", "/logLevel"),
        ("replicas=9", "/replicas"),
        ("prices.perHour.cpu=-1,prices.currency=USD", "/prices/perHour/cpu"),
        ("prices.perHour.cpu=1", "currency"),
        ("prices.perHour.gpu=1,prices.currency=USD", "gpu"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(setting: str, field: str) -> None:
    done = helm("template", str(CHART), "--set", setting)
    assert done.returncode != 0
    assert field in done.stderr


def test_the_operator_reads_the_charts_prices() -> None:
    container = deployment("prices.currency=USD", r"prices.perHour.nvidia\.com/gpu=3")["spec"]["template"]["spec"]["containers"][0]
    environment = {one["name"]: one.get("value", "") for one in container["env"]}
    assert load_settings(environment).defaults.prices == PriceTable("USD", {"nvidia.com/gpu": 3.0})


def test_an_image_can_be_pinned_by_digest() -> None:
    tag = "sha256:" + "a" * 64
    image = deployment(f"image.tag={tag}")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == f"localhost/flywheel/operator@{tag}"


def test_an_older_kubernetes_is_refused() -> None:
    done = helm("template", str(CHART), "--kube-version", "1.28.4")
    assert "chart requires kubeVersion: >=1.29.0-0" in done.stderr


def test_every_value_is_in_the_schema() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(values) <= set(schema["properties"])


def test_nothing_needs_prometheus_operator_or_grafana_unless_it_is_asked_for() -> None:
    kinds = {manifest["kind"] for manifest in template()}
    assert not kinds & {"PrometheusRule", "ServiceMonitor", "ConfigMap"}


def test_the_alerts_of_the_chart_are_those_of_the_rule_file_with_their_templates_untouched() -> None:
    (rule,) = of_kind("PrometheusRule", template("prometheusRule.enabled=true", "prometheusRule.labels.release=monitoring"))
    assert rule["spec"] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    assert rule["metadata"]["labels"]["release"] == "monitoring"


def test_the_dashboard_of_the_chart_is_the_file_under_the_label_that_grafana_looks_for() -> None:
    (config_map,) = of_kind("ConfigMap", template("dashboard.enabled=true"))
    assert json.loads(config_map["data"]["flywheel.json"]) == json.loads((CHART / "files" / "dashboard.json").read_text())
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
