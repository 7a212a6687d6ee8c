"""Record: writes down what the operator hands over as parameters, so that a generation's story outlives its objects."""

import json
from dataclasses import dataclass
from typing import Any

from ..job import Job, Outcome
from ..parameters import option


@dataclass(frozen=True)
class Parameters:
    """Parameters of Record."""

    record: dict[str, Any] | None = option(None, "The record: any JSON object.")


def run(job: Job) -> Outcome:
    p: Parameters = job.parameters
    config = job.config
    story = {
        "run": dict(config.run),
        "record": p.record or {},
        "model": config.model and {"uri": config.model.uri, "digest": config.model.digest},
        "opponent": config.opponent and {"uri": config.opponent.uri, "digest": config.opponent.digest},
        "datasets": [{"name": d.name, "uri": d.uri, "digest": d.digest, "subset": d.subset} for d in config.datasets],
        "rewards": [{"name": r.name, "role": r.role, "uri": r.uri, "digest": r.digest} for r in config.rewards],
    }
    content = job.scratch / "content"
    content.mkdir()
    (content / "generation.json").write_text(json.dumps(story, indent=1, sort_keys=True) + "\n")
    return Outcome(kind="dataset", content=content, summary="The record of a generation.", metrics={"inputs": float(len(config.datasets))})
