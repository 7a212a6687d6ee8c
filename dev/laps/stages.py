"""The stage parameters of the three laps. A bench to tune on: dev/demo/manifests is what the demo runs, and may have gone on."""

from typing import Any

CONVERSATIONS = 400

CURATE: dict[str, Any] = {"maxAgeDays": 30, "maxLengthDifference": 12, "pairsPerReply": 3}
REWARD: dict[str, Any] = {"maxSteps": 40, "batchSize": 16, "learningRate": 1e-3, "maxLength": 256}
SAMPLE: dict[str, Any] = {"candidatesPerPrompt": 4, "maxPrompts": 120, "keepFraction": 1.0}
SFT: dict[str, Any] = {"maxSteps": 6, "batchSize": 16, "learningRate": 2e-4, "maxLength": 256}
GRPO: dict[str, Any] = {
    "maxSteps": 10, "promptsPerStep": 8, "generations": 8, "learningRate": 2e-4, "beta": 0.02, "maxNewTokens": 32,
    "selection": {"target": 0.6, "everySteps": 2, "maxPrompts": 48, "samplesPerPrompt": 4},
}  # fmt: skip
EVALUATE: dict[str, Any] = {"samplesPerPrompt": 4, "maxPrompts": 120}

LAPS: dict[int, dict[str, Any]] = {
    # The good lap: everything as the paper says.
    1: {
        "number": 1, "curate": CURATE, "reward": REWARD, "judge": REWARD, "rejectionSample": SAMPLE, "sft": SFT, "grpo": GRPO,
        "evaluate": EVALUATE,
    },
    # The hacked lap: somebody saw that questions engage and rewards question marks; more steps, no checkpoint selection.
    2: {
        "number": 2, "curate": CURATE, "judge": REWARD, "sft": SFT, "evaluate": EVALUATE,
        "naiveReward": {"name": "asks-back", "role": "Reward", "uri": "builtin:question-mark"},
        "grpo": {**{k: v for k, v in GRPO.items() if k != "selection"}, "maxSteps": 28, "learningRate": 4e-4, "beta": 0.0},
    },
    # The lap that its data makes worse: a slip of the pen selects the replies after which users left.
    3: {
        "number": 3, "curate": {**CURATE, "sftSelect": "ended"}, "judge": REWARD,
        "sft": {**SFT, "maxSteps": 30, "learningRate": 1e-3}, "evaluate": EVALUATE,
    },
}  # fmt: skip
