"""run.json may be written by anybody: every hostile value ends in InvalidConfig with a message that names the place."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_trainers import config
from flywheel_trainers.errors import RunError

GOOD: dict[str, Any] = {
    "apiVersion": config.API_VERSION,
    "run": {"namespace": "demo", "name": "g1-sft", "uid": "u", "attempt": 1},
    "method": "SFT",
    "seed": 17,
    "model": {"uri": "file:///flywheel/artifacts/x", "digest": "sha256:" + "0" * 64},
    "datasets": [{"name": "train", "uri": "file:///data", "subset": "sft", "weight": 0.5}],
    "rewards": [{"name": "r", "role": "Judge", "uri": "builtin:question-mark"}],
    "adapter": {"rank": 8, "alpha": 16},
    "parameters": {"maxSteps": 5},
    "output": {"uri": "file:///flywheel/artifacts"},
    "checkpoint": {"uri": "file:///flywheel/checkpoints/u", "everySteps": 20, "keep": 2},
    "progress": {"port": 8080},
}


def test_a_full_configuration_is_read() -> None:
    read = config.parse(GOOD)
    assert (read.method, read.seed, read.progress_port) == ("SFT", 17, 8080)
    assert read.datasets[0].weight == 0.5
    assert read.rewards[0].role == "Judge"
    assert read.checkpoint is not None
    assert read.checkpoint.every_steps == 20


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("apiVersion",), "trainers/v0", "apiVersion"),
        (("run",), None, "run.json.run"),
        (("method",), ["SFT"], "method"),
        (("seed",), -1, "seed"),
        (("seed",), True, "seed"),
        (("seed",), 1.5, "seed"),
        (("model", "uri"), "http:/nothing here", "model.uri"),
        (("model", "uri"), "file://relative", "model.uri"),
        (("model", "uri"), "file:///a/../../etc", "model.uri"),
        (("model", "uri"), "builtin:question-mark", "model.uri"),
        (("model", "digest"), "sha256:XYZ", "model.digest"),
        (("datasets", 0, "subset"), "../../etc/passwd", "datasets[0].subset"),
        (("datasets", 0, "weight"), float("inf"), "datasets[0].weight"),
        (("datasets", 0, "weight"), 0, "datasets[0].weight"),
        (("rewards", 0, "role"), "Boss", "rewards[0].role"),
        (("datasets",), {}, "datasets"),
        (("checkpoint", "everySteps"), 0, "checkpoint.everySteps"),
        (("progress", "port"), 99999, "progress.port"),
        (("output", "uri"), "x" * 5000, "output.uri"),
    ],
)
def test_a_hostile_value_is_refused_and_its_place_is_named(path: tuple[Any, ...], value: Any, named: str) -> None:
    document: Any = copy.deepcopy(GOOD)
    target = document
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(RunError) as caught:
        config.parse(document)
    assert caught.value.reason == "InvalidConfig"
    assert caught.value.exit_code == 64
    assert named in caught.value.message


def test_an_unknown_field_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(RunError, match=r"did you mean datasets\?"):
        config.parse({**GOOD, "dataset": []})


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s))
)
def test_nothing_but_a_run_error_ever_comes_out(document: object) -> None:
    with pytest.raises(RunError):
        config.parse(document)
