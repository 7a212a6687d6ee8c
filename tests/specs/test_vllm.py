"""Manifests of an arm, and the check of its model. `UPDATE_GOLDEN=1 pytest tests/specs/test_vllm.py` rewrites the golden files."""

from __future__ import annotations

import builtins
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from flywheel.api.common import Artifact, Serving, Storage
from flywheel.plan.base import Defaults
from flywheel.specs import verify_model, vllm
from flywheel.specs.vllm import arm_manifests, arm_name, model_path, wants_gpu
from tests.builders import DIGEST

GOLDEN = Path(__file__).parent / "golden"
OWNER = {"apiVersion": "apps/v1", "kind": "ControllerRevision", "name": "companion-initial-abababab", "uid": "uid-1", "controller": True}
GPU = {
    "replicas": 3,
    "args": ["--tensor-parallel-size", "4"],
    "env": [{"name": "VLLM_LOGGING_LEVEL", "value": "WARNING"}],
    "modelName": "companion",
    "readyTimeout": "1h",
    "resources": {"limits": {"nvidia.com/gpu": 4}},
    "priorityClassName": "serving",
}


def manifests(uri: str = "file:///flywheel/artifacts/base", **serving: Any) -> list[dict[str, Any]]:
    return arm_manifests(
        arm="companion-initial-abababab",
        service="companion",
        generation="initial",
        model=Artifact(uri=uri, digest=DIGEST),
        serving=Serving.model_validate(serving),
        storage=Storage(),
        namespace="demo",
        owner_references=[OWNER],
        labels={"modelflywheel.dev/flywheel": "companion"},
        defaults=Defaults(),
    )


def container(**serving: Any) -> dict[str, Any]:
    found: dict[str, Any] = manifests(**serving)[0]["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(("name", "serving"), [("vllm", {"args": ["--enforce-eager"]}), ("vllm_gpu", GPU)])
def test_manifests_are_the_golden_ones(name: str, serving: dict[str, Any]) -> None:
    path, made = GOLDEN / f"{name}.yaml", manifests(**serving)
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(yaml.safe_dump_all(json.loads(json.dumps(made)), sort_keys=False, width=140))
    assert list(yaml.safe_load_all(path.read_text())) == made


def test_the_users_environment_wins_over_the_defaults_of_a_machine_without_gpu() -> None:
    env = {variable["name"]: variable["value"] for variable in container(env=[{"name": "OMP_NUM_THREADS", "value": "8"}])["env"]}
    assert (env["OMP_NUM_THREADS"], env["VLLM_CPU_KVCACHE_SPACE"]) == ("8", "1")
    on_gpu = {variable["name"] for variable in container(resources={"limits": {"nvidia.com/gpu": 1}})["env"]}
    assert on_gpu.isdisjoint(vllm.CPU_ENVIRONMENT)


@pytest.mark.parametrize(
    ("limits", "gpu"),
    [({}, False), ({"memory": "1Gi"}, False), ({"nvidia.com/gpu": "1"}, True), ({"amd.com/gpu": 2}, True), ({"nvidia.com/gpu": 0}, False)],
)
def test_an_accelerator_is_a_resource_of_a_vendor(limits: dict[str, Any], gpu: bool) -> None:
    assert wants_gpu(Serving.model_validate({"resources": {"limits": limits}})) is gpu


def test_the_startup_budget_is_the_ready_timeout() -> None:
    probe = container(readyTimeout="5m")["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 300


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///flywheel/artifacts/sha256-1", "/flywheel/artifacts/sha256-1"),
        ("file:///flywheel/a%20b", "/flywheel/a b"),
        ("hf://org/model", "org/model"),
        ("s3://bucket/model", "s3://bucket/model"),
    ],
)
def test_the_model_is_named_as_vllm_wants_it(uri: str, path: str) -> None:
    assert model_path(uri) == path


def test_a_model_that_is_not_on_the_store_may_be_fetched_and_is_not_checked() -> None:
    spec = manifests("hf://org/model")[0]["spec"]["template"]["spec"]
    assert "initContainers" not in spec
    assert "HF_HUB_OFFLINE" not in {variable["name"] for variable in spec["containers"][0]["env"]}


@pytest.mark.parametrize("generation", ["g1", "companion-initial", "7b", "a.b", "x" * 40, "x" * 63, "-", "Ünlü"])
def test_arm_names_are_service_names(generation: str) -> None:
    name = arm_name(generation, DIGEST)
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])", name)
    assert name.endswith("-abababab")
    assert arm_name("g1", DIGEST) == "g1-abababab"


def test_long_arm_names_that_differ_stay_different() -> None:
    assert arm_name("x" * 60 + "1", DIGEST) != arm_name("x" * 60 + "2", DIGEST)


# ------------------------------------------------------------------------------------------------- the check of a model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "extra").mkdir(parents=True)
    for name, text in {
        "model.safetensors": "weights",
        "config.json": "{}",
        "tokenizer.json": '{"é": 1}',
        "extra/ünlü.txt": "x",
        "README.md": "card",
        "training_args.bin": "pickle",
        ".hidden": "no",
        "manifest.json": "{}",
    }.items():
        (directory / name).write_text(text)
    return directory


def verify(directory: Path, digest: str, tmp_path: Path) -> tuple[int, dict[str, str]]:
    log = tmp_path / "termination-log"
    done = subprocess.run(
        [sys.executable, "-c", verify_model.SCRIPT, str(directory), digest],
        env={"FLYWHEEL_TERMINATION_LOG": str(log)},
        capture_output=True,
        check=False,
    )
    return done.returncode, json.loads(log.read_text())["error"] if log.exists() else {}


def test_the_check_knows_the_trainers_digest(model: Path, tmp_path: Path) -> None:
    digests = pytest.importorskip("flywheel_trainers.digests")
    assert verify(model, digests.directory_digest(model), tmp_path) == (0, {})


def test_a_changed_weight_is_found(model: Path, tmp_path: Path) -> None:
    code, error = verify(model, DIGEST, tmp_path)
    assert (code, error["reason"]) == (65, "DigestMismatch")
    assert DIGEST in error["message"]
    assert str(model) in error["message"]


@pytest.mark.parametrize(("missing", "said"), [("model.safetensors", "no *.safetensors"), ("config.json", "no config.json")])
def test_a_directory_that_is_no_model_is_refused(model: Path, tmp_path: Path, missing: str, said: str) -> None:
    (model / missing).unlink()
    code, error = verify(model, "", tmp_path)
    assert (code, error["reason"]) == (65, "ModelInvalid")
    assert said in error["message"]


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    code, error = verify(tmp_path / "none", DIGEST, tmp_path)
    assert (code, error["reason"]) == (65, "ModelMissing")


# ------------------------------------------------------------------------------------------------- the completion probe


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        reply: tuple[int, bytes] = (200, b'{"choices": [{"text": "x"}]}')

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            code, body = self.reply if asked == {"model": "companion", "prompt": "Hi", "max_tokens": 1} else (404, b"{}")
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body)

        scrapes: tuple[tuple[int, bytes], ...] = ()  # what /metrics says, one after the other; the last word stands
        scraped = 0

        def do_GET(self) -> None:
            said = type(self).scrapes
            code, body = said[min(type(self).scraped, len(said) - 1)]
            type(self).scraped += 1
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def probe(port: int, name: str = "companion") -> int:
    script = vllm.COMPLETION_PROBE.replace(f":{vllm.PORT}/", f":{port}/")
    assert script != vllm.COMPLETION_PROBE
    return subprocess.run([sys.executable, "-c", script, name], capture_output=True, check=False).returncode


def test_ready_means_that_the_model_has_answered_a_completion(server: HTTPServer) -> None:
    port, handler = server.server_port, server.RequestHandlerClass
    assert probe(port) == 0
    assert probe(port, "another") == 1
    for reply in ((200, b'{"choices": []}'), (500, b"{}"), (200, b"no json")):
        handler.reply = reply  # type: ignore[attr-defined]
        assert probe(port) == 1


def test_a_closed_port_is_not_ready() -> None:
    assert probe(1) == 1


# --------------------------------------------------------------------------------------------------------------- the drain


def gauges(running: float, waiting: float = 0) -> tuple[int, bytes]:
    labels = 'engine="0",model_name="companion"'
    text = f"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{{labels}}} {running}
vllm:num_requests_waiting{{{labels}}} {waiting}
vllm:generation_tokens_total{{{labels}}} 1234.0
"""
    return 200, text.encode()


def drain(port: int, seconds: float = 60) -> tuple[float, list[float]]:
    """How long the pod stays, and its sleeps; time is faked, as only sleeping passes it."""
    script = vllm.DRAIN.replace(f":{vllm.PORT}/", f":{port}/")
    assert script != vllm.DRAIN
    slept: list[float] = []
    faked = {"time": SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append), "sys": SimpleNamespace(argv=["-c", str(seconds)])}

    def imported(name: str, *rest: Any) -> Any:
        return faked.get(name) or __import__(name, *rest)

    exec(compile(script, "drain", "exec"), {"__builtins__": {**vars(builtins), "__import__": imported}})
    return sum(slept), slept


def test_an_idle_pod_leaves_after_a_few_seconds_in_which_the_routers_hear_of_it(server: HTTPServer) -> None:
    server.RequestHandlerClass.scrapes = (gauges(0),)  # type: ignore[attr-defined]
    stayed, slept = drain(server.server_port)
    assert slept[0] == vllm.SETTLE_SECONDS
    assert stayed <= vllm.SETTLE_SECONDS + 2


@pytest.mark.parametrize("busy", [gauges(2), gauges(0, waiting=1)])
def test_a_pod_that_answers_somebody_stays_until_it_has_been_quiet_twice(server: HTTPServer, busy: tuple[int, bytes]) -> None:
    server.RequestHandlerClass.scrapes = (busy,) * 20 + (gauges(0), busy, gauges(0))  # type: ignore[attr-defined]
    assert drain(server.server_port)[0] == vllm.SETTLE_SECONDS + 24


@pytest.mark.parametrize("said", [gauges(1), (200, b"# no such series")])
def test_a_stream_without_end_or_a_server_that_keeps_no_count_gets_the_whole_drain_and_no_more(
    server: HTTPServer, said: tuple[int, bytes]
) -> None:
    server.RequestHandlerClass.scrapes = (said,)  # type: ignore[attr-defined]
    assert drain(server.server_port, 60)[0] == 60


def test_a_dead_server_keeps_nobody_waiting(server: HTTPServer) -> None:
    server.RequestHandlerClass.scrapes = ((500, b""),)  # type: ignore[attr-defined]
    assert drain(server.server_port)[0] <= vllm.SETTLE_SECONDS + 2
    assert drain(1)[0] <= vllm.SETTLE_SECONDS + 2


@pytest.mark.parametrize(("asked", "seconds"), [("10m", 600), ("90s", 90), ("1500ms", vllm.SETTLE_SECONDS)])
def test_a_pod_is_not_killed_before_its_drain_is_over(asked: str, seconds: int) -> None:
    spec = manifests(drain=asked)[0]["spec"]["template"]["spec"]
    *_, given = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert given == str(seconds)
    assert spec["terminationGracePeriodSeconds"] >= seconds + 60
