"""The contract of the process: exit codes, reasons and the termination message (ARCHITECTURE.md, section 2)."""

import json
from pathlib import Path
from typing import Any

import pytest

from flywheel_trainers import artifacts, tables
from flywheel_trainers.run import termination_text


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"seed": NaN}', "[" * 100_000, '{"apiVersion": 1}'])
def test_a_broken_configuration_exits_64(runs: Any, text: str) -> None:
    result = runs.document(text)
    assert (result.code, result.reason) == (64, "InvalidConfig")


def test_an_unknown_method_and_an_unknown_parameter_exit_64(runs: Any) -> None:
    assert runs("SFTT").reason == "InvalidConfig"
    result = runs("SFT", parameters={"max_steps": 3})
    assert (result.code, result.reason) == (64, "InvalidParameter")
    assert "maxSteps" in result.message


@pytest.mark.parametrize(
    ("method", "fields", "named"),
    [
        ("SFT", {}, "'model'"),
        ("Curate", {}, "'conversations'"),
        ("Evaluate", {}, "'model'"),
    ],
)
def test_a_missing_input_is_named(runs: Any, method: str, fields: dict[str, Any], named: str) -> None:
    result = runs(method, **fields)
    assert (result.code, result.reason) == (64, "InvalidConfig")
    assert named in result.message


def test_a_model_without_safetensors_exits_65_and_tells_how_to_convert_it(runs: Any, tmp_path: Path) -> None:
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text("{}")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"pickle")
    result = runs("SFT", model={"uri": (tmp_path / "pickled").as_uri()})
    assert (result.code, result.reason) == (65, "ModelInvalid")
    assert "safe_serialization" in result.message


def test_a_missing_model_exits_65(runs: Any, tmp_path: Path) -> None:
    result = runs("SFT", model={"uri": (tmp_path / "none").as_uri()})
    assert (result.code, result.reason) == (65, "ModelMissing")


def test_a_record_is_an_artifact_like_any_other(runs: Any) -> None:
    result = runs("Record", parameters={"record": {"verdict": "Promote"}})
    assert json.loads((result.path / "generation.json").read_text())["record"] == {"verdict": "Promote"}
    assert artifacts.directory_digest(result.path) == result.ref["digest"]
    assert result.termination["artifact"]["sizeBytes"] > 0
    assert result.termination["artifact"]["kind"] == "dataset"
    assert result.termination["gpuSeconds"] == 0


def test_too_many_metrics_lose_the_least_important_ones() -> None:
    metrics = {f"metric_with_a_long_name_{i}": 1.23456 for i in range(400)}
    text = termination_text({"artifact": {"uri": "file:///x"}, "metrics": metrics})
    assert 3900 < len(text.encode()) <= 4096
    kept = json.loads(text)["metrics"]
    assert list(kept) == list(metrics)[: len(kept)]


def test_a_long_error_is_cut_to_what_fits() -> None:
    text = termination_text({"error": {"reason": "DatasetInvalid", "message": "ä" * 10_000}})
    assert len(text.encode()) <= 4096
    assert json.loads(text)["error"]["reason"] == "DatasetInvalid"


def test_the_command_line_prints_schemas(capsys: pytest.CaptureFixture[str]) -> None:
    from flywheel_trainers.cli import main

    assert main(["schema", "DPO"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "DPO"
    assert main(["schema"]) == 0
    assert set(json.loads(capsys.readouterr().out)) >= {"Curate", "GRPO", "Record"}
    assert main(["schema", "PPO"]) == 64


def test_mixing_takes_shares_of_every_dataset() -> None:
    a, b = [{"n": i} for i in range(10)], [{"n": 100 + i} for i in range(4)]
    mixed = tables.mix([(a, 0.5), (b, 2.25)], seed=1)
    assert sum(row["n"] < 100 for row in mixed) == 5
    assert sum(row["n"] >= 100 for row in mixed) == 9
    assert mixed == tables.mix([(a, 0.5), (b, 2.25)], seed=1)
