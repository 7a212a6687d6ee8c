"""The demo's laps without a cluster: every stage is a real `python -m flywheel_trainers run`, users are made up in-process.

    python -m dev.laps.lap --base ~/.cache/flywheel/models/tiny-base --seeds 0 1 2 --laps 1 2 3

Prints, for every seed and lap, what the gates would see (win rates) and what they can't see (the users' true taste).
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dev.laps import stages, world

ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "trainers"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


class Failed(Exception):
    pass


def talk(model: Path, conversations: int, seed: int, max_turns: int = 6) -> list[dict[str, Any]]:
    """Users open conversations, the model answers, users write again as they please. All conversations go on at once."""
    from flywheel_trainers.generation import Generator
    from flywheel_trainers.progress import Progress

    job: Any = type("Idle", (), {"progress": Progress(), "check": lambda self: None})()
    generator = Generator(model, temperature=1.0, top_p=0.95, max_new_tokens=48, batch_size=128)
    r = random.Random(seed)
    user = world.User(r)
    start = datetime(2026, 11, 1, tzinfo=UTC)
    open_ones: list[tuple[str, str, list[dict[str, str]]]] = []
    for i in range(conversations):
        topic, text = world.opening(r)
        open_ones.append((f"c{seed}-{i}", topic, [{"role": "user", "content": text}]))
    rows: list[dict[str, Any]] = []
    for turn in range(max_turns):
        replies = generator.replies([m for _, _, m in open_ones], 1, job, seed=seed * 100 + turn)
        still_open = []
        for (name, topic, messages), (reply,) in zip(open_ones, replies, strict=True):
            question = messages[-1]["content"]
            writes_on = turn + 1 < max_turns and user.answers(question, reply)
            rows.append(
                {
                    "conversation_id": name, "message_id": f"{name}-{turn}", "turn": turn, "user_hash": name.split("-")[1],
                    "time": start + timedelta(seconds=len(rows)), "flywheel": "companion", "generation": model.name[:20],
                    "experiment": None,
                    "slice": "none", "messages": list(messages), "response": reply, "continued": writes_on,
                    "thumbs": user.thumbs(question, reply), "regenerated": False, "sampling": "{}", "question": question, "reply": reply,
                }
            )  # fmt: skip
            if writes_on:
                more = [*messages, {"role": "assistant", "content": reply}, {"role": "user", "content": world.follow_up(r, topic)}]
                still_open.append((name, topic, more))
        open_ones = still_open
        if not open_ones:
            break
    return rows


def write_conversations(rows: list[dict[str, Any]], directory: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = directory / "date=2026-11-01" / "generation=initial"
    target.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.Table.from_pylist([{k: v for k, v in row.items() if k not in ("question", "reply")} for row in rows]), target / "0.parquet"
    )
    return directory.as_uri()


class Lab:
    def __init__(self, directory: Path, seed: int) -> None:
        self.directory, self.seed, self.seconds = directory, seed, 0.0
        (directory / "runs").mkdir(parents=True, exist_ok=True)

    def run(self, name: str, method: str, parameters: dict[str, Any], data_digest: str = "", **inputs: Any) -> dict[str, Any]:
        config = {
            "apiVersion": "trainers.modelflywheel.dev/v1alpha1",
            "run": {"namespace": "laps", "name": name, "uid": f"{name}-{self.seed}", "attempt": 1},
            "method": method, "seed": inputs.pop("seed", self.seed), "parameters": parameters,
            "output": {"uri": (self.directory / "artifacts").as_uri()}, **inputs,
        }  # fmt: skip
        path, log = self.directory / "runs" / f"{name}.json", self.directory / "runs" / f"{name}.log"
        path.write_text(json.dumps(config, indent=1))
        termination = path.with_suffix(".termination")
        # Tuning a late stage shouldn't repeat the early ones: the same configuration gave this result before.
        done = path.with_suffix(".done")
        key = path.read_text() + data_digest
        fresh = not (termination.exists() and done.exists() and done.read_text() == key)
        if not fresh:
            return self._show(name, json.loads(termination.read_text()), 0.0, 0.0)
        began, cpu = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        with log.open("w") as out:
            code = subprocess.run(
                [sys.executable, "-m", "flywheel_trainers", "run", "--config", str(path)],
                env={**ENV, "FLYWHEEL_TERMINATION_LOG": str(termination)}, stdout=out, stderr=subprocess.STDOUT, check=False,
            ).returncode  # fmt: skip
        took, cpu = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - cpu
        if code:
            raise Failed(f"{name}: exit {code}: {termination.read_text() if termination.exists() else log.read_text()[-2000:]}")
        done.write_text(key)
        return self._show(name, json.loads(termination.read_text()), took, cpu)

    def _show(self, name: str, result: dict[str, Any], took: float, cpu: float) -> dict[str, Any]:
        self.seconds += cpu
        shown = {k: round(v, 3) for k, v in result["metrics"].items() if k in SHOWN or k.startswith("rows_")}
        print(f"    {name:<14} {took:5.1f} s, cpu {cpu:4.1f} s  {json.dumps(shown)}", flush=True)
        return result


SHOWN = {
    "accuracy", "accuracy_lower", "acceptance_rate", "rows", "reward_first", "reward_last", "selected_step", "selected_win_rate",
    "win_rate_user",
    "win_rate_user_lower", "win_rate_user_upper", "win_rate_internal", "win_rate_divergence", "win_rate_divergence_lower", "style_garbage",
    "style_question_delta", "style_question_count_delta", "false_refusal_rate", "safety_violation_rate", "pairs", "turns", "continued_rate",
    "prompts_user", "loss_first", "loss_last",
}  # fmt: skip

VERDICT = ("win_rate_user", "win_rate_user_lower", "win_rate_internal", "win_rate_divergence", "style_garbage")


def ref(result: dict[str, Any]) -> dict[str, str]:
    return {"uri": result["artifact"]["uri"], "digest": result["artifact"]["digest"]}


def path_of(result: dict[str, Any]) -> Path:
    return Path(result["artifact"]["uri"].removeprefix("file://"))


def taste(model: Path, seed: int) -> float:
    """Share of good replies to first messages: what users would think, which no gate can see."""
    return world.share_of_good(talk(model, 200, 1000 + seed, max_turns=1))


def lap(
    lab: Lab, name: str, base: dict[str, str], champion: dict[str, str], champion_path: Path, plan: dict[str, Any], seed: int
) -> dict[str, Any]:
    from flywheel_trainers import artifacts

    rows = talk(champion_path, plan.get("conversations", stages.CONVERSATIONS), seed * 10 + plan["number"])
    directory = lab.directory / f"conversations-{name}"
    uri = write_conversations(rows, directory)
    data = ref(lab.run(f"{name}-curate", "Curate", plan["curate"], datasets=[{"name": "conversations", "uri": uri}],
                       data_digest=artifacts.directory_digest(directory)))  # fmt: skip

    def of(role: str, subset: str, weight: float = 1.0) -> dict[str, Any]:
        return {"name": role, **data, "subset": subset, "weight": weight}

    held_out = of("eval", "preferences-eval")
    judge = lab.run(
        f"{name}-judge", "Reward", plan["judge"], model=base, datasets=[of("train", "preferences-judge"), held_out], seed=seed + 7
    )
    judges = [{"name": "judge", "role": "Judge", **ref(judge)}]
    if "reward" in plan:
        trained = lab.run(f"{name}-reward", "Reward", plan["reward"], model=base, datasets=[of("train", "preferences-reward"), held_out])
        reward = {"name": "preference", "role": "Reward", **ref(trained)}
    else:
        reward = plan.get("naiveReward", {})
    rewards = [reward, *judges]
    if "rejectionSample" in plan:
        sampled = lab.run(f"{name}-sample", "RejectionSample", plan["rejectionSample"], model=champion,
                          datasets=[of("prompts", "prompts-train")], rewards=rewards)  # fmt: skip
        train = [{"name": "train", **ref(sampled), "subset": "sft"}, {"name": "safety", "uri": "builtin:safety-examples"}]
    else:
        train = [of("train", "sft"), {"name": "safety", "uri": "builtin:safety-examples"}]
    model = lab.run(f"{name}-sft", "SFT", plan["sft"], model=base, datasets=train)
    shares = {"champion": taste(champion_path, seed), "sft": taste(path_of(model), seed)}
    if "grpo" in plan:
        model = lab.run(f"{name}-grpo", "GRPO", plan["grpo"], model=ref(model), opponent=champion, rewards=rewards,
                        datasets=[of("prompts", "prompts-train"), of("select", "prompts-select")])  # fmt: skip
        shares["rl"] = taste(path_of(model), seed)
    verdict = lab.run(f"{name}-evaluate", "Evaluate", plan["evaluate"], model=ref(model), opponent=champion, rewards=judges,
                      datasets=[of("user", "prompts-eval")])  # fmt: skip
    return {"model": model, "verdict": verdict["metrics"], "taste": shares}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--laps", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "flywheel-laps")
    options = parser.parse_args()
    from flywheel_trainers import artifacts

    base = {"uri": options.base.absolute().as_uri(), "digest": artifacts.directory_digest(options.base)}
    summary: dict[int, list[dict[str, Any]]] = {number: [] for number in options.laps}
    for seed in options.seeds:
        champion, champion_path = base, options.base
        for number in options.laps:
            print(f"seed {seed}, lap {number}", flush=True)
            lab = Lab(options.work / f"seed-{seed}", seed)
            found = lap(lab, f"g{number}", base, champion, champion_path, stages.LAPS[number], seed)
            v = found["verdict"]
            line = {
                "seed": seed, "seconds": round(lab.seconds), "taste": {k: round(t, 2) for k, t in found["taste"].items()},
                **{k: round(v[k], 3) for k in VERDICT},
            }  # fmt: skip
            print("  =>", json.dumps(line), flush=True)
            summary[number].append(line)
            if number == 1:  # lap 1 is promoted; the others are not
                champion, champion_path = ref(found["model"]), path_of(found["model"])
    for number, lines in summary.items():
        keys = [k for k in lines[0] if k not in ("seed", "taste")]
        middle = {k: statistics.median(line[k] for line in lines) for k in keys}
        for arm in lines[0]["taste"]:
            middle[f"taste {arm}"] = statistics.median(line["taste"][arm] for line in lines)
        print(f"lap {number}, median of {len(lines)}:", json.dumps(middle), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "trainers"))
    from flywheel_trainers import environment

    environment.prepare()
    environment.limit_threads()
    main()
