"""Garbage collection on a real directory: what is needed, young, foreign or a link stays, whatever its name."""

import json
import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_trainers import artifacts, checkpoints, sweep
from flywheel_trainers.sweep import Keep, verdict

OURS = {"namespace": "test", "name": "a-run", "uid": "1111", "attempt": 1, "flywheel": "companion"}
DAY = 86400.0
NOW = datetime.now(UTC)


class Store:
    """A claim with things of several owners and ages."""

    def __init__(self, runs: Any, root: Path) -> None:
        self.runs, self.root, self.scratch = runs, root, 0

    def artifact(self, text: str, *, days: float = 30, by: dict[str, Any] | None = None) -> Path:
        """An artifact with this text in it, made so long ago."""
        content = self.root / f"content-{self.scratch}"
        self.scratch += 1
        content.mkdir()
        (content / "weights.txt").write_text(text)
        made = artifacts.publish(content, self.uri, kind="model", card="", metrics={}, created_by=OURS if by is None else by)
        shutil.rmtree(content)
        return aged(Path(made.uri.removeprefix("file://")), days)

    def checkpoint(self, uid: str, *, days: float = 30, owner: dict[str, Any] | None = None) -> Path:
        """A checkpoint of a run."""
        directory = self.root / "checkpoints" / uid / "0a1b2c3d"
        (directory / "checkpoint-10").mkdir(parents=True)
        (directory / "checkpoint-10" / "weights").write_text("w" * 100)
        if owner != {}:
            (directory / checkpoints.OWNER).write_text(json.dumps(owner or {**OURS, "uid": uid}))
        return aged(directory, days)

    @property
    def uri(self) -> str:
        return (self.root / "artifacts").as_uri()

    def collect(self, *keep: Path, runs: tuple[str, ...] = (), dry: bool = False, days: float = 7, **parameters: Any) -> Any:
        """A collection whose mark was taken now."""
        digests = [path.name.removeprefix("sha256-")[:20] for path in keep]
        given = {
            "flywheel": "companion",
            "markedAt": NOW.isoformat(),
            "graceSeconds": days * DAY,
            "dryRun": dry,
            "keep": {"digests": digests, "runs": list(runs)},
            **parameters,
        }
        checkpoint = {"uri": (self.root / "checkpoints" / "me" / "00000000").as_uri()}
        return self.runs("GarbageCollect", parameters=given, run={**OURS, "uid": "me"}, checkpoint=checkpoint)


def aged(path: Path, days: float) -> Path:
    then = NOW.timestamp() - days * DAY
    for one in [*path.rglob("*"), path]:
        os.utime(one, (then, then), follow_symlinks=False)
    return path


@pytest.fixture
def store(runs: Any, tmp_path: Path) -> Store:
    return Store(runs, tmp_path)


def test_what_is_old_and_unmarked_goes_and_everything_else_stays(store: Store) -> None:
    garbage, needed, young = store.artifact("garbage"), store.artifact("needed"), store.artifact("young", days=2)
    others = store.artifact("other", by={**OURS, "flywheel": "other"})
    elsewhere = store.artifact("elsewhere", by={**OURS, "namespace": "elsewhere"})
    nobodys = store.artifact("nobody", by={"tool": "make-base"})
    result = store.collect(needed)
    assert not garbage.exists()
    for kept in (needed, young, others, elsewhere, nobodys):
        assert (kept / "manifest.json").exists(), kept
        assert artifacts.directory_digest(kept).replace(":", "-") == kept.name
    assert result.metrics["collected_artifacts"] == 1
    assert [result.metrics[f"kept_{fate}"] for fate in ("referenced", "young", "foreign")] == [1, 1, 3]
    assert result.metrics["collected_bytes"] == result.metrics[f"artifact.{garbage.name[7:19]}"] > 7


def test_a_dry_run_says_what_would_go_and_touches_nothing(store: Store) -> None:
    garbage, checkpoint = store.artifact("garbage"), store.checkpoint("gone")
    before = sorted((str(path), path.lstat().st_mtime) for path in store.root.rglob("*") if path.is_file() and path.parent != store.root)
    result = store.collect(dry=True)
    assert (result.metrics["collected_artifacts"], result.metrics["collected_checkpoints"], result.metrics["dry_run"]) == (1, 1, 1)
    after = {(str(path), path.lstat().st_mtime) for path in store.root.rglob("*") if path.is_file()}
    assert set(before) <= after
    report = json.loads((result.path / "report.json").read_text())
    gone = {one["path"]: one["fate"] for one in report["found"] if one["fate"] == "collected"}
    assert gone == {garbage.name: "collected", f"gone/{checkpoint.name}": "collected"}


def test_a_dry_run_is_what_happens_unless_it_is_said_otherwise(store: Store) -> None:
    garbage = store.artifact("garbage")
    parameters = {"flywheel": "companion", "markedAt": NOW.isoformat(), "keep": {"digests": [], "runs": []}}
    result = store.runs("GarbageCollect", parameters=parameters, run=OURS)
    assert result.metrics["collected_artifacts"] == 1
    assert garbage.exists()


def test_checkpoints_of_runs_that_may_go_on_stay_and_so_do_those_of_unknown_owners(store: Store) -> None:
    gone, failed = store.checkpoint("gone"), store.checkpoint("failed")
    young, unknown, forged = store.checkpoint("young", days=1), store.checkpoint("unknown", owner={}), store.checkpoint("x", owner=OURS)
    result = store.collect(runs=("failed",))
    assert not gone.parent.exists()
    assert all(path.exists() for path in (failed, young, unknown, forged))
    assert result.metrics["collected_checkpoints"] == 1


def test_links_are_not_followed_and_what_they_lead_to_stays(store: Store, tmp_path: Path) -> None:
    precious = aged(_filled(tmp_path / "precious"), 100)
    garbage = store.artifact("garbage")
    (garbage / "link").symlink_to(precious)
    (garbage / "file").symlink_to(precious / "manifest.json")
    aged(garbage, 30)
    link = store.root / "artifacts" / f"sha256-{'e' * 64}"
    link.symlink_to(precious)
    os.utime(link, (0, 0), follow_symlinks=False)
    (store.root / "checkpoints").mkdir(exist_ok=True)
    (store.root / "checkpoints" / "uid").symlink_to(precious)
    (precious / "0a1b2c3d").mkdir()
    result = store.collect()
    assert not garbage.exists()
    assert link.is_symlink()
    assert (precious / "manifest.json").exists()
    assert (precious / "0a1b2c3d").exists()
    assert result.metrics["collected_artifacts"] == 1


def _filled(path: Path) -> Path:
    path.mkdir()
    (path / "manifest.json").write_text(json.dumps({"createdBy": OURS}))
    (path / checkpoints.OWNER).write_text(json.dumps(OURS))
    return path


def test_a_manifest_that_is_a_link_makes_nothing_ours(store: Store, tmp_path: Path) -> None:
    precious = _filled(tmp_path / "precious")
    odd = store.root / "artifacts" / f"sha256-{'d' * 64}"
    odd.mkdir(parents=True)
    (odd / "manifest.json").symlink_to(precious / "manifest.json")
    aged(odd, 100)
    assert store.collect().metrics["kept_foreign"] == 1
    assert odd.exists()


def test_a_store_that_is_a_link_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (store.root / "artifacts").symlink_to(tmp_path / "real")
    result = store.collect()
    assert (result.code, result.reason) == (64, "InvalidConfig")
    assert "is a link" in result.message


def test_what_is_not_named_like_an_artifact_is_none(store: Store) -> None:
    store.artifact("x")
    names = ["base", "sha256-short", ".tmp-1-2", f"sha256-{'A' * 64}", f".damaged-sha256-{'a' * 64}"]
    for name in names:
        aged(_filled(store.root / "artifacts" / name), 100)
    store.collect()
    assert all((store.root / "artifacts" / name / "manifest.json").exists() for name in names)


def test_an_artifact_that_a_run_makes_again_is_young_again(store: Store) -> None:
    again = store.artifact("again")
    store.artifact("again", days=0)
    assert store.collect().metrics["kept_young"] == 1
    assert again.exists()


def test_an_artifact_that_two_owners_made_is_nobodys_garbage(store: Store) -> None:
    both = store.artifact("both")
    store.artifact("both", by={**OURS, "flywheel": "other"})
    assert store.collect().metrics["kept_foreign"] == 1
    assert both.exists()


def test_something_that_is_used_between_the_look_and_the_rename_comes_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    garbage = store.artifact("garbage")
    real = os.rename

    def late(source: str, target: str, **where: Any) -> None:
        if str(target).startswith(sweep.TRASH):
            store.artifact("garbage", days=0)  # another run makes the very same at this moment
        real(source, target, **where)

    monkeypatch.setattr(sweep.os, "rename", late)
    result = store.collect()
    monkeypatch.undo()
    assert (result.metrics["collected_artifacts"], result.metrics["kept_young"]) == (0, 1)
    assert artifacts.directory_digest(garbage).replace(":", "-") == garbage.name


def test_a_run_that_misses_what_was_just_collected_makes_it_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    garbage = store.artifact("garbage")
    real = artifacts._used_again

    def late(artifact: Path, created_by: Any) -> bool:
        shutil.rmtree(artifact)
        return real(artifact, created_by)

    monkeypatch.setattr(artifacts, "_used_again", late)
    store.artifact("garbage")
    assert artifacts.directory_digest(garbage).replace(":", "-") == garbage.name


def test_a_collection_that_was_killed_is_finished_by_the_next(store: Store) -> None:
    garbage = store.artifact("garbage")
    garbage.rename(garbage.with_name(sweep.TRASH + garbage.name))
    store.collect()
    assert [path.name for path in (store.root / "artifacts").iterdir() if path.name.startswith(sweep.TRASH)] == []


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"flywheel": ""}, "without them everything is garbage"),
        ({"keep": None}, "without them everything is garbage"),
        ({"keep": {"digests": []}}, "parameters.keep.runs must be a list"),
        ({"keep": {"digests": [1], "runs": []}}, "parameters.keep.digests must be a list"),
        ({"keep": {"digests": ["sha256:aa"], "runs": []}}, "first 20 hexadecimal digits"),
        ({"markedAt": "yesterday"}, "parameters.markedAt must be a time in RFC 3339, not 'yesterday'"),
        ({"graceSeconds": 10}, "parameters.graceSeconds must be 3600"),
    ],
)
def test_parameters_that_would_delete_too_much_are_refused(store: Store, parameters: dict[str, Any], says: str) -> None:
    garbage = store.artifact("garbage")
    result = store.collect(**parameters)
    assert (result.code, result.reason) == (64, "InvalidParameter")
    assert says in result.message
    assert garbage.exists()


def test_a_bucket_is_refused(store: Store) -> None:
    parameters = {"flywheel": "companion", "markedAt": NOW.isoformat(), "keep": {"digests": [], "runs": []}}
    result = store.runs("GarbageCollect", parameters=parameters, run=OURS, output={"uri": "memory://store/artifacts"})
    assert (result.code, result.reason) == (64, "InvalidConfig")
    assert "a bucket may be shared" in result.message


def test_many_finds_fit_into_the_termination_message_largest_first(store: Store) -> None:
    for number in range(120):
        store.artifact("x" * number)
    metrics = store.collect(dry=True).metrics
    listed = [value for name, value in metrics.items() if name.startswith("artifact.")]
    assert listed == sorted(listed, reverse=True)
    assert metrics["collected_artifacts"] == 120
    assert 30 <= len(listed) <= 60


# --------------------------------------------------------------------------------------------------------------- property

OWNERS = st.sampled_from([None, ("test", "companion"), ("test", "other"), ("else", "companion")])


@given(owner=OWNERS, referenced=st.booleans(), shared=st.booleans(), age=st.floats(-1e6, 1e6), key=st.sampled_from(["", "k"]))
def test_only_what_is_ours_old_unshared_and_unreferenced_goes(
    owner: tuple[str, str] | None, referenced: bool, shared: bool, age: float, key: str
) -> None:
    keep = Keep((), (), ("test", "companion"), cutoff=0.0)
    fate = verdict(keep, key=key, referenced=referenced, owner=owner, shared=shared, newest=age)
    goes = owner == ("test", "companion") and not referenced and not shared and age < 0 and bool(key)
    assert (fate == "collected") == goes


def test_a_checkpoint_tells_whose_it_is(tmp_path: Path) -> None:
    kept = checkpoints.Checkpoints((tmp_path / "c").as_uri(), tmp_path, every_steps=1, keep=2, run=OURS)
    (tmp_path / "c" / "checkpoint-1").mkdir(parents=True)
    kept.complete("checkpoint-1")
    assert json.loads((tmp_path / "c" / checkpoints.OWNER).read_text()) == OURS
    assert kept.newest() is not None
    kept.clear()
    assert not (tmp_path / "c").exists()


def test_time_passes_and_what_was_published_lately_is_younger_than_its_content(store: Store) -> None:
    content = store.root / "slow"
    content.mkdir()
    (content / "weights.txt").write_text("x")
    aged(content, 30)
    before = time.time() - timedelta(minutes=1).total_seconds()
    made = artifacts.publish(content, store.uri, kind="model", card="", metrics={}, created_by=OURS)
    assert Path(made.uri.removeprefix("file://")).stat().st_mtime > before
