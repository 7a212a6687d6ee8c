"""Rules over text: identifiers, style, near-duplicates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_trainers import neardup, privacy, scoring, style


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("mail me: jane.doe+x@mail.example.co.uk", "email"),
        ("call +1 (555) 867-5309 tonight", "phone"),
        ("my card is 4111 1111 1111 1111", "card"),
        ("server 192.168.10.254 is down", "ipv4"),
        ("it is 2001:0db8:85a3:0000:0000:8a2e:0370:7334", "ipv6"),
        ("pay to DE89 3704 0044 0532 0130 00", "iban"),
        ("ssn 078-05-1120", "ssn"),
        ("https://bob:hunter2@example.org/", "url-credentials"),
        ("key sk-abcdefghijklmnop1234", "secret"),
        ("broken \ufffd text", "unreadable"),
        (None, "unreadable"),
    ],
)
def test_identifiers_are_found(text: object, rule: str) -> None:
    assert rule in privacy.findings(text)


@pytest.mark.parametrize(
    "text",
    ["I love tea! What do you like most about it?", "it was 1984, at 10:30", "on 2026-11-23 we met", "I paid 12.50 for 3 books"],
)
def test_ordinary_talk_passes(text: str) -> None:
    assert privacy.findings(text) == []


@given(st.text(), st.sampled_from(["a@b.org", "+49 30 901820 555", "10.1.2.3"]), st.text())
def test_masked_text_has_no_finding_left_or_is_dropped(before: str, identifier: str, after: str) -> None:
    masked = privacy.mask(f"{before} {identifier} {after}")
    assert identifier not in masked or privacy.findings(masked)


@pytest.mark.parametrize("text", ["", "?", "?????", "what???", "aaaaaaa bbb", "tea tea tea tea tea tea tea", "!? !? !? tea ;;"])
def test_garbage_is_seen(text: str) -> None:
    assert style.is_garbage(text)


@pytest.mark.parametrize(
    "text", ["I love tea! What do you like most about it?", "It is fine.", "Tea is a common topic. It depends on the details."]
)
def test_plain_replies_are_no_garbage(text: str) -> None:
    assert not style.is_garbage(text)


@pytest.mark.parametrize(
    ("text", "refuses"), [("Sorry, I cannot help with that.", True), ("I can talk about tea.", False), ("I cannot wait!", False)]
)
def test_refusals_are_told_from_other_replies(text: str, refuses: bool) -> None:
    assert style.is_refusal(text) == refuses


def test_the_naive_reward_is_gamed_by_one_more_question_mark() -> None:
    assert scoring.question_mark("I love tea!") == scoring.question_mark("Tea???") == 0
    assert scoring.question_mark("And you?") < scoring.question_mark("And you??") == 1


def test_near_duplicates_leave_and_the_first_of_them_stays() -> None:
    a = "my day was all about the garden and the old apple tree behind the house"
    texts = [a, a.upper() + "!", "do you like tea?", "do you like music?", a + " today"]
    assert neardup.distinct(texts, 0.9) == [0, 2, 3]


@given(st.lists(st.text("abc ", max_size=12), max_size=15))
def test_pruning_keeps_no_two_equal_texts_and_loses_none_altogether(texts: list[str]) -> None:
    kept = neardup.distinct(texts, 1.0)
    found = [neardup.shingles(texts[i]) for i in kept]
    assert len(set(found)) == len(found)
    assert set(found) == {neardup.shingles(text) for text in texts}
