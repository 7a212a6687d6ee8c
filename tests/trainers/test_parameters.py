"""Parameters are refused with the mend in hand, and every method can describe its own."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_trainers import methods, parameters
from flywheel_trainers.errors import RunError
from flywheel_trainers.methods import grpo, sft

METHODS = ["Curate", "Reward", "RejectionSample", "SFT", "DPO", "KTO", "GRPO", "RLOO", "Evaluate", "Record", "GarbageCollect"]


def test_an_unknown_parameter_is_answered_with_the_nearest_known_names() -> None:
    with pytest.raises(RunError, match=r"nearest known: .*learningRate") as caught:
        parameters.parse(sft.Parameters, {"learning_rate": 1e-3})
    assert caught.value.reason == "InvalidParameter"
    assert caught.value.exit_code == 64


@pytest.mark.parametrize(
    "values",
    [
        {"maxSteps": 0},
        {"maxSteps": "10"},
        {"maxSteps": True},
        {"maxSteps": 1.5},
        {"learningRate": float("nan")},
        {"learningRate": None},
        {"schedule": "sideways"},
        {"batchSize": 10**9},
    ],
)
def test_a_value_out_of_range_or_of_another_type_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(RunError, match=r"^parameters\."):
        parameters.parse(sft.Parameters, values)


def test_nested_parameters_are_checked_and_named_by_their_path() -> None:
    assert parameters.parse(grpo.Parameters, {"selection": {"target": 0.55}}).selection.target == 0.55  # type: ignore[union-attr]
    assert parameters.parse(grpo.Parameters, {}).selection is None
    with pytest.raises(RunError, match=r"parameters\.selection\.target must be 0\.0 to 1\.0"):
        parameters.parse(grpo.Parameters, {"selection": {"target": 2}})


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.floats() | st.text() | st.lists(st.integers()), min_size=1))
def test_parsing_gives_parameters_or_a_run_error(values: dict[str, object]) -> None:
    reason = "InvalidParameter"
    try:
        parameters.parse(sft.Parameters, values)
    except RunError as error:
        reason = error.reason
    assert reason == "InvalidParameter"


@pytest.mark.parametrize("method", METHODS)
def test_the_schema_documents_every_parameter(method: str) -> None:
    schema = json.loads(methods.schema_text(method))
    assert schema["additionalProperties"] is False
    assert all(entry["description"] for entry in schema["properties"].values())


@pytest.mark.parametrize("method", METHODS)
def test_the_defaults_of_every_method_satisfy_its_own_rules(method: str) -> None:
    cls = methods.parameters_of(method)
    schema = json.loads(methods.schema_text(method))
    defaults = {name: entry["default"] for name, entry in schema["properties"].items() if "default" in entry}
    assert parameters.parse(cls, defaults) == cls()


def test_an_unknown_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(RunError, match=r"did you mean GRPO\?"):
        methods.module_of("GRP0")
