"""What is read of a Pod: its own container tells, whoever else lives in it."""

from __future__ import annotations

from typing import Any

import pytest

from flywheel.plan.kube import pod_state

RUNNING = {"running": {"startedAt": "2026-11-23T12:00:00Z"}}
STARTING = {"waiting": {"reason": "PodInitializing"}}
LABEL = "modelflywheel.dev/component"


def ended(code: int, message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "reason": "Completed" if code == 0 else "Error"}}


def container(name: str, state: dict[str, Any], restarts: int = 0) -> dict[str, Any]:
    return {"name": name, "state": state, "restartCount": restarts}


def pod(component: str | None, *containers: dict[str, Any], init: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """As the kubelet reports it: its statuses are sorted by name."""
    status = {"phase": "Running", "containerStatuses": sorted(containers, key=lambda c: c["name"]), "initContainerStatuses": list(init)}
    return {"metadata": {"name": "p", "labels": {LABEL: component} if component else {}}, "status": status}


def test_a_sidecar_that_sorts_first_is_not_taken_for_the_trainer() -> None:
    state = pod_state(pod("trainer", container("trainer", ended(0, "the result")), container("istio-proxy", RUNNING)))
    assert (state.exit_code, state.termination_message) == (0, "the result")


@pytest.mark.parametrize(("component", "main"), [("trainer", "trainer"), ("vllm", "vllm"), ("router", "agent"), ("collector", "collector")])
def test_restarts_are_those_of_the_pods_own_container(component: str, main: str) -> None:
    assert pod_state(pod(component, container(main, RUNNING, 1), container("a-mesh", RUNNING, 9))).restarts == 1


def test_a_sidecar_alone_says_nothing_of_a_trainer_that_has_no_status_yet() -> None:
    state = pod_state(pod("trainer", container("istio-proxy", ended(1))))
    assert (state.exit_code, state.restarts, state.started) == (None, 0, None)


def test_a_model_that_fails_its_check_is_told_and_its_restarts_count() -> None:
    check = container("verify-model", ended(65, "DigestMismatch"), 3)
    state = pod_state(pod("vllm", container("vllm", STARTING), init=(check,)))
    assert (state.exit_code, state.termination_message, state.restarts) == (65, "DigestMismatch", 3)


def test_a_sidecar_among_the_init_containers_says_nothing_once_the_trainer_has_run() -> None:
    proxy = container("istio-proxy", ended(143), 2)
    state = pod_state(pod("trainer", container("trainer", ended(0, "the result")), init=(proxy,)))
    assert (state.exit_code, state.termination_message, state.restarts) == (0, "the result", 0)


def test_the_image_that_a_pod_ran_is_its_own_containers() -> None:
    own = {**container("trainer", RUNNING), "imageID": "registry.example/trainer@sha256:" + "1" * 64}
    mesh = {**container("istio-proxy", RUNNING), "imageID": "docker.io/proxy@sha256:" + "2" * 64}
    assert pod_state(pod("trainer", own, mesh)).image_id == own["imageID"]
    assert pod_state(pod("trainer", container("trainer", STARTING))).image_id is None
