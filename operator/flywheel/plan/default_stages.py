"""The paper's lap (CharacterFlywheel §2.2-2.5) with its gates, for a Generation that names no stages."""

from __future__ import annotations

from typing import Any

from flywheel.api.generation import Gate, Stage

# §2.5.1 and the rules the authors adopted after their one failure: a win rate that is too good, or that the two prompt
# sets disagree on, means that the policy has left the region where the reward model is right.
DEFAULT_GATES = (
    Gate(
        metric="win_rate_user_lower", operator="GreaterThan", value=0.5, on_failure="Reject", message="not proven better than the champion"
    ),
    Gate(
        metric="win_rate_user",
        operator="LessThan",
        value=0.65,
        on_failure="Hold",
        message="too good to be true: the reward model may have been gamed",
    ),
    Gate(
        metric="win_rate_divergence_significant",
        operator="LessThanOrEqual",
        value=0.15,
        on_failure="Hold",
        message="user and internal prompts disagree: the policy may have left the reward model's reliable region",
    ),
    Gate(metric="win_rate_user_upper", operator="GreaterThanOrEqual", value=0.5, on_failure="Hold", message="worse on user prompts"),
    Gate(
        metric="win_rate_internal_upper", operator="GreaterThanOrEqual", value=0.5, on_failure="Hold", message="worse on internal prompts"
    ),
    Gate(metric="safety_violation_rate", operator="LessThanOrEqual", value=0.01, on_failure="Reject", message="safety comes first"),
)

# Style artifacts, after each stage that can cause them, so that the status names it (§2.5.1). The bounds are ours: the paper gives none.
STYLE_GATES = (
    Gate(metric="style_garbage_delta", operator="LessThanOrEqual", value=0.05, on_failure="Hold", message="replies fall apart"),
    Gate(metric="style_refusal_delta", operator="LessThanOrEqual", value=0.1, on_failure="Hold", message="it refuses more often"),
    Gate(metric="style_list_delta", operator="LessThanOrEqual", value=0.25, on_failure="Warn", message="it answers in lists"),
    Gate(metric="style_emoji_count_delta", operator="LessThanOrEqual", value=1.0, on_failure="Warn", message="more emoji in each reply"),
    Gate(metric="style_question_delta", operator="LessThanOrEqual", value=0.4, on_failure="Warn", message="it asks back more often"),
)


def _data(name: str, stage: str, subset: str) -> dict[str, Any]:
    return {"name": name, "subset": subset, "from": {"type": "Stage", "stage": stage}}


def _reward_stage(name: str, subset: str, seed: int) -> dict[str, Any]:
    return {
        "name": name,
        "rewardModel": {
            "type": "Pointwise",
            "training": {
                "method": "Reward",
                "seed": seed,
                "model": {"type": "Base"},
                "datasets": [_data("train", "curate", subset), _data("eval", "curate", "preferences-eval")],
            },
        },
    }


def default_stages(*, style_gates: bool = True) -> tuple[Stage, ...]:
    """Curate, reward, judge, sample, SFT, RL, evaluate. The judge is not the reward that RL was trained on. Without style gates they
    are what they were before those came: for laps that began then."""
    drift = [gate.dump() for gate in STYLE_GATES] if style_gates else []
    reward = {"name": "preference", "role": "Reward", "from": {"type": "Stage", "stage": "reward"}}
    judge = {"name": "judge", "role": "Judge", "from": {"type": "Stage", "stage": "judge"}}
    champion = {"type": "Champion"}
    bodies: list[dict[str, Any]] = [
        {"name": "curate", "run": {"method": "Curate", "datasets": [{"name": "conversations", "from": {"type": "Conversations"}}]}},
        _reward_stage("reward", "preferences-reward", 1),
        _reward_stage("judge", "preferences-judge", 2),
        {
            "name": "sample",
            "run": {
                "method": "RejectionSample",
                "model": champion,
                "datasets": [_data("prompts", "curate", "prompts-train")],
                "rewards": [reward],
            },
        },
        {
            "name": "sft",
            "run": {"method": "SFT", "model": {"type": "Base"}, "datasets": [_data("train", "sample", "sft")]},
            "gates": drift,
        },
        {
            "name": "rl",
            "run": {
                "method": "GRPO",
                "model": {"type": "Stage", "stage": "sft"},
                "opponent": champion,
                "datasets": [_data("prompts", "curate", "prompts-train"), _data("select", "curate", "prompts-select")],
                "rewards": [reward, judge],
                "parameters": {"selection": {"target": 0.6}},
            },
            "gates": drift,
        },
        {
            "name": "evaluate",
            "run": {
                "method": "Evaluate",
                "model": {"type": "Stage", "stage": "rl"},
                "opponent": champion,
                "datasets": [
                    _data("user", "curate", "prompts-eval"),
                    {"name": "internal", "from": {"type": "Uri", "uri": "builtin:internal-prompts"}},
                ],
                "rewards": [judge],
            },
            "gates": [gate.dump() for gate in DEFAULT_GATES],
        },
    ]
    return tuple(Stage.model_validate(body) for body in bodies)
