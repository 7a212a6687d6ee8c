"""How far a run is, for the operator and for Prometheus."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from flywheel_trainers.progress import Progress, serve


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_rest_is_estimated_from_the_steps_of_this_attempt_only(clock: Clock) -> None:
    progress = Progress(clock)
    progress.begin("Training", 100, first_step=40)
    assert progress.snapshot()["etaSeconds"] is None
    clock.now += 10
    progress.step(50, tokens=500, metrics={"loss": 0.5})
    assert progress.snapshot() == {
        "phase": "Training",
        "step": 50,
        "totalSteps": 100,
        "percent": 50.0,
        "etaSeconds": 50.0,
        "tokensPerSecond": 50.0,
        "metrics": {"loss": 0.5},
    }


@pytest.fixture
def address(clock: Clock) -> Iterator[str]:
    progress = Progress(clock)
    progress.begin("Training", 10)
    progress.step(3, metrics={'rewards/a"b': 1.5})
    server = serve(progress, 0)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def get(url: str) -> str:
    return str(urllib.request.urlopen(url, timeout=5).read().decode())


def test_progress_health_and_metrics_are_served(address: str) -> None:
    assert json.loads(get(f"{address}/progress"))["step"] == 3
    assert get(f"{address}/healthz") == "ok\n"
    metrics = get(f"{address}/metrics")
    assert 'flywheel_trainer_step{phase="Training"} 3\n' in metrics
    assert 'flywheel_trainer_metric{name="rewards/a\\"b"} 1.5\n' in metrics


def test_another_path_is_not_found(address: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{address}/elsewhere")


def test_saving_does_not_send_a_finished_run_back_to_nothing(clock: Clock) -> None:
    progress = Progress(clock)
    progress.begin("Training", 100)
    clock.now += 10
    progress.step(100)
    progress.enter("Saving")
    shown = progress.snapshot()
    assert (shown["phase"], shown["step"], shown["percent"]) == ("Saving", 100, 100.0)
