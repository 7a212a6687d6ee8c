"""A real Kubernetes API for the tests: the cluster that is up, else etcd and kube-apiserver started for this session.

Without their binaries (PATH, KUBEBUILDER_ASSETS or the cache that `make cluster-up` fills) the tests are skipped, unless
FLYWHEEL_REQUIRE_CLUSTER is set: then they fail, so that CI can't pass by skipping. FLYWHEEL_TEST_API=own starts an own
API server although a cluster is up.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.api_server import ApiServer, find_program, running_cluster, started

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server that has the CRDs of this checkout."""
    cluster = None if os.environ.get("FLYWHEEL_TEST_API") == "own" else running_cluster()
    if cluster is not None:
        cluster.install_crds(REPOSITORY / "crds")
        yield cluster
        return
    missing = [name for name in ("etcd", "kube-apiserver", "kubectl", "openssl") if find_program(name) is None]
    if missing:
        message = f"no cluster is up and {', '.join(missing)} can't be found; run `make cluster-up`"
        (pytest.fail if os.environ.get("FLYWHEEL_REQUIRE_CLUSTER") else pytest.skip)(message)
    directory = tmp_path_factory.mktemp("apiserver")
    with started(directory) as server:
        server.install_crds(REPOSITORY / "crds")
        yield server
    shutil.rmtree(directory, ignore_errors=True)
