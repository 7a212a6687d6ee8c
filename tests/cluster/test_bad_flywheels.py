"""What a real API server says to typical mistakes in a Flywheel's laps, budgets and adoption."""

from __future__ import annotations

import pytest

from tests.cluster.api_server import ApiServer
from tests.cluster.objects import Object, flywheel
from tests.cluster.test_bad_objects import DURATION_SAYS

pytestmark = pytest.mark.cluster
NO_MODEL = "is not the name of a model; write such as companion or org/model-8B, letters or digits at both ends"

# what the mistake is: (object, field in the error, words of the error)
FLYWHEEL_MISTAKES: dict[str, tuple[Object, str, str]] = {
    "a backoff begins above its maximum": (
        flywheel(backoff={"base": "48h"}),
        "spec.backoff.base",
        "backoff.base 48h is longer than backoff.max 24h; raise max or lower base",
    ),
    "a backoff is in days": (flywheel(backoff={"max": "7d"}), "spec.backoff.max", f"'7d' {DURATION_SAYS}"),
    "a backoff waits for no failure": (flywheel(backoff={"after": 0}), "spec.backoff.after", "should be greater than or equal to 1"),
    "laps are to run side by side": (
        flywheel(concurrencyPolicy="Allow"),
        "spec.concurrencyPolicy",
        'Unsupported value: "Allow": supported values: "Forbid", "Replace"',
    ),
    "a lap must start at once": (
        flywheel(trigger={"schedule": "0 3 * * *", "startingDeadline": "0s"}),
        "spec.trigger.startingDeadline",
        "'0s' must be longer than zero, such as 30s",
    ),
    "a GPU budget is negative": (flywheel(gpuBudget=-1), "spec.gpuBudget", "should be greater than or equal to 0"),
    "an adopted Deployment has no name": (flywheel(adopt={"port": 8000}), "spec.adopt.deployment", "Required value"),
    "an adopted Deployment is named by its kind": (
        flywheel(adopt={"deployment": "deployment/llama"}),
        "spec.adopt.deployment",
        "'deployment/llama' is not the name of an object; write a-z, 0-9, '-' and '.'",
    ),
    "an adopted Deployment listens nowhere": (
        flywheel(adopt={"deployment": "llama", "port": 0}),
        "spec.adopt.port",
        "should be greater than or equal to 1",
    ),
    "a model's name has a space": (flywheel(serving={"modelName": "my model"}), "spec.serving.modelName", f"'my model' {NO_MODEL}"),
    "a model's name is an argument": (flywheel(serving={"modelName": "--port"}), "spec.serving.modelName", f"'--port' {NO_MODEL}"),
}
FINE = [
    flywheel(serving={"modelName": "meta-llama/Llama-3.1-8B-Instruct"}),
    flywheel(adopt={"deployment": "llama"}),
    flywheel(gpuBudget=0),
    flywheel(backoff={"after": 1, "base": "24h"}, concurrencyPolicy="Replace"),
    flywheel(trigger={"schedule": "0 3 * * *", "startingDeadline": "10m"}),
]


@pytest.mark.parametrize("mistake", FLYWHEEL_MISTAKES)
def test_a_bad_flywheel_is_refused_with_field_value_and_mend(apiserver: ApiServer, mistake: str) -> None:
    body, field, words = FLYWHEEL_MISTAKES[mistake]
    answer = apiserver.check(body)
    assert not answer.accepted, f"{mistake}: accepted"
    assert field in answer.error
    assert words in answer.error


@pytest.mark.parametrize("body", FINE, ids=range(len(FINE)))
def test_a_good_flywheel_is_accepted(apiserver: ApiServer, body: Object) -> None:
    answer = apiserver.check(body)
    assert answer.accepted, answer.error
