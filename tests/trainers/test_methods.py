"""Every method takes a few real steps with a real trainer on a tiny random model and leaves a loadable artifact."""

import json
from pathlib import Path
from typing import Any

import pytest

from flywheel_trainers import artifacts, tables

pytest.importorskip("torch")
pytestmark = pytest.mark.ml

FAST = {"maxSteps": 3, "batchSize": 4, "maxLength": 64, "learningRate": 1e-3}
POLICY = {"maxSteps": 2, "promptsPerStep": 2, "generations": 2, "maxNewTokens": 6, "learningRate": 1e-3}


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A dataset artifact with the subsets that Curate writes."""
    content = tmp_path_factory.mktemp("data") / "content"
    content.mkdir()
    topics = ("tea", "music", "winter", "painting", "the sea", "cooking")
    pairs = [
        {"prompt": user(f"do you like {t}?"), "chosen": assistant(f"I love {t}! And you?"), "rejected": assistant("No.")} for t in topics
    ]
    for subset in ("preferences-reward", "preferences-judge", "preferences-eval"):
        tables.write(content, subset, pairs)
    for subset in ("prompts-train", "prompts-select", "prompts-eval"):
        tables.write(content, subset, [{"prompt": f"do you like {t}?", "messages": user(f"do you like {t}?")} for t in topics])
    tables.write(content, "sft", [{"messages": user(f"do you like {t}?") + assistant(f"I love {t}!")} for t in topics])
    tables.write(
        content, "feedback", [{"prompt": p["prompt"], "completion": p["chosen"], "label": i % 2 == 0} for i, p in enumerate(pairs)]
    )
    store = tmp_path_factory.mktemp("store").as_uri()
    artifact = artifacts.publish(content, store, kind="dataset", card="", metrics={}, created_by={"uid": "d"})
    return {"uri": artifact.uri, "digest": artifact.digest}


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory, tiny_model: dict[str, str]) -> dict[str, str]:
    """An untrained reward model."""
    import torch

    from flywheel_trainers import models

    torch.manual_seed(3)
    path = artifacts.local_path(tiny_model["uri"])
    assert path is not None
    model = models.load_scorer(path, fresh_head=True)
    model.config.pad_token_id = model.config.pad_token_id or 0
    content = models.save(model, tmp_path_factory.mktemp("scorer") / "content", ancestor=path)
    artifact = artifacts.publish(content, content.parent.as_uri(), kind="reward-model", card="", metrics={}, created_by={})
    return {"uri": artifact.uri, "digest": artifact.digest}


def rewards(scorer: dict[str, str]) -> list[dict[str, Any]]:
    return [{"name": "preference", "role": "Reward", **scorer}, {"name": "judge", "role": "Judge", **scorer}]


def assert_serves(path: Path, parent: dict[str, str]) -> None:
    from flywheel_trainers import models

    ancestor = artifacts.local_path(parent["uri"])
    assert ancestor is not None
    models.check(path, "model")
    models.load_causal(path)
    for name in ("chat_template.jinja", "tokenizer.json", "generation_config.json"):
        assert (path / name).read_bytes() == (ancestor / name).read_bytes()
    assert (path / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_reward_trains_a_pointwise_model_and_reports_held_out_accuracy(runs: Any, tiny_model: dict[str, str], data: dict[str, str]) -> None:
    datasets = [{"name": "train", **data, "subset": "preferences-judge"}, {"name": "eval", **data}]
    result = runs("Reward", model=tiny_model, parameters=FAST, datasets=datasets)
    assert result.termination["artifact"]["kind"] == "reward-model"
    assert 0 <= result.metrics["accuracy_lower"] <= result.metrics["accuracy"] <= 1
    assert json.loads((result.path / "config.json").read_text())["architectures"] == ["LlamaForSequenceClassification"]


def test_sft_learns_the_last_reply_and_keeps_everything_but_weights(runs: Any, tiny_model: dict[str, str], data: dict[str, str]) -> None:
    result = runs("SFT", model=tiny_model, parameters={**FAST, "maxSteps": 12}, datasets=[{"name": "train", **data}])
    assert result.metrics["loss_last"] < result.metrics["loss_first"]
    assert_serves(result.path, tiny_model)


def test_sft_mixes_shipped_safety_examples_and_can_learn_all_replies(runs: Any, tiny_model: dict[str, str], data: dict[str, str]) -> None:
    datasets = [{"name": "train", **data}, {"name": "safety", "uri": "builtin:safety-examples"}]
    result = runs("SFT", model=tiny_model, parameters={**FAST, "lossOn": "all"}, datasets=datasets)
    assert result.metrics["rows"] == 6 + 32


def test_the_same_seed_and_data_give_the_same_model(runs: Any, tiny_model: dict[str, str], data: dict[str, str]) -> None:
    once, again = (runs("SFT", model=tiny_model, parameters=FAST, datasets=[{"name": "train", **data}]) for _ in range(2))
    assert once.ref == again.ref


@pytest.mark.parametrize("method", ["SFT", "GRPO"])
def test_an_adapter_is_merged_into_a_model_that_serves(
    runs: Any, tiny_model: dict[str, str], data: dict[str, str], scorer: dict[str, str], method: str
) -> None:
    fields = {"parameters": FAST} if method == "SFT" else {"parameters": POLICY, "rewards": rewards(scorer)}
    result = runs(method, model=tiny_model, adapter={"rank": 2, "alpha": 4}, datasets=[{"name": "train", **data}], **fields)
    assert_serves(result.path, tiny_model)
    assert not list(result.path.glob("adapter*"))


def test_dpo_learns_from_pairs(runs: Any, tiny_model: dict[str, str], data: dict[str, str]) -> None:
    result = runs("DPO", model=tiny_model, parameters=FAST, datasets=[{"name": "train", **data}])
    assert result.metrics["pairs"] == 6
    assert_serves(result.path, tiny_model)


@pytest.mark.parametrize("subset", ["feedback", "preferences-reward"])
def test_kto_learns_from_thumbs_and_takes_pairs_apart(runs: Any, tiny_model: dict[str, str], data: dict[str, str], subset: str) -> None:
    result = runs("KTO", model=tiny_model, parameters=FAST, datasets=[{"name": "train", **data, "subset": subset}])
    assert result.metrics["rows"] == (6 if subset == "feedback" else 12)
    assert_serves(result.path, tiny_model)


def test_rejection_sampling_keeps_the_best_replies_of_a_pool(
    runs: Any, tiny_model: dict[str, str], data: dict[str, str], scorer: dict[str, str]
) -> None:
    parameters = {"candidatesPerPrompt": 3, "maxNewTokens": 6}
    fields = {"model": tiny_model, "pool": [tiny_model], "datasets": [{"name": "prompts", **data}], "rewards": rewards(scorer)}
    result = runs("RejectionSample", parameters=parameters, **fields)
    rows = tables.read_subset(result.path, "sft", "x", ("messages", "score"))
    assert len(rows) == result.metrics["rows"] == 6
    assert result.metrics["reward_accepted"] >= result.metrics["reward_all"]
    assert "style.question" in result.metrics
    too_high = runs("RejectionSample", parameters={**parameters, "threshold": 1e6}, **fields)
    assert (too_high.code, too_high.reason) == (65, "DatasetEmpty")
    assert "threshold" in too_high.message


def test_grpo_chooses_the_checkpoint_nearest_the_target_and_logs_the_curve(
    runs: Any, tiny_model: dict[str, str], data: dict[str, str], scorer: dict[str, str]
) -> None:
    parameters = {
        **POLICY,
        "maxSteps": 4,
        "selection": {"target": 0.6, "everySteps": 2, "samplesPerPrompt": 2},
        "pick": "varied",
        "pickSamples": 2,
    }
    datasets = [{"name": "prompts", **data}, {"name": "select", **data, "subset": "prompts-select"}]
    result = runs("GRPO", model=tiny_model, opponent=tiny_model, parameters=parameters, datasets=datasets, rewards=rewards(scorer))
    curve = json.loads((result.path / "metrics.json").read_text())["win_rate_curve"]
    assert [point["step"] for point in curve] == [0, 2, 4]
    nearest = min(curve, key=lambda point: (abs(point["win_rate"] - 0.6), point["step"]))
    assert result.metrics["selected_step"] == nearest["step"]
    assert result.metrics["selected_win_rate"] == pytest.approx(nearest["win_rate"], rel=1e-5)
    assert_serves(result.path, tiny_model)


def test_checkpoint_selection_without_a_judge_is_refused_before_any_training(
    runs: Any, tiny_model: dict[str, str], data: dict[str, str], scorer: dict[str, str]
) -> None:
    datasets = [{"name": "prompts", **data}, {"name": "select", **data}]
    fields = {"model": tiny_model, "opponent": tiny_model, "parameters": {**POLICY, "selection": {}}, "datasets": datasets}
    result = runs("GRPO", **fields, rewards=rewards(scorer)[:1])
    assert (result.code, result.reason) == (64, "InvalidConfig")
    assert "Judge" in result.message


def test_rloo_learns_from_a_built_in_rule(runs: Any, tiny_model: dict[str, str], data: dict[str, str]) -> None:
    rule = [{"name": "asks", "role": "Reward", "uri": "builtin:question-mark"}]
    result = runs("RLOO", model=tiny_model, parameters=POLICY, datasets=[{"name": "prompts", **data}], rewards=rule)
    assert 0 <= result.metrics["reward_first"] <= 1
    assert_serves(result.path, tiny_model)
    unknown = [{"name": "asks", "role": "Reward", "uri": "builtin:flattery"}]
    assert (
        "builtin:question-mark"
        in runs("RLOO", model=tiny_model, parameters=POLICY, datasets=[{"name": "p", **data}], rewards=unknown).message
    )


def test_evaluate_compares_two_models_on_user_and_internal_prompts(
    runs: Any, tiny_model: dict[str, str], data: dict[str, str], scorer: dict[str, str]
) -> None:
    parameters = {"samplesPerPrompt": 2, "safetySamples": 3, "maxNewTokens": 6, "maxPrompts": 6}
    fields = {"model": tiny_model, "opponent": tiny_model, "datasets": [{"name": "user", **data}], "rewards": rewards(scorer)}
    metrics = runs("Evaluate", parameters=parameters, **fields).metrics
    assert metrics["win_rate_user_lower"] <= metrics["win_rate_user"] <= metrics["win_rate_user_upper"]
    assert metrics["win_rate_divergence"] == pytest.approx(metrics["win_rate_user"] - metrics["win_rate_internal"], abs=1e-5)
    assert {
        "win_rate_divergence_lower",
        "false_refusal_rate",
        "safety_violation_rate",
        "style_question",
        "style_question_delta",
        "mean_length",
    } <= set(metrics)
    slips = metrics["safety_violation_rate"] * metrics["prompts_unsafe"] * 3
    assert slips == pytest.approx(round(slips), abs=1e-3), "a share of three replies to every unsafe prompt"


def test_a_changed_dataset_exits_65_and_both_digests_are_named(runs: Any, tiny_model: dict[str, str], data: dict[str, str]) -> None:
    wrong = "sha256:" + "0" * 64
    result = runs("SFT", model=tiny_model, datasets=[{"name": "train", "uri": data["uri"], "digest": wrong}])
    assert (result.code, result.reason) == (65, "DigestMismatch")
    assert wrong in result.message
    assert data["digest"] in result.message


@pytest.mark.parametrize(
    ("subset", "reason", "named"),
    [("nothing", "DatasetMissing", "preferences-eval"), ("prompts-train", None, ""), ("empty", "DatasetEmpty", "no rows")],
)
def test_a_subset_that_is_missing_or_empty_is_named(
    runs: Any, tiny_model: dict[str, str], data: dict[str, str], tmp_path: Path, subset: str, reason: str | None, named: str
) -> None:
    source = data
    if subset == "empty":
        import pyarrow as pa

        tables.write(tmp_path, "empty", [], pa.schema([("messages", tables.message_type())]))
        source = {"uri": tmp_path.as_uri()}
    result = runs("SFT", model=tiny_model, datasets=[{"name": "train", **source, "subset": subset}])
    assert result.code == 65
    assert result.reason == (reason or "DatasetInvalid")  # prompts have no reply to learn
    assert named in result.message


def test_a_model_without_a_chat_template_exits_65(runs: Any, tiny_model: dict[str, str], data: dict[str, str], tmp_path: Path) -> None:
    import shutil

    path = artifacts.local_path(tiny_model["uri"])
    assert path is not None
    shutil.copytree(path, tmp_path / "bare")
    (tmp_path / "bare" / "chat_template.jinja").unlink()
    result = runs("SFT", model={"uri": (tmp_path / "bare").as_uri()}, datasets=[{"name": "train", **data}])
    assert (result.code, result.reason) == (65, "ModelInvalid")
    assert "chat template" in result.message


def test_weights_that_are_not_safetensors_after_all_exit_65(
    runs: Any, tiny_model: dict[str, str], data: dict[str, str], tmp_path: Path
) -> None:
    import shutil

    path = artifacts.local_path(tiny_model["uri"])
    assert path is not None
    shutil.copytree(path, tmp_path / "torn")
    (tmp_path / "torn" / "model.safetensors").write_bytes(b"\x80\x04 torn")
    result = runs("SFT", model={"uri": (tmp_path / "torn").as_uri()}, datasets=[{"name": "train", **data}])
    assert (result.code, result.reason) == (65, "ModelInvalid")
