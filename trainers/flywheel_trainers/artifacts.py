"""The artifact store: content-addressed directories behind a URI, visible only when complete.

On a file system an artifact is copied under a temporary name, synced and renamed. An object store has no rename: there the
manifest is written last, and a directory without a manifest does not exist to any reader.
"""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from . import digests
from .errors import RunError

MANIFEST = "manifest.json"
SHARED = ".shared"  # in an artifact that runs of several owners have made


@dataclass(frozen=True)
class Artifact:
    uri: str
    digest: str
    size_bytes: int
    kind: str

    def to_json(self) -> dict[str, object]:
        return {"uri": self.uri, "digest": self.digest, "sizeBytes": self.size_bytes, "kind": self.kind}


# ---------------------------------------------------------------------------------------------------------------- writing


def publish(
    content: Path, store_uri: str, *, kind: str, card: str, metrics: Mapping[str, object], created_by: Mapping[str, object]
) -> Artifact:
    """Put `content` into the store as `<store>/sha256-<hex>`; if that artifact is there already, it is reused."""
    artifact = _seal(content, kind=kind, card=card, metrics=metrics, created_by=created_by)
    name = artifact.digest.replace(":", "-")
    artifact = replace(artifact, uri=f"{store_uri.rstrip('/')}/{name}")
    with storage_errors(store_uri):
        root = local_path(store_uri)
        if root is not None:
            _commit_local(content, root / name, created_by)
        else:
            _commit_remote(content, artifact.uri)
    return artifact


def write_to(
    content: Path, target: Path, *, kind: str, card: str, metrics: Mapping[str, object], created_by: Mapping[str, object]
) -> Artifact:
    """Like `publish`, but to a directory with a name of the caller's choice, replacing what was there."""
    artifact = _seal(content, kind=kind, card=card, metrics=metrics, created_by=created_by)
    if target.exists():
        shutil.rmtree(target)
    _commit_local(content, target.absolute(), {})
    return replace(artifact, uri=target.absolute().as_uri())


def _seal(content: Path, *, kind: str, card: str, metrics: Mapping[str, object], created_by: Mapping[str, object]) -> Artifact:
    (content / "README.md").write_text(card)
    (content / "metrics.json").write_text(json.dumps(metrics, indent=1, sort_keys=True, allow_nan=False) + "\n")
    digest = directory_digest(content)
    files = {
        path.relative_to(content).as_posix(): {"sha256": digests.sha256_file(path), "sizeBytes": path.stat().st_size}
        for path in digests.files_of(content)
        if path.name != MANIFEST
    }
    manifest = {"kind": kind, "digest": digest, "files": files, "createdBy": dict(created_by)}
    (content / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return Artifact(uri="", digest=digest, size_bytes=sum(int(str(f["sizeBytes"])) for f in files.values()), kind=kind)


def _commit_local(content: Path, target: Path, created_by: Mapping[str, object]) -> None:
    owner = str(created_by.get("uid", ""))
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in target.parent.glob(f".tmp-{owner}-*") if owner else ():
        shutil.rmtree(stale, ignore_errors=True)  # an earlier attempt of this run was killed while it wrote
    if target.exists():
        if not _damaged(target) and _used_again(target, created_by):
            return
        if target.exists():
            target.rename(
                target.with_name(f".damaged-{target.name}-{uuid.uuid4().hex}")
            )  # kept for whoever wants to know what happened to it
    staging = target.parent / f".tmp-{owner}-{uuid.uuid4().hex}"
    try:
        shutil.copytree(content, staging, copy_function=shutil.copyfile)
        for path in [staging, *staging.rglob("*")]:
            # Trainers write 0600; the server that loads this runs as somebody else.
            path.chmod(0o755 if path.is_dir() else 0o644)
            sync(path)
        os.utime(staging)  # how long it has been there counts from now, not from when the content was begun
        try:
            staging.rename(target)
        except OSError:
            if not target.exists():  # otherwise: another run made the very same artifact first
                raise
        sync(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _used_again(artifact: Path, created_by: Mapping[str, object]) -> bool:
    """Make an artifact that another run has made before as young as if this one had made it. False if it was collected meanwhile.

    What runs of two owners have made is marked, so that the garbage collection of neither takes it from the other.
    """
    try:
        made_by = json.loads((artifact / MANIFEST).read_bytes()).get("createdBy")
        if owner_of(made_by) != owner_of(created_by):
            (artifact / SHARED).touch()
        os.utime(artifact)
    except FileNotFoundError:
        return False
    return True


def owner_of(created_by: object) -> tuple[str, str] | None:
    """(namespace, Flywheel) of the run that made something; None for a run of nobody's, whose artifacts are never collected."""
    if not isinstance(created_by, Mapping) or not created_by.get("namespace") or not created_by.get("flywheel"):
        return None
    return str(created_by["namespace"]), str(created_by["flywheel"])


def _damaged(artifact: Path) -> bool:
    """Whether an artifact is no longer what its name says: then the run that makes it again heals it."""
    try:
        return directory_digest(artifact).replace(":", "-") != artifact.name
    except RunError:
        return True


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _commit_remote(content: Path, uri: str) -> None:
    filesystem, root = _filesystem(uri)
    if not filesystem.exists(f"{root}/{MANIFEST}"):
        upload(content, uri, last=MANIFEST)


def upload(source: Path, uri: str, *, last: str) -> None:
    """Copy a directory to an object store. The file `last` goes last: readers take it as the sign that the rest is there."""
    filesystem, root = _filesystem(uri)
    for path in sorted(digests.files_of(source), key=lambda path: path.name == last):
        filesystem.put_file(str(path), f"{root}/{path.relative_to(source).as_posix()}")


def download(uri: str, target: Path) -> None:
    """Copy a directory from an object store; `target` appears when it is whole."""
    filesystem, root = _filesystem(uri)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent))
    for remote in filesystem.find(root):
        local = partial / str(remote)[len(root) :].lstrip("/")
        local.parent.mkdir(parents=True, exist_ok=True)
        filesystem.get_file(remote, str(local))
    partial.rename(target)


def complete_directories(uri: str, marker: str) -> list[str]:
    """Names of the directories directly below `uri` that hold the file `marker`."""
    filesystem, root = _filesystem(uri)
    if not filesystem.exists(root):
        return []
    return [str(path).split("/")[-2] for path in filesystem.find(root) if str(path).endswith(f"/{marker}")]


def remove(uri: str) -> None:
    filesystem, root = _filesystem(uri)
    if filesystem.exists(root):
        filesystem.rm(root, recursive=True)


def card(title: str, summary: str, facts: Mapping[str, object] | None = None) -> str:
    """The README of an artifact."""
    lines = [f"# {title}", "", summary]
    if facts:
        lines += ["", "| | |", "| --- | --- |", *(f"| {key} | {_cell(value)} |" for key, value in facts.items())]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|").replace("\n", " ")


# ---------------------------------------------------------------------------------------------------------------- reading


def directory_digest(directory: Path) -> str:
    """Like the function of `digests`, but damage that keeps a table from being read is named as such."""
    try:
        return digests.directory_digest(directory)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise RunError("DatasetInvalid", f"{directory}: cannot be read: {error}; write it again or point to another artifact") from error


def fetch(uri: str, digest: str | None, *, what: str, missing: str, cache: Path) -> Path:
    """The local directory with the content of `uri`, checked against `digest` if one is given."""
    with storage_errors(uri):
        path = local_path(uri)
        if path is None:
            path = _download(uri, cache, what=what, missing=missing)
        if not path.exists():
            raise RunError(missing, f"{what} ({uri}) does not exist; check the URI and that the volume is mounted")
        if digest is not None:
            found = directory_digest(path)
            if found != digest:
                raise RunError(
                    "DigestMismatch",
                    f"{what} ({uri}) has digest {found}, but {digest} was asked for; "
                    "somebody changed the files: restore them, or refer to the new digest on purpose",
                )
    return path


def _download(uri: str, cache: Path, *, what: str, missing: str) -> Path:
    filesystem, root = _filesystem(uri)
    target = cache / digests.sha256_bytes(uri.encode())[:16]
    if not target.exists():
        if not filesystem.exists(root):
            raise RunError(missing, f"{what} ({uri}) does not exist; check the URI and the credentials")
        download(uri, target)
    return target


# ------------------------------------------------------------------------------------------------------------------ URIs


def local_path(uri: str) -> Path | None:
    """The path of a `file://` URI; None for every other scheme."""
    parts = urlsplit(uri)
    if parts.scheme != "file":
        return None
    return Path(unquote(parts.path))


def _filesystem(uri: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        filesystem, root = url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise RunError("InvalidConfig", f"storage {uri}: {error}; use file://, or an image that has the driver") from error
    return filesystem, str(root)


@contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Storage that fails is worth another try: full disks get space, networks come back."""
    try:
        yield
    except RunError:
        raise
    except OSError as error:
        raise RunError("StorageUnavailable", f"storage {uri}: {error}; the run can be repeated once storage works") from error
