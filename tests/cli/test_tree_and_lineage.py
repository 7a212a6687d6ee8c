"""The tree shows what belongs to what and how far it is; the lineage who came from whom."""

from __future__ import annotations

from flywheel.cli.lineage import lineage
from flywheel.cli.tree import Node, forest
from tests.cli.recorded import Object, everything, recorded, run, running_lap


def named(nodes: list[Node], name: str) -> Node:
    return next(node for root in nodes for node in root.walk() if node.name.startswith(name) and node.kind != "Stage")


def test_everything_of_a_flywheel_hangs_below_it_once() -> None:
    (root,) = forest(everything())
    shown = [(node.kind, node.name) for node in root.walk() if node.kind in ("Generation", "TrainingRun", "RewardModel", "Rollout")]
    there = [(body["kind"], body["metadata"]["name"]) for body in everything() if body["kind"] != "Flywheel"]
    assert sorted(shown) == sorted(there)
    assert [child.name for child in root.children] == ["companion-1", "companion-1", "companion-2", "companion-3"]
    assert root.children[0].kind == "Champion"


def test_a_running_stage_shows_percent_and_time_to_go() -> None:
    bodies = [recorded("Flywheel", "companion"), running_lap(), run("Running", progress={"percent": 41, "etaSeconds": 100})]
    (root,) = forest(bodies)
    stage = next(node for node in root.walk() if node.kind == "Stage" and node.name == "rl")
    assert stage.words() == "40 %  2 min to go  Running: step 18 of 44"
    assert named([root], "companion-2-rl").words().startswith("41 %  100 s to go")


def test_a_gate_that_failed_is_a_line_of_its_stage() -> None:
    (root,) = forest(everything())
    gates = [node.words() for node in root.walk() if node.kind == "Gate"]
    assert "safety_violation_rate is 0.03125, must be ≤ 0.03" in gates


def test_what_belongs_to_no_flywheel_is_shown_beside_it() -> None:
    alone = run("Failed")
    alone["metadata"] |= {"name": "trial", "ownerReferences": []}
    lost = running_lap()
    lost["metadata"]["name"], lost["spec"]["flywheel"] = "lost", "gone"
    assert [(node.kind, node.name) for node in forest([*everything(), alone, lost])] == [
        ("Flywheel", "companion"),
        ("Generation", "lost"),
        ("TrainingRun", "trial"),
    ]
    assert [node.name for node in forest([*everything(), alone], "companion")] == ["companion"]


def test_a_script_gets_the_tree_without_empty_fields() -> None:
    assert Node("Arm", "a", "Stable", children=[Node("Metric", "depth", percent=0.0)]).dump() == {
        "kind": "Arm",
        "name": "a",
        "phase": "Stable",
        "children": [{"kind": "Metric", "name": "depth", "percent": 0.0}],
    }


def laps() -> list[Object]:
    return [body for body in everything() if body["kind"] == "Generation"]


def test_lineage_tells_parent_model_verdict_and_why_from_the_oldest_on() -> None:
    entries = lineage(recorded("Flywheel", "companion"), laps())
    assert [(e.generation, e.parent, e.verdict) for e in entries] == [
        ("companion-initial", "", "Served"),
        ("companion-1", "companion-initial", "Promoted"),
        ("companion-2", "companion-1", "Rejected"),
        ("companion-3", "companion-1", "RolledBack"),
    ]
    assert entries[2].digest.startswith("sha256:a05de3f4")
    assert entries[2].stage == "evaluate"
    assert "safety_violation_rate" in entries[2].why


def test_lineage_tells_who_served_when() -> None:
    first, second, *losers = lineage(recorded("Flywheel", "companion"), laps())
    assert (first.served_from, first.served_until) == ("2026-11-24T23:10:33.187323Z", "2026-11-24T23:20:03.387582Z")
    assert (second.served_from, second.served_until, second.champion) == ("2026-11-24T23:20:03.387582Z", "", True)
    assert not any(entry.served_from or entry.champion for entry in losers)


def test_a_champion_whose_lap_is_gone_is_still_in_the_lineage() -> None:
    entries = lineage(recorded("Flywheel", "companion"), [])
    assert [(e.generation, e.champion) for e in entries] == [("companion-initial", False), ("companion-1", True)]


def test_laps_of_another_flywheel_are_not_its_children() -> None:
    other = recorded("Generation", "companion-2")
    other["spec"]["flywheel"] = "other"
    assert "companion-2" not in {entry.generation for entry in lineage(recorded("Flywheel", "companion"), [other])}
