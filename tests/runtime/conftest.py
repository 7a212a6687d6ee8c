"""A control plane of its own for the tests of the process: an operator that is installed in the cluster must not take part."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.api_server import find_program, started
from tests.processes import end, end_with_parent

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl", "openssl")
CONTROLLERS = "deployment-controller,replicaset-controller,job-controller,garbage-collector-controller,namespace-controller"


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Path]:
    """The kubeconfig of etcd, kube-apiserver and the controllers of workloads, started for this session."""
    missing = [name for name in PROGRAMS if find_program(name) is None]
    if missing:
        message = f"{', '.join(missing)} can't be found; run `make cluster-up`"
        (pytest.fail if os.environ.get("FLYWHEEL_REQUIRE_CLUSTER") else pytest.skip)(message)
    directory = Path(tempfile.mkdtemp(prefix="flywheel-control-plane-"))
    try:
        with started(directory, audit=True) as server:
            server.install_crds(REPOSITORY / "crds")
            with (directory / "controllers.log").open("wb") as log:
                command = [str(find_program("kube-controller-manager")), f"--kubeconfig={server.kubeconfig}", "--leader-elect=false"]
                command += [f"--controllers={CONTROLLERS}", "--bind-address=127.0.0.1", "--secure-port=0"]
                controllers = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=end_with_parent)
            try:
                yield server.kubeconfig
            finally:
                end(controllers)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def stage_kubeconfig(control_plane: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """KUBECONFIG points to it, for the test and for the operator it starts."""
    monkeypatch.setenv("KUBECONFIG", str(control_plane))
    return control_plane
