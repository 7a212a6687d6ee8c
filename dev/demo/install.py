"""What a user would install: the chart, a Prometheus, a claim, a base model."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from dev.demo import kube
from dev.demo.live import View
from dev.demo.traffic import MANIFESTS, manifest

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("FLYWHEEL_CACHE", Path.home() / ".cache/flywheel"))
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "flywheel-data", "namespace": "demo"},
    "spec": {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "",
        "volumeName": "flywheel-data",
        "resources": {"requests": {"storage": "10Gi"}},
    },
}
DISCOVERY = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "prometheus-discovery", "namespace": "flywheel-system"},
    "data": {"discovery.py": Path(__file__).with_name("discovery.py").read_text()},
}
RULES = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "prometheus-rules", "namespace": "flywheel-system"},
    "data": {"alerts.yaml": (ROOT / "helm/flywheel/files/alerts.yaml").read_text()},
}
LIGHT = "localhost/flywheel/collector:dev"  # any image with a shell and tar
BASE_RECIPE = ("trainers/flywheel_trainers/tiny.py", "trainers/flywheel_trainers/corpus.py", "requirements/ml.lock")
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass(frozen=True)
class Model:
    """A model artifact."""

    name: str
    digest: str


def install(view: View) -> Model:
    """Install everything into the cluster that KUBECONFIG names; start from an empty namespace."""
    view.say("install: operator by Helm, Prometheus, a claim")
    clear()
    namespace("demo")
    install_operator()
    kube.apply(CLAIM)
    view.say("install: the base model, made once and cached")
    return put_base_model("demo")


def namespace(name: str) -> None:
    """A namespace whose pods must keep to the restricted Pod Security standard."""
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})


def install_operator() -> None:
    """CRDs, the chart, Prometheus and Alertmanager in `flywheel-system`, from here; the operator starts anew, for its image may be."""
    namespace("flywheel-system")
    # The chart would leave the CRDs of another checkout, if that has more fields.
    kube.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    unlock_release()
    how = ("--skip-crds", "--reset-values")  # Helm would keep what was set before, such as another image
    kube.run("helm", "upgrade", "--install", "flywheel", str(ROOT / "helm/flywheel"), "-n", "flywheel-system", *how, timeout=300)
    kube.kubectl("rollout", "restart", "deployment", "-n", "flywheel-system", "-l", "app.kubernetes.io/name=flywheel")
    install_prometheus()
    for name in ("prometheus", "flywheel"):
        kube.kubectl("rollout", "status", f"deployment/{name}", "-n", "flywheel-system", "--timeout=180s", timeout=190)


def install_prometheus() -> None:
    """A Prometheus with the chart's alerts, and an Alertmanager; Prometheus starts anew when what it reads is another, and only then."""
    configuration = hashlib.sha256((MANIFESTS / "prometheus.yaml").read_bytes() + json.dumps([DISCOVERY, RULES]).encode()).hexdigest()
    kube.apply(DISCOVERY, RULES, manifest("prometheus.yaml", CONFIGURATION=configuration[:12]), manifest("alertmanager.yaml"))


def unlock_release() -> None:
    """Helm takes a release whose upgrade was killed for one that is still under way, and refuses every other."""
    text = kube.run("helm", "status", "flywheel", "-n", "flywheel-system", "-o", "json", check=False)
    release = json.loads(text) if text.strip() else {"info": {"status": "absent"}}
    if release["info"]["status"].startswith("pending"):
        undo = ("uninstall",) if release["version"] == 1 else ("rollback",)
        kube.run("helm", *undo, "flywheel", "-n", "flywheel-system")


def put_base_model(into: str) -> Model:
    """The base model on the claim of a namespace."""
    model, directory = base_model(into)
    archive = kube.run_bytes("tar", "-C", str(directory), "-c", ".")
    target = f"/flywheel/artifacts/{model.name}"
    kube.in_claim(f"mkdir -p {target} && tar -x -f - -C {target} --no-same-owner", into, image=LIGHT, stdin=archive)
    return model


def clear() -> None:
    """Remove an earlier run's objects and data; the claim's contents go by a pod of their own."""
    if not kube.kubectl("get", "persistentvolumeclaim", "flywheel-data", "-n", "demo", "--ignore-not-found").strip():
        return
    kube.kubectl("delete", kube.KINDS, "--all", "-n", "demo", "--ignore-not-found", check=False)
    kube.kubectl("delete", "deployments,jobs,controllerrevisions,services,configmaps", "--all", "-n", "demo", timeout=180)
    kube.kubectl("delete", "pods", "--all", "-n", "demo", "--force", "--grace-period=0", timeout=180)  # nobody is served any more
    kube.in_claim("rm -rf /flywheel/*", "demo", image=LIGHT)


def base_model(pods: str) -> tuple[Model, Path]:
    """The tiny base model: trained once, in a pod of the trainers' image in the namespace `pods`, and kept in the cache by its recipe."""
    recipe = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in BASE_RECIPE)).hexdigest()[:12]
    directory = CACHE / "models" / f"tiny-base-{recipe}"
    if not directory.exists():
        script = "python -m flywheel_trainers make-base --output /tmp/base --seed 0 >&2 && tar -C /tmp/base -c ."
        archive = kube.in_claim(script, pods, image="localhost/flywheel/trainer:dev", timeout=600)
        fresh = directory.with_name(f".{directory.name}-{os.getpid()}")
        fresh.mkdir(parents=True, exist_ok=True)
        kube.run_bytes("tar", "-C", str(fresh), "-x", stdin=archive)
        fresh.rename(directory)
    digest = json.loads((directory / "manifest.json").read_text())["digest"]
    return Model("sha256-" + digest.removeprefix("sha256:"), digest), directory
