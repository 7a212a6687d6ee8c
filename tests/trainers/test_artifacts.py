"""The store shows whole artifacts or none, and notices when one was touched."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flywheel_trainers import artifacts
from flywheel_trainers.errors import RunError

ROOT = Path(__file__).resolve().parents[2]


def content(directory: Path, text: str = "weights") -> Path:
    directory.mkdir(parents=True)
    (directory / "sub").mkdir()
    (directory / "model.safetensors").write_text(text)
    (directory / "sub" / "config.json").write_text("{}")
    (directory / "model.safetensors").chmod(0o600)
    return directory


def publish(source: Path, store: str) -> artifacts.Artifact:
    return artifacts.publish(source, store, kind="model", card="# A card\n", metrics={"loss": 1.0}, created_by={"uid": "u1"})


def test_an_artifact_has_its_digest_for_a_name_and_everybody_may_read_it(tmp_path: Path) -> None:
    artifact = publish(content(tmp_path / "c"), (tmp_path / "store").as_uri())
    directory = tmp_path / "store" / artifact.digest.replace(":", "-")
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["digest"] == artifact.digest
    assert manifest["kind"] == "model"
    assert manifest["createdBy"] == {"uid": "u1"}
    assert set(manifest["files"]) == {"README.md", "metrics.json", "model.safetensors", "sub/config.json"}
    for path in [directory, *directory.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644)


def test_publishing_the_same_content_again_reuses_the_artifact(tmp_path: Path) -> None:
    store = (tmp_path / "store").as_uri()
    first = publish(content(tmp_path / "a"), store)
    inode = artifacts.local_path(first.uri).stat().st_ino  # type: ignore[union-attr]
    assert publish(content(tmp_path / "b"), store) == first
    assert artifacts.local_path(first.uri).stat().st_ino == inode  # type: ignore[union-attr]
    assert len(list((tmp_path / "store").iterdir())) == 1


def test_a_touched_artifact_is_refused_and_both_digests_are_named(tmp_path: Path) -> None:
    artifact = publish(content(tmp_path / "c"), (tmp_path / "store").as_uri())
    path = artifacts.local_path(artifact.uri)
    assert path is not None
    assert artifacts.fetch(artifact.uri, artifact.digest, what="the model", missing="ModelMissing", cache=tmp_path) == path
    (path / "model.safetensors").write_text("other weights")
    with pytest.raises(RunError) as caught:
        artifacts.fetch(artifact.uri, artifact.digest, what="the model", missing="ModelMissing", cache=tmp_path)
    assert (caught.value.reason, caught.value.exit_code) == ("DigestMismatch", 65)
    assert artifact.digest in caught.value.message
    assert artifacts.directory_digest(path) in caught.value.message


def test_making_a_damaged_artifact_again_heals_it_and_keeps_what_was_found(tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = publish(content(tmp_path / "a"), store.as_uri())
    path = artifacts.local_path(first.uri)
    assert path is not None
    (path / "model.safetensors").write_text("rot")
    assert publish(content(tmp_path / "b"), store.as_uri()) == first
    assert artifacts.fetch(first.uri, first.digest, what="the model", missing="ModelMissing", cache=tmp_path) == path
    (damaged,) = store.glob(".damaged-*")
    assert (damaged / "model.safetensors").read_text() == "rot"


def test_a_missing_artifact_is_named_as_what_it_should_have_been(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        artifacts.fetch((tmp_path / "nowhere").as_uri(), None, what="the model", missing="ModelMissing", cache=tmp_path)
    assert (caught.value.reason, caught.value.exit_code) == ("ModelMissing", 65)


def test_a_store_that_cannot_be_written_is_worth_another_try(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where a directory should be")
    with pytest.raises(RunError) as caught:
        publish(content(tmp_path / "c"), (tmp_path / "store").as_uri())
    assert (caught.value.reason, caught.value.exit_code) == ("StorageUnavailable", 75)


def test_a_kill_in_the_middle_of_writing_leaves_nothing_visible_and_the_next_attempt_cleans_up(tmp_path: Path) -> None:
    source = content(tmp_path / "c")
    (source / "big.safetensors").write_bytes(b"0" * 100_000)
    script = (
        "import sys, time, pathlib, shutil\n"
        "from flywheel_trainers import artifacts\n"
        "real = artifacts.sync\n"
        "def slow(path):\n"
        "    real(path); print('writing', flush=True); time.sleep(0.5)\n"
        "artifacts.sync = slow\n"
        f"artifacts.publish(pathlib.Path({str(source)!r}), {(tmp_path / 'store').as_uri()!r}, kind='model', card='', metrics={{}},"
        " created_by={'uid': 'u1'})\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT / "trainers")}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = [path.name for path in (tmp_path / "store").iterdir()]
    assert left
    assert all(name.startswith(".tmp-u1-") for name in left)
    artifact = publish(source, (tmp_path / "store").as_uri())
    assert [path.name for path in (tmp_path / "store").iterdir()] == [artifact.digest.replace(":", "-")]


def test_other_storage_shows_an_artifact_once_its_manifest_is_there(tmp_path: Path) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    store = f"memory://store-{time.monotonic_ns()}"
    artifact = publish(content(tmp_path / "c"), store)
    fetched = artifacts.fetch(artifact.uri, artifact.digest, what="the model", missing="ModelMissing", cache=tmp_path / "cache")
    assert (fetched / "sub" / "config.json").read_text() == "{}"
    names = [path.rsplit("/", 1)[-1] for path in MemoryFileSystem.store if store.removeprefix("memory://") in path]
    assert names[-1] == "manifest.json"
    assert artifacts.complete_directories(store, "manifest.json") == [artifact.digest.replace(":", "-")]
    artifacts.remove(artifact.uri)
    with pytest.raises(RunError, match="does not exist"):
        artifacts.fetch(artifact.uri, None, what="the model", missing="ModelMissing", cache=tmp_path / "other")
