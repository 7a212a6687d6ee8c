"""Record: writes down what the operator hands over as parameters, so that a generation's story outlives its objects.

The same record is the same artifact: who wrote it stands in the manifest, not in `generation.json`.
"""

import json
from dataclasses import dataclass
from typing import Any

from ..errors import RunError
from ..generation_card import generation_card
from ..job import Job, Outcome
from ..parameters import option


@dataclass(frozen=True)
class Parameters:
    """Parameters of Record."""

    record: dict[str, Any] | None = option(None, "The record: any JSON object; a generation's gets a model card.")


def run(job: Job) -> Outcome:
    p: Parameters = job.parameters
    config = job.config
    record = p.record or {}
    story = {
        "record": record,
        "model": config.model and {"uri": config.model.uri, "digest": config.model.digest},
        "opponent": config.opponent and {"uri": config.opponent.uri, "digest": config.opponent.digest},
        "datasets": [{"name": d.name, "uri": d.uri, "digest": d.digest, "subset": d.subset} for d in config.datasets],
        "rewards": [{"name": r.name, "role": r.role, "uri": r.uri, "digest": r.digest} for r in config.rewards],
    }
    content = job.scratch / "content"
    content.mkdir()
    try:
        text = json.dumps(story, indent=1, sort_keys=True, allow_nan=False)
        card = generation_card(record) if "generation" in record else None
    except ValueError as error:
        raise RunError("InvalidParameter", f"parameters.record is not JSON: {error}; numbers must be finite") from error
    (content / "generation.json").write_text(text + "\n")
    inputs = len(config.datasets) + len(config.rewards)
    metrics = {"bytes": float(len(text)), "inputs": float(inputs)}
    return Outcome(kind="dataset", content=content, summary="The record of a generation.", metrics=metrics, card=card)
