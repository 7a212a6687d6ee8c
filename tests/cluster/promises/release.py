"""The operator's Helm release, as its administrator handles it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from dev.demo import install, kube
from tests.cluster.promises.operator_pod import SYSTEM, OperatorPod

CHART = install.ROOT / "helm/flywheel"
NAME = "flywheel"


def install_released(tree: Path, tag: str) -> None:
    """An earlier release: its CRDs, its chart, its operator."""
    command = [sys.executable, "-m", "dev.cluster", "released", str(tree), tag]
    done = subprocess.run(command, cwd=install.ROOT, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    kube.kubectl("replace", "-f", str(tree / "helm/flywheel/crds"))
    helm("upgrade", NAME, str(tree / "helm/flywheel"), "--set", f"image.tag={tag}")


def helm(*arguments: str) -> None:
    """Run Helm on the release and wait for its operator."""
    kube.run("helm", *arguments, "-n", SYSTEM, timeout=300)
    if arguments[0] != "uninstall":
        OperatorPod().ready()


def image() -> str:
    """Of the operator that the cluster wants now."""
    body = kube.get("deployment", NAME, SYSTEM)
    assert body is not None
    found: str = body["spec"]["template"]["spec"]["containers"][0]["image"]
    return found


def schemas() -> dict[str, Any]:
    """Of our kinds, as the cluster has them."""
    items = json.loads(kube.kubectl("get", "crd", "-o", "json"))["items"]
    ours = [body for body in items if body["spec"]["group"] == "modelflywheel.dev"]
    return {body["metadata"]["name"]: body["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for body in ours}
