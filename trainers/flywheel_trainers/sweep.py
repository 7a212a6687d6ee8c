"""Deleting from the store what nobody needs: the sweep of a mark-and-sweep, on a file system that others write to meanwhile.

Only directories are deleted, and only where a directory was opened by its name without following a link: a link in the store leads
nowhere. Something goes in three steps: it is old and unmarked; it is renamed, which no writer can overlook; it is looked at again, and
comes back if somebody has used it in between.
"""

import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from . import artifacts, checkpoints
from .errors import RunError

ARTIFACT = re.compile(r"sha256-[0-9a-f]{64}")
CHECKPOINT = re.compile(r"[0-9a-f]{8}")
TRASH = ".collected-"
PREFIX = 20  # digits of a digest in the list of what stays
_MAX_MANIFEST = 64 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True)
class Keep:
    """What stays, whatever its age: digests by their first digits, and runs by uid; and everything younger than `cutoff`."""

    digests: Collection[str]
    runs: Collection[str]
    owner: tuple[str, str]  # (namespace, Flywheel) whose things may go
    cutoff: float  # seconds since the epoch


@dataclass(frozen=True)
class Found:
    """Something in the store, and what becomes of it: `collected`, or why it stays."""

    path: str
    kind: str  # artifact or checkpoint
    bytes: int
    fate: str  # collected, referenced, young, foreign


def verdict(keep: Keep, *, key: str, referenced: bool, owner: tuple[str, str] | None, shared: bool, newest: float) -> str:
    """What becomes of one directory. Foreign comes first: of what is not ours nothing else matters."""
    if owner != keep.owner or shared or not key:
        return "foreign"
    if referenced:
        return "referenced"
    return "young" if newest >= keep.cutoff else "collected"


def sweep_artifacts(root: Path, keep: Keep, *, delete: bool, check: Callable[[], None]) -> list[Found]:
    """Artifacts of the store at `root`; with `delete` those whose fate is `collected` are gone afterwards."""
    found = []
    with _opened(root) as directory:
        if directory is None:
            return []
        if delete:
            _empty_trash(directory)
        for name in sorted(os.listdir(directory)):
            check()
            if ARTIFACT.fullmatch(name):
                found += _sweep(directory, name, keep, delete, kind="artifact", marker=artifacts.MANIFEST)
    return found


def sweep_checkpoints(root: Path, keep: Keep, *, delete: bool, check: Callable[[], None]) -> list[Found]:
    """Checkpoints at `<root>/<run uid>/<8 hex>`."""
    found = []
    with _opened(root) as directory:
        for uid in sorted(os.listdir(directory)) if directory is not None else ():
            check()
            with _opened(uid, directory) as below:
                if below is None:
                    continue
                if delete:
                    _empty_trash(below)
                for name in sorted(os.listdir(below)):
                    if CHECKPOINT.fullmatch(name):
                        found += _sweep(below, name, keep, delete, kind="checkpoint", marker=checkpoints.OWNER, uid=uid)
            if delete and any(one.fate == "collected" and one.path.startswith(f"{uid}/") for one in found):
                _remove_empty(uid, directory)
    return found


def _sweep(parent: int, name: str, keep: Keep, delete: bool, *, kind: str, marker: str, uid: str = "") -> list[Found]:
    with _opened(name, parent) as directory:
        if directory is None:
            return []
        told = _read_json(directory, marker)
        made_by = told if kind == "checkpoint" else told.get("createdBy")
        shared = artifacts.SHARED in os.listdir(directory)
        size, newest = _measure(directory)
    if kind == "checkpoint":
        referenced, key = uid in keep.runs, uid if isinstance(made_by, dict) and made_by.get("uid") == uid else ""
    else:
        key = name.removeprefix("sha256-")
        referenced = key[:PREFIX] in keep.digests
    fate = verdict(keep, key=key, referenced=referenced, owner=artifacts.owner_of(made_by), shared=shared, newest=newest)
    if fate == "collected" and delete and not _delete(parent, name, newest):
        fate = "young"
    return [Found(f"{uid}/{name}" if uid else name, kind, size, fate)]


def _delete(parent: int, name: str, newest: float) -> bool:
    """Put aside, look again, and then delete. False: somebody has used it, and it is back, or it is gone already."""
    aside = f"{TRASH}{name}"
    try:
        os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=parent)
    except FileNotFoundError:
        return False
    with _opened(aside, parent) as directory:
        touched = directory is not None and _measure(directory)[1] > newest
    if touched:
        try:
            os.rename(aside, name, src_dir_fd=parent, dst_dir_fd=parent)
            return False
        except OSError:  # whoever missed it has made it anew
            pass
    shutil.rmtree(aside, dir_fd=parent)
    return not touched


def _empty_trash(directory: int) -> None:
    """What a collection that was killed had put aside already."""
    for name in os.listdir(directory):
        if name.startswith(TRASH) and stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
            shutil.rmtree(name, ignore_errors=True, dir_fd=directory)


def _remove_empty(name: str, directory: int | None) -> None:
    with suppress(OSError):  # other checkpoints of that run
        os.rmdir(name, dir_fd=directory)


@contextmanager
def _opened(path: "Path | str", parent: int | None = None) -> Iterator[int | None]:
    """A directory by a descriptor; None if it is not there, or no directory (a link to one is none)."""
    try:
        descriptor = os.open(path, _DIRECTORY, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        descriptor = None
    except OSError as error:
        if error.errno != errno.ELOOP:  # a link
            raise
        descriptor = None
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _read_json(directory: int, name: str) -> dict[str, object]:
    """A small file of a directory; nothing if it is not there, a link, or no JSON object."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except OSError:
        return {}
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return {}
        try:
            value = json.loads(file.read(_MAX_MANIFEST))
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def _measure(directory: int) -> tuple[int, float]:
    """(bytes of the files, newest time of change) of a directory and what is below it; links count as themselves."""
    size, newest = 0, os.fstat(directory).st_mtime
    for _, directories, files, below in os.fwalk(".", dir_fd=directory, follow_symlinks=False):
        for name in [*directories, *files]:
            try:
                entry = os.lstat(name, dir_fd=below)
            except FileNotFoundError:
                continue
            newest = max(newest, entry.st_mtime)
            size += entry.st_size if stat.S_ISREG(entry.st_mode) else 0
    return size, newest


def refuse_links(root: Path) -> None:
    """The store's own directory must be one: a link would lead out of the store."""
    if root.is_symlink():
        raise RunError("InvalidConfig", f"{root} is a link; garbage is collected only in the store's own directory: mount the store there")
