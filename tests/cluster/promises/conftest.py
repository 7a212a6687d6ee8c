"""A namespace of its own with a volume of its own, the operator from the chart, the tiny base model on the claim.

FLYWHEEL_OPERATOR_INSTALLED=1 takes the operator that runs as it is; FLYWHEEL_KEEP=1 leaves the namespace for a look around.
"""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from dev.demo import install, kube
from tests.cluster.api_server import find_program, running_cluster
from tests.cluster.promises import data, objects, space
from tests.cluster.promises.desk import desk_pod
from tests.cluster.promises.operator_pod import OperatorPod
from tests.cluster.promises.space import NAMESPACE, Body

STEPS = 600  # of a run in which something happens: about half a minute


@dataclass(frozen=True)
class Store:
    """What lies on the claim."""

    base: install.Model
    sft: str
    pairs: str
    turns: str
    empty: str
    broken: str


@pytest.fixture(scope="session")
def cluster() -> None:
    """A cluster that runs pods; an API server alone is not enough."""
    server = running_cluster()
    if server is None:
        message = "no cluster is up; run `make cluster-up images`"
        (pytest.fail if os.environ.get("FLYWHEEL_REQUIRE_CLUSTER") else pytest.skip)(message)
    os.environ["KUBECONFIG"] = str(server.kubeconfig)
    for name in ("kubectl", "helm"):
        found = find_program(name)
        assert found is not None, f"{name} can't be found; run `make cluster-up`"
        os.environ["PATH"] = f"{found.parent}:{os.environ['PATH']}"


@pytest.fixture(scope="session")
def operator(cluster: None) -> OperatorPod:
    """The operator of this checkout, installed by Helm and ready."""
    if not os.environ.get("FLYWHEEL_OPERATOR_INSTALLED"):
        install.install_operator()
    pod = OperatorPod()
    pod.ready()
    return pod


@pytest.fixture(scope="session")
def store(operator: OperatorPod) -> Iterator[Store]:
    """The namespace of the promises, and what lies on its claim."""
    with furnished(NAMESPACE) as found:
        yield found


@contextmanager
def furnished(namespace: str) -> Iterator[Store]:
    """A namespace, its claim, the pod to look at it with, and data on it."""
    _remove(namespace)
    install.namespace(namespace)
    subprocess.run([sys.executable, "-m", "dev.cluster", "volume", namespace], cwd=install.ROOT, check=True, capture_output=True)
    kube.apply(objects.claim(namespace))
    kube.apply(desk_pod(namespace))
    space.kubectl("wait", "--for=condition=Ready", f"pod/{space.DESK}", "--timeout=90s", namespace=namespace)
    data.clear(namespace)
    base = install.put_base_model(namespace)
    yield Store(base, **data.prepare(base, namespace))
    if not os.environ.get("FLYWHEEL_KEEP"):
        with _left_behind("data on the claim"):
            data.clear(namespace)
        with _left_behind(f"namespace or volume {namespace}"):
            _remove(namespace)


@pytest.fixture(scope="session")
def asked(store: Store) -> float:
    """The Flywheel exists: its champion starts while the trainers run. The time it was asked for."""
    space.apply(objects.flywheel(store.base))
    return time.monotonic()


@pytest.fixture(scope="session")
def trained(store: Store, asked: float, operator: OperatorPod) -> space.Watched:
    """A run that is watched from its beginning to its artifact, through the death of the operator."""
    space.apply(objects.sft("trained", store.base, store.sft, steps=STEPS))
    begun = space.watch("trainingrun", "trained", lambda b: (space.status(b).get("progress") or {}).get("step", 0) >= 1, timeout=300)
    print(f"\nthe operator was back {operator.kill():.1f} s after it was killed during a run")
    watched = space.watch("trainingrun", "trained", space.phase("Succeeded", "Failed"), timeout=480)
    assert space.status(watched.last)["phase"] == "Succeeded", space.condition(watched.last, "Succeeded")
    ended = dt.datetime.fromisoformat(space.status(watched.last)["attempts"][0]["endTime"])
    assert ended > operator.died, "the run was over before the operator died: give it more STEPS"
    return space.Watched(begun.seen + watched.seen)


@pytest.fixture(scope="session")
def champion(asked: float) -> Body:
    """The Flywheel serves; its champion."""
    body = space.watch("flywheel", objects.SERVICE, lambda b: space.status(b).get("phase") == "Serving", timeout=480).last
    print(f"\nthe champion answered {time.monotonic() - asked:.0f} s after the Flywheel was applied (trainers ran meanwhile)")
    found: Body = body["status"]["champion"]
    return found


@contextmanager
def _left_behind(what: str) -> Iterator[None]:
    """At the end a delay spoils no verdict: it is told, and the next session removes what is left, or fails."""
    try:
        yield
    except (kube.DemoError, subprocess.TimeoutExpired, AssertionError) as error:
        warnings.warn(f"{what} may be left behind: {error}", stacklevel=3)


def _remove(namespace: str) -> None:
    """The namespace and the volume of an earlier run, without waiting for pods to drain."""
    if kube.kubectl("get", "namespace", namespace, "--ignore-not-found").strip():
        _remove_namespace(namespace)
    # A volume that still names the claim of then could not be claimed again; its files stay where they are.
    kube.kubectl("delete", "pv", namespace, "--ignore-not-found", "--wait=true", "--timeout=60s")


def _remove_namespace(name: str) -> None:
    kubectl = partial(space.kubectl, namespace=name)
    kubectl("delete", kube.KINDS, "--all", "--ignore-not-found", "--wait=true", check=False)
    kubectl("delete", "controllerrevisions,deployments,replicasets,jobs", "--all", "--wait=true", timeout=60)
    kubectl("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=true", check=False, timeout=60)
    # The pods are gone without having drained; the claim's protection would notice that a minute later.
    kubectl("patch", "pvc", "flywheel-data", "--type=merge", "-p", '{"metadata":{"finalizers":null}}', check=False)
    kube.kubectl("delete", "namespace", name, "--wait=true", "--timeout=90s", timeout=100)
