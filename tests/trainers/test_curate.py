"""Curation: nothing private passes, train and exam never meet, and pairs say what users did."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_trainers import privacy, tables
from flywheel_trainers.errors import RunError
from flywheel_trainers.methods import curate

Turn = dict[str, Any]
P = curate.Parameters()


def texts(rows: list[Turn], column: str = "messages") -> set[str]:
    return {"\n".join(curate.normalised(m["content"]) for m in row[column]) for row in rows}


def test_a_few_hundred_conversations_fill_every_subset(runs: Any, conversations: Callable[..., dict[str, str]]) -> None:
    result = runs("Curate", datasets=[conversations()])
    for subset in ("reward", "judge", "eval"):
        assert result.metrics[f"rows_preferences_{subset}"] > 0
    for name in ("rows_prompts_train", "rows_prompts_select", "rows_prompts_eval", "rows_sft", "rows_feedback"):
        assert result.metrics[name] > 0
    rows = tables.read_subset(result.path, "preferences-reward", "x", ("prompt", "chosen", "rejected"))
    assert rows[0]["chosen"][0]["role"] == "assistant"
    assert "love" in rows[0]["chosen"][0]["content"]


def test_the_same_conversations_give_the_same_artifact(runs: Any, conversations: Callable[..., dict[str, str]]) -> None:
    dataset = conversations()
    assert runs("Curate", datasets=[dataset]).ref == runs("Curate", datasets=[dataset]).ref


def test_no_prompt_of_the_exam_is_in_the_training_data(runs: Any, conversations: Callable[..., dict[str, str]]) -> None:
    path = runs("Curate", datasets=[conversations()]).path
    train = texts(tables.read_subset(path, "prompts-train", "x", ())) | texts(
        tables.read_subset(path, "preferences-reward", "x", ()), "prompt"
    )
    judge = texts(tables.read_subset(path, "preferences-judge", "x", ()), "prompt")
    select = texts(tables.read_subset(path, "prompts-select", "x", ()))
    exam = texts(tables.read_subset(path, "prompts-eval", "x", ())) | texts(tables.read_subset(path, "preferences-eval", "x", ()), "prompt")
    sides = [train, judge, select, exam]
    assert all(not a & b for i, a in enumerate(sides) for b in sides[i + 1 :])


openings = st.sampled_from(
    ["hello, can we talk about tea?", "Hello can we talk about TEA", "do you like music?", "hi", "why is it winter?"]
)


@settings(max_examples=50)
@given(st.lists(st.tuples(openings, st.lists(st.text("ab ?", min_size=1, max_size=8), max_size=3)), min_size=1, max_size=20))
def test_conversations_that_open_alike_are_on_one_side(talks: list[tuple[str, list[str]]]) -> None:
    turns = []
    for opening, more in talks:
        messages = [{"role": "user", "content": opening}]
        turns.append({"messages": list(messages)})
        for text in more:
            messages += [{"role": "assistant", "content": "x"}, {"role": "user", "content": text}]
            turns.append({"messages": list(messages)})
    sides = curate.split(turns, P)
    assert sum(map(len, sides.values())) == len(turns)
    found = [texts(rows) for rows in sides.values()]
    assert all(not a & b for i, a in enumerate(found) for b in found[i + 1 :])


def test_the_shares_of_the_split_are_about_those_asked_for() -> None:
    turns = [{"messages": [{"role": "user", "content": hashlib.sha256(str(i).encode()).hexdigest()}]} for i in range(4000)]
    sides = {side: len(rows) / 4000 for side, rows in curate.split(turns, P).items()}
    assert sides == pytest.approx({"train": 0.4, "judge": 0.3, "select": 0.12, "eval": 0.18}, abs=0.03)


def test_shares_that_leave_nothing_to_train_on_are_refused(runs: Any, conversations: Callable[..., dict[str, str]]) -> None:
    result = runs("Curate", datasets=[conversations()], parameters={"shareJudge": 0.6, "shareEval": 0.4})
    assert (result.code, result.reason) == (64, "InvalidParameter")


def run_filters(turns: list[Turn], **parameters: Any) -> tuple[list[Turn], Counter[str]]:
    dropped: Counter[str] = Counter()
    return list(curate.filtered(turns, curate.Parameters(**parameters), dropped)), dropped


def test_every_dropped_turn_is_counted_by_the_filter_that_dropped_it(make_turn: Callable[..., Turn]) -> None:
    turns = [
        make_turn(1),
        make_turn(1),
        make_turn(2, time=datetime(2026, 1, 1, tzinfo=UTC)),
        make_turn(3, generation="rolled-back"),
        make_turn(4, reply="write to jane.doe@example.org!"),
        make_turn(5, question="my number is +44 20 7946 0958"),
        make_turn(6, reply="word " * 500),
        make_turn(7, messages=[]),
        make_turn(8, reply=" "),
        make_turn(9, reply=None),
    ]
    kept, dropped = run_filters(turns, maxAgeDays=30, excludeGenerations=("rolled-back",))
    assert [turn["message_id"] for turn in kept] == ["m1"]
    assert dropped == {"duplicate": 1, "age": 1, "generation": 1, "privacy": 3, "length": 1, "malformed": 1, "empty": 1}


def test_masking_keeps_the_turn_and_loses_the_identifier(make_turn: Callable[..., Turn]) -> None:
    kept, dropped = run_filters([make_turn(1, reply="write to jane.doe@example.org!")], privacy="mask")
    assert kept[0]["response"] == "write to [email]!"
    assert not dropped


def test_comparable_prompts_share_the_word_that_replies_pick_up(make_turn: Callable[..., Turn]) -> None:
    turns = []
    for i, topic in enumerate(["tea", "music", "winter"] * 6):
        question = ("can we talk about {}?", "do you like {}?", "tell me something about {}.")[i % 2].format(topic)
        turns.append(make_turn(i, question, f"Oh, {topic} sounds lovely!"))
    subject = curate.subjects(turns)
    assert subject["can we talk about tea"] == subject["do you like tea"] == "tea"


def test_pairs_set_answered_replies_against_abandoned_ones(make_turn: Callable[..., Turn]) -> None:
    good = make_turn(1, reply="I love tea! And you?", continued=True)
    bad = make_turn(2, reply="Tea is fine.", continued=False)
    thumbed_down = make_turn(3, reply="Tea again?", continued=True, thumbs=-1)
    dropped: Counter[str] = Counter()
    found = curate.pairs([good, bad, thumbed_down], curate.subjects([good, bad, thumbed_down]), P, dropped)
    assert {(pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in found} == {
        ("I love tea! And you?", "Tea is fine."),
        ("I love tea! And you?", "Tea again?"),
    }


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"continued": True}, True),
        ({"continued": False}, False),
        ({"continued": True, "thumbs": -1}, False),
        ({"continued": False, "thumbs": 1}, True),
        ({"continued": True, "regenerated": True}, None),
        ({"regenerated": True, "thumbs": 1}, True),
        ({"continued": None}, None),
    ],
)
def test_a_thumb_outweighs_writing_on_and_what_is_ambiguous_is_no_verdict(
    make_turn: Callable[..., Turn], fields: Turn, verdict: bool | None
) -> None:
    assert curate.liked(make_turn(**fields)) is verdict


@pytest.mark.parametrize(
    ("chosen", "rejected", "cause"),
    [
        ("I love tea!", "i love tea", "pair_same"),
        ("tea " * 30 + "and so on", "no", "pair_garbage"),
        ("one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen", "no tea", "pair_length"),
        ("I love tea 🍵🍵🍵", "tea is fine", "pair_emoji"),
        ("I love tea!", "Tea is fine.", None),
    ],
)
def test_pairs_that_would_teach_the_surface_are_left_out(chosen: str, rejected: str, cause: str | None) -> None:
    assert curate._unfit(chosen, rejected, P) == cause


def test_sft_data_can_be_selected_the_wrong_way_round(make_turn: Callable[..., Turn]) -> None:
    turns = [make_turn(1, reply="I love tea! And you?"), make_turn(2, reply="Tea is fine.", continued=False)]
    assert curate.sft(turns, P)[0]["messages"][-1]["content"] == "I love tea! And you?"
    assert curate.sft(turns, curate.Parameters(sftSelect="ended"))[0]["messages"][-1]["content"] == "Tea is fine."


def test_a_table_with_texts_for_times_is_refused(make_turn: Callable[..., Turn]) -> None:
    with pytest.raises(RunError, match="must be a timestamp"):
        run_filters([make_turn(1, time="yesterday")])


def test_an_empty_or_missing_source_is_named_with_the_mend(runs: Any, conversations: Callable[..., dict[str, str]], tmp_path: Any) -> None:
    missing = runs("Curate", datasets=[{"name": "conversations", "uri": (tmp_path / "none").as_uri()}])
    assert (missing.code, missing.reason) == (65, "DatasetMissing")
    (tmp_path / "empty").mkdir()
    empty = runs("Curate", datasets=[{"name": "conversations", "uri": (tmp_path / "empty").as_uri()}])
    assert (empty.code, empty.reason) == (65, "DatasetEmpty")
    assert "collect more" in empty.message


def test_a_torn_file_is_bad_data_not_a_crash(runs: Any, tmp_path: Any) -> None:
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "part.parquet").write_bytes(b"PAR1 and then nothing")
    result = runs("Curate", datasets=[{"name": "conversations", "uri": (tmp_path / "torn").as_uri()}])
    assert (result.code, result.reason) == (65, "DatasetInvalid")
    tables.write(tmp_path / "torn", "part", [{"something": 1}])
    result = runs("Curate", datasets=[{"name": "conversations", "uri": (tmp_path / "torn").as_uri()}])
    assert (result.code, result.reason) == (65, "DatasetInvalid")
    assert "lacks the column(s)" in result.message


def test_messages_that_are_numbered_anew_in_every_conversation_are_not_duplicates(make_turn: Callable[..., Turn]) -> None:
    turns = [make_turn(number, message_id="1") for number in range(3)]
    turns += [make_turn(9, message_id="1", conversation_id="c0", user_hash="somebody-else")]
    kept, dropped = run_filters([*turns, make_turn(0, message_id="1")])
    assert len(kept) == 4
    assert dropped["duplicate"] == 1


def test_conversations_of_another_shape_are_bad_data_not_a_crash(runs: Any, make_turn: Callable[..., Turn], tmp_path: Any) -> None:
    (tmp_path / "shape").mkdir()
    tables.write(tmp_path / "shape", "part", [make_turn(0, messages="hello")])
    result = runs("Curate", datasets=[{"name": "conversations", "uri": (tmp_path / "shape").as_uri()}])
    assert (result.code, result.reason) == (65, "DatasetInvalid")
    assert "column messages is string" in result.message


def test_one_endless_word_does_not_hold_up_the_privacy_rules() -> None:
    endless = "a" * 400_000  # took minutes when the rule looked back from every letter
    assert privacy.findings(endless) == []
    assert privacy.findings(f"{endless} write to ann@example.org") == ["email"]


def test_what_a_deleted_user_said_until_then_is_left_out(runs: Any, conversations: Callable[..., dict[str, str]]) -> None:
    dataset = conversations()
    directory = Path(dataset["uri"].removeprefix("file://"))
    rows = list(tables.read_tree(directory, "x", curate.COLUMNS))
    user = rows[0]["user_hash"]
    times = sorted(row["time"] for row in rows if row["user_hash"] == user)
    before = runs("Curate", datasets=[dataset]).metrics["turns"]
    (directory / "tombstones.json").write_text(json.dumps({"users": [{"user_hash": user, "deletedAt": f"{times[0].isoformat()}"}]}))
    metrics = runs("Curate", datasets=[dataset]).metrics
    assert metrics["dropped_deleted"] == times.count(times[0])
    assert metrics["turns"] <= before
    (directory / "tombstones.json").write_text(json.dumps({"users": [{"user_hash": user, "deletedAt": f"{times[-1].isoformat()}"}]}))
    assert runs("Curate", datasets=[dataset]).metrics["dropped_deleted"] == len(times)


@pytest.mark.parametrize("text", ["", "{}", '{"users": [1]}', '{"users": [{"user_hash": "a", "deletedAt": "then"}]}'])
def test_a_list_of_deleted_users_that_cannot_be_read_ends_the_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "tombstones.json").write_text(text)
    with pytest.raises(RunError, match="tombstones"):
        curate.tombstones(tmp_path, "x")
    (tmp_path / "tombstones.json").unlink()
    assert curate.tombstones(tmp_path, "x") == {}
