from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from flywheel.runtime.router_agent.endpoints import endpoints_of
from flywheel.runtime.router_agent.kube import KubeApi
from flywheel.runtime.router_agent.services import Services
from flywheel.runtime.router_agent.settings import parse
from flywheel.specs.envoy import Arm, Endpoint


def endpoint_slice(*pods: tuple[str, bool | None], ports: Any = ({"name": "http", "port": 8000},), kind: str = "IPv4") -> dict[str, Any]:
    endpoints = [{"addresses": [address], "conditions": {} if ready is None else {"ready": ready}} for address, ready in pods]
    return {"addressType": kind, "ports": list(ports), "endpoints": endpoints}


def test_pods_of_all_slices_are_taken_once_and_sorted() -> None:
    slices = [endpoint_slice(("10.0.0.2", True)), endpoint_slice(("10.0.0.1", True), ("10.0.0.2", False))]
    assert endpoints_of(slices, 8000) == (Endpoint("10.0.0.1", 8000), Endpoint("10.0.0.2", 8000))


def test_readiness_that_is_unknown_counts_as_ready() -> None:
    assert endpoints_of([endpoint_slice(("10.0.0.1", None), ("10.0.0.2", False))], 8000) == (
        Endpoint("10.0.0.1", 8000, True),
        Endpoint("10.0.0.2", 8000, False),
    )


@pytest.mark.parametrize(
    ("ports", "port"),
    [
        (({"name": "a", "port": 9000}, {"name": "b", "port": 8000}), 8000),
        (({"port": 9000},), 9000),
        (({"name": "metrics", "port": 9100}, {"name": "http", "port": 9000}), 9000),
    ],
    ids=["the Service's number", "the only one", "the one called http"],
)
def test_the_target_port_is_found(ports: Any, port: int) -> None:
    assert endpoints_of([endpoint_slice(("10.0.0.1", True), ports=ports)], 8000) == (Endpoint("10.0.0.1", port),)


@pytest.mark.parametrize(
    "one",
    [
        endpoint_slice(("example.org", True), kind="FQDN"),
        endpoint_slice(("10.0.0.1", True), ports=({"name": "a", "port": 1}, {"name": "b", "port": 2})),
        {"addressType": "IPv4", "ports": None, "endpoints": None},
    ],
    ids=["names", "no port to choose", "nothing in it"],
)
def test_what_can_not_be_reached_is_left_out(one: dict[str, Any]) -> None:
    assert endpoints_of([one], 8000) == ()


async def test_without_api_and_memory_a_service_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def resolve(host: str, port: int, *_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.96.0.7", port))]

    api = KubeApi("http://127.0.0.1:1", Path("/nowhere"))
    services = Services("lab", api, {}, lambda: None, lambda _: None)
    arm = Arm("champion", "initial", "champion-svc")
    try:
        with monkeypatch.context() as patched:
            patched.setattr("flywheel.runtime.router_agent.services.LIST_PATIENCE_SECONDS", 0.01)
            patched.setattr(socket, "getaddrinfo", resolve)
            assert await asyncio.wait_for(services.known([arm], unless=lambda: False), 5)
    finally:
        await api.close()
    assert asked == ["champion-svc.lab.svc"]
    assert services.endpoints() == {"champion-svc": (Endpoint("10.96.0.7", 8000),)}


def test_settings_come_from_the_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"POD_NAME": "p", "POD_NAMESPACE": "lab", "KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    command, settings = parse(["--service", "demo", "--drain-seconds", "90"])
    assert (command, settings.pod, settings.namespace, settings.api) == ("run", "p", "lab", "https://[fd00::1]:6443")
    assert settings.drain_seconds == 90
    assert settings.xds == Path("/run/flywheel/xds")
