"""The drift of style is measured by the stage that causes it, against the model it started from."""

from typing import Any

import pytest

from flywheel_trainers import artifacts, drift, tables

pytest.importorskip("torch")
pytestmark = pytest.mark.ml

TOPICS = ("tea", "music", "winter", "painting", "the sea", "cooking")
LEARN = {"maxSteps": 60, "batchSize": 6, "maxLength": 64, "learningRate": 1e-2, "driftMaxNewTokens": 12}
POLICY = {"maxSteps": 1, "promptsPerStep": 2, "generations": 2, "maxNewTokens": 6, "learningRate": 1e-3, "driftMaxNewTokens": 6}


def question(topic: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"do you like {topic}?"}]


@pytest.fixture(scope="module")
def shouting(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Conversations whose replies all end in exclamation marks, and prompts to train on."""
    content = tmp_path_factory.mktemp("shouting") / "content"
    content.mkdir()
    reply = [{"role": "assistant", "content": "Yes! Yes!"}]
    tables.write(content, "sft", [{"messages": question(t) + reply} for t in TOPICS])
    tables.write(content, "prompts-train", [{"prompt": f"do you like {t}?", "messages": question(t)} for t in TOPICS])
    artifact = artifacts.publish(content, content.parent.as_uri(), kind="dataset", card="", metrics={}, created_by={"uid": "d"})
    return {"uri": artifact.uri, "digest": artifact.digest}


def exclaiming(model: dict[str, str]) -> float:
    """The share of greedy replies with an exclamation mark, counted without the code under test."""
    import torch

    from flywheel_trainers import models

    path = artifacts.local_path(model["uri"])
    assert path is not None
    tokenizer, network = models.load_tokenizer(path), models.load_causal(path).eval()
    shouted = 0
    for topic in TOPICS:
        ids = tokenizer.apply_chat_template(question(topic), add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            out = network.generate(**ids, max_new_tokens=12, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        shouted += "!" in tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    return shouted / len(TOPICS)


def test_a_stage_that_teaches_the_model_to_shout_says_so_itself(runs: Any, tiny_model: dict[str, str], shouting: dict[str, str]) -> None:
    result = runs("SFT", model=tiny_model, parameters=LEARN, datasets=[{"name": "train", **shouting}])
    before, after = exclaiming(tiny_model), exclaiming(result.ref)
    assert after > before
    assert result.metrics["style_exclamation"] == pytest.approx(after, abs=1e-5)
    assert result.metrics["style_exclamation_delta"] == pytest.approx(after - before, abs=1e-5)


def test_reinforcement_measures_its_drift_and_can_leave_it_out(runs: Any, tiny_model: dict[str, str], shouting: dict[str, str]) -> None:
    rule = [{"name": "asks", "role": "Reward", "uri": "builtin:question-mark"}]
    fields = {"model": tiny_model, "datasets": [{"name": "prompts", **shouting}], "rewards": rule}
    measured = runs("GRPO", parameters=POLICY, **fields).metrics
    assert {f"style_{name}_delta" for name in ("garbage", "refusal", "words", "list", "emoji_count")} <= set(measured)
    silent = runs("GRPO", parameters={**POLICY, "driftPrompts": 0}, **fields).metrics
    assert not [name for name in silent if name.startswith("style_")]


def test_prompts_are_taken_evenly_each_once_and_plain_text_is_a_prompt_too() -> None:
    prompts = [question(str(i)) for i in range(10)]
    assert drift._spread(prompts, 5) == prompts[::2]
    assert drift._distinct([*prompts, *prompts, "hello", []]) == [*prompts, [{"role": "user", "content": "hello"}]]
