"""Curate: from logged conversations to the data of one generation.

Filter (freshness, privacy, length) -> split -> mine preference pairs from what users did -> prune near-duplicates.

The split is by the conversation's opening: a hash of its first user message, with a constant salt. All conversations that
begin alike land on one side, and since every prompt contains its conversation's opening, no prompt text is on two sides. The
sides are the same in every generation, so that a later lap can't train on an earlier lap's exam.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from .. import neardup, privacy, style, tables
from ..errors import RunError
from ..job import Job, Outcome
from ..parameters import option
from ..tables import Row

COLUMNS = (
    "user_hash", "conversation_id", "message_id", "turn", "time", "generation", "messages", "response", "continued", "thumbs", "regenerated"
)  # fmt: skip
SIDES = ("train", "judge", "select", "eval")


@dataclass(frozen=True)
class Parameters:
    """Parameters of Curate."""

    maxAgeDays: float = option(
        90.0, "Turns older than this, counted back from the newest, are left out.", unit="days", minimum=0.0, maximum=36_500.0
    )
    includeGenerations: tuple[str, ...] = option((), "Only turns answered by these generations; empty: by any.")
    excludeGenerations: tuple[str, ...] = option((), "Turns answered by these generations are left out (quarantine).")
    privacy: str = option("drop", "What happens to a turn with an identifier in it.", choices=("drop", "mask"))
    maxPromptWords: int = option(1000, "Longer histories are left out.", unit="words", minimum=1)
    maxReplyWords: int = option(400, "Longer replies are left out.", unit="words", minimum=1)
    nearDuplicate: float = option(0.9, "Prompts at least this similar (Jaccard, word trigrams) are one.", minimum=0.1, maximum=1.0)
    maxPromptsPerSubset: int = option(0, "Prompt subsets are cut to this many; 0: not.", unit="prompts", minimum=0)
    shareJudge: float = option(0.3, "Share of conversation openings set aside for the judge.", minimum=0.0, maximum=0.9)
    shareSelect: float = option(0.12, "Share set aside for choosing checkpoints.", minimum=0.0, maximum=0.9)
    shareEval: float = option(0.18, "Share set aside for evaluation.", minimum=0.0, maximum=0.9)
    pairing: str = option("subject", "Comparable prompts have the same last message, or the same subject.", choices=("message", "subject"))
    pairsPerReply: int = option(3, "At most this many pairs per reply on either side.", minimum=1, maximum=1000)
    maxLengthDifference: int = option(12, "Pairs that differ by more words teach length, not taste: left out.", unit="words", minimum=0)
    maxEmojiDifference: int = option(2, "The same for emojis.", unit="emojis", minimum=0)
    sftSelect: str = option("answered", "Replies that become SFT data: answered or thumbed up, only thumbed up, those after which the user "
                            "left, or all.", choices=("answered", "thumbs-up", "ended", "all"))  # fmt: skip


def run(job: Job) -> Outcome:
    p: Parameters = job.parameters
    if p.shareJudge + p.shareSelect + p.shareEval >= 1:
        raise RunError("InvalidParameter", "parameters.shareJudge + shareSelect + shareEval must stay below 1: nothing is left to train on")
    dropped: Counter[str] = Counter()
    job.progress.begin("Reading", 1)
    turns = list(filtered(_read(job, dropped), p, dropped))
    if not turns:
        lost = ", ".join(f"{count} dropped by {name}" for name, count in dropped.items()) or "there were none"
        raise RunError("DatasetEmpty", f"dataset 'conversations' has no usable turns ({lost}); collect more, or loosen the filters")
    job.check()
    job.progress.begin("Curating", 1)
    sides = split(turns, p)
    subject = subjects(turns)

    subsets: dict[str, list[Row]] = {
        f"preferences-{name}": pairs(sides[side], subject, p, dropped)
        for name, side in (("reward", "train"), ("judge", "judge"), ("eval", "eval"))
    }
    subsets |= {f"prompts-{side}": prompts(sides[side], p, dropped) for side in ("train", "select", "eval")}
    subsets["sft"] = sft(sides["train"], p) + _extra(job, p, dropped)
    subsets["feedback"] = feedback(sides["train"])
    content = job.scratch / "content"
    content.mkdir()
    for name, rows in subsets.items():
        tables.write(content, name, rows, _schema(name))
    continued = sum(bool(turn["continued"]) for turn in turns) / len(turns)
    return Outcome(
        kind="dataset",
        content=content,
        summary=f"{len(turns)} turns of {len({turn['conversation_id'] for turn in turns})} conversations.",
        metrics={
            "turns": float(len(turns)),
            "conversations": float(len({turn["conversation_id"] for turn in turns})),
            "continued_rate": continued,
            **{f"rows_{name.replace('-', '_')}": float(len(rows)) for name, rows in subsets.items()},
            **{f"dropped_{name}": float(count) for name, count in sorted(dropped.items())},
            **{f"style_{name}": value for name, value in style.means(turn["response"] for turn in turns).items()},
        },
        details={"newest": str(max(turn["time"] for turn in turns)), "oldest": str(min(turn["time"] for turn in turns))},
    )


# -------------------------------------------------------------------------------------------------------- read and filter


def _read(job: Job, dropped: Counter[str]) -> list[Row]:
    refs = [ref for ref in job.config.datasets if ref.name == "conversations"]
    if not refs:
        raise RunError("InvalidConfig", "Curate needs a dataset 'conversations' (a directory of Parquet files); add it to the run's inputs")
    rows: list[Row] = []
    for ref in refs:
        what, directory = f"dataset '{ref.name}' ({ref.uri})", job.directory(ref)
        deleted = tombstones(directory, what)
        for row in tables.read_tree(directory, what, COLUMNS):
            if row["user_hash"] in deleted and _moment(row["time"]) <= deleted[row["user_hash"]]:
                dropped["deleted"] += 1
            else:
                rows.append(row)
    return rows


def tombstones(directory: Path, what: str) -> dict[str, datetime]:
    """Users who asked to be forgotten, by hash, and when: the collector's list, honoured also for files it can't reach.

    A list that can't be read ends the run: to learn from somebody who said no is worse than not to learn.
    """
    path = directory / "tombstones.json"
    if not path.exists():
        return {}
    try:
        return {entry["user_hash"]: _moment(datetime.fromisoformat(entry["deletedAt"])) for entry in json.loads(path.read_text())["users"]}
    except (ValueError, KeyError, TypeError) as error:
        mend = "restart the collector, which writes it anew"
        raise RunError("DatasetInvalid", f"{what}: tombstones.json can't be read ({error}); {mend}") from error


def filtered(rows: Iterable[Row], p: Parameters, dropped: Counter[str]) -> Iterable[Row]:
    """Turns that may be learnt from, in a fixed order. What is dropped is counted by the filter that dropped it."""
    latest: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: (_moment(row["time"]), _identity(row))):
        if _identity(row) in latest:
            dropped["duplicate"] += 1  # a regenerated reply, or a file written twice: the last one is what the user saw
        latest[_identity(row)] = row
    newest = max((_moment(row["time"]) for row in latest.values()), default=None)
    for row in latest.values():
        cause = _cause(row, p, newest)
        if cause:
            dropped[cause] += 1
        else:
            yield row


def _cause(row: Row, p: Parameters, newest: datetime | None) -> str | None:
    """Why this turn must go, if it must. Masking happens here, on the way: nothing unmasked gets any further."""
    if newest and _moment(row["time"]) < newest - timedelta(days=p.maxAgeDays):
        return "age"
    if row["generation"] in p.excludeGenerations or (p.includeGenerations and row["generation"] not in p.includeGenerations):
        return "generation"
    messages = row["messages"]
    if not messages or messages[-1]["role"] != "user":
        return "malformed"
    if p.privacy == "mask" and all(isinstance(m["content"], str) for m in messages) and isinstance(row["response"], str):
        row["messages"] = messages = [{"role": m["role"], "content": privacy.mask(m["content"])} for m in messages]
        row["response"] = privacy.mask(row["response"])
    if any(privacy.findings(m["content"]) for m in messages) or privacy.findings(row["response"]):
        return "privacy"
    if sum(len(m["content"].split()) for m in messages) > p.maxPromptWords or len(row["response"].split()) > p.maxReplyWords:
        return "length"
    return None if row["response"].strip() and messages[-1]["content"].strip() else "empty"


def _identity(row: Row) -> str:
    """An app may number messages anew in every conversation, and conversations anew for every user."""
    return "\n".join(str(row[column]) for column in ("message_id", "conversation_id", "user_hash"))


def _moment(time: Any) -> datetime:
    if not isinstance(time, datetime):
        raise RunError("DatasetInvalid", f"dataset 'conversations': column time holds {str(time)[:40]!r}; it must be a timestamp")
    return time if time.tzinfo else time.replace(tzinfo=UTC)


# ------------------------------------------------------------------------------------------------------------------ split


def normalised(text: str) -> str:
    return " ".join(style.words(text))


def split(turns: Sequence[Row], p: Parameters) -> dict[str, list[Row]]:
    bounds = (1 - p.shareJudge - p.shareSelect - p.shareEval, 1 - p.shareSelect - p.shareEval, 1 - p.shareEval, 1.0)
    sides: dict[str, list[Row]] = {side: [] for side in SIDES}
    for turn in turns:
        opening = next(m["content"] for m in turn["messages"] if m["role"] == "user")
        digest = hashlib.sha256(b"flywheel split\n" + normalised(opening).encode()).digest()
        position = int.from_bytes(digest[:8]) / 2**64
        sides[next(side for side, bound in zip(SIDES, bounds, strict=True) if position < bound or bound == 1.0)].append(turn)
    return sides


# ------------------------------------------------------------------------------------------------- what the users thought


def liked(turn: Row) -> bool | None:
    """What the user did with a reply: True, False, or None when that can't be told. A thumb outweighs writing on."""
    if turn["thumbs"]:
        return bool(turn["thumbs"] > 0)
    if turn["regenerated"] or turn["continued"] is None:
        return None  # several replies stood there: which of them the user answered isn't in the row
    return bool(turn["continued"])


def subjects(turns: Sequence[Row]) -> dict[str, str]:
    """Normalised last message -> its subject: the word that replies pick up most, weighed against how common it is.

    "can we talk about tea" and "do you like tea" are comparable; replies repeat "tea" and not "talk". This needs no list of topics.
    """
    asked: Counter[str] = Counter()
    echoed: Counter[str] = Counter()
    for turn in turns:
        ours = set(style.words(turn["messages"][-1]["content"]))
        asked.update(ours)
        echoed.update(ours & set(style.words(turn["response"])))
    found: dict[str, str] = {}
    for turn in turns:
        text = normalised(turn["messages"][-1]["content"])
        # Echoed share squared over frequency: a rare word that replies repeat beats a common one that they happen to contain.
        words = [word for word in set(text.split()) if asked[word] > 1 and echoed[word]]
        best = max(words, key=lambda word: ((echoed[word] / asked[word]) ** 2 / asked[word] ** 0.5, word), default=None)
        found[text] = best or text
    return found


def pairs(turns: Sequence[Row], subject: dict[str, str], p: Parameters, dropped: Counter[str]) -> list[Row]:
    """For comparable prompts: a reply that users liked against one that they didn't. The prompt is the liked reply's."""
    groups: dict[str, tuple[list[Row], list[Row]]] = defaultdict(lambda: ([], []))
    for turn in turns:
        text = normalised(turn["messages"][-1]["content"])
        verdict = liked(turn)
        if verdict is not None:
            groups[subject[text] if p.pairing == "subject" else text][0 if verdict else 1].append(turn)
    found: list[Row] = []
    for key in sorted(groups):
        good, bad = groups[key]
        used: Counter[str] = Counter()
        for chosen in good:
            made = 0
            # An order that is fixed, but different for every reply, so that not all meet the same few.
            for rejected in sorted(bad, key=lambda row: _shuffle(_identity(chosen), _identity(row))):
                if made == p.pairsPerReply:
                    break
                cause = _unfit(chosen["response"], rejected["response"], p)
                if cause:
                    dropped[cause] += 1
                elif used[_identity(rejected)] < p.pairsPerReply:
                    used[_identity(rejected)] += 1
                    made += 1
                    found.append(_pair(chosen, rejected))
    return found


def _unfit(chosen: str, rejected: str, p: Parameters) -> str | None:
    if normalised(chosen) == normalised(rejected):
        return "pair_same"
    if style.is_garbage(chosen):
        return "pair_garbage"
    if abs(len(chosen.split()) - len(rejected.split())) > p.maxLengthDifference:
        return "pair_length"
    return "pair_emoji" if abs(style.emoji_count(chosen) - style.emoji_count(rejected)) > p.maxEmojiDifference else None


def _pair(chosen: Row, rejected: Row) -> Row:
    return {"prompt": chosen["messages"], "chosen": _reply(chosen), "rejected": _reply(rejected)}


def _shuffle(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# ---------------------------------------------------------------------------------------------------------------- subsets


def prompts(turns: Sequence[Row], p: Parameters, dropped: Counter[str]) -> list[Row]:
    ordered = sorted(turns, key=lambda turn: _shuffle(_identity(turn)))
    texts = ["\n".join(normalised(m["content"]) for m in turn["messages"]) for turn in ordered]
    kept = neardup.distinct(texts, p.nearDuplicate)
    dropped["near_duplicate"] += len(texts) - len(kept)
    kept = kept[: p.maxPromptsPerSubset or None]
    return [{"prompt": ordered[i]["messages"][-1]["content"], "messages": ordered[i]["messages"]} for i in kept]


def sft(turns: Sequence[Row], p: Parameters) -> list[Row]:
    wanted: dict[str, Callable[[Row], bool]] = {
        "answered": lambda turn: liked(turn) is True,
        "thumbs-up": lambda turn: (turn["thumbs"] or 0) > 0,
        "ended": lambda turn: liked(turn) is False,
        "all": lambda turn: True,
    }
    chosen = wanted[p.sftSelect]
    # What users say they like may still be broken; what they left is only ever taken on purpose, as it is.
    return [
        {"messages": [*turn["messages"], *_reply(turn)]}
        for turn in turns
        if chosen(turn) and (p.sftSelect == "ended" or not style.is_garbage(turn["response"]))
    ]


def _extra(job: Job, p: Parameters, dropped: Counter[str]) -> list[Row]:
    """Conversations from elsewhere (datasets called `sft-extra`, mixed in by weight): filtered for privacy like our own."""
    if not job.has_dataset("sft-extra"):
        return []
    kept: list[Row] = []
    for row in job.rows("sft-extra", subset="sft", columns=("messages",)):
        messages = row["messages"]
        if p.privacy == "mask" and all(isinstance(m["content"], str) for m in messages):
            messages = [{"role": m["role"], "content": privacy.mask(m["content"])} for m in messages]
        if any(privacy.findings(m["content"]) for m in messages):
            dropped["privacy"] += 1
        else:
            kept.append({"messages": messages})
    return kept


def feedback(turns: Sequence[Row]) -> list[Row]:
    """For KTO: single replies and whether they were liked."""
    return [
        {"prompt": turn["messages"], "completion": _reply(turn), "label": verdict} for turn in turns if (verdict := liked(turn)) is not None
    ]


def _reply(turn: Row) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": turn["response"]}]


def _schema(name: str) -> Any:
    import pyarrow as pa

    messages = tables.message_type()
    if name.startswith("preferences-"):
        return pa.schema([("prompt", messages), ("chosen", messages), ("rejected", messages)])
    if name.startswith("prompts-"):
        return pa.schema([("prompt", pa.string()), ("messages", messages)])
    if name == "feedback":
        return pa.schema([("prompt", messages), ("completion", messages), ("label", pa.bool_())])
    return pa.schema([("messages", messages)])
