"""Container images without a daemon or a registry: OCI archives written and read with the standard library."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import IO, Any

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


def write_static_image(archive: Path, reference: str, program: Path) -> None:
    """An image that holds one static program, as /NAME and as its entry point."""
    layer = _layer(program)
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"], "User": "65535:65535", "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, config),
            "layers": [_descriptor(_LAYER, layer)],
        }
    )
    with tarfile.open(archive, "w") as out:
        write_layout(out, reference, _descriptor(_MANIFEST, manifest))
        for blob in (manifest, config, layer):
            _add(out, f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", io.BytesIO(blob), len(blob))


def write_layout(out: tarfile.TarFile, reference: str, manifest: dict[str, object]) -> None:
    """The two files that make a directory of blobs an OCI image layout of one image."""
    named = {**manifest, "annotations": {"io.containerd.image.name": reference}}
    index = _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [named]})
    layout = _json({"imageLayoutVersion": "1.0.0"})
    _add(out, "oci-layout", io.BytesIO(layout), len(layout))
    _add(out, "index.json", io.BytesIO(index), len(index))


def write_missing(out: tarfile.TarFile, layout: Path, reference: str, present: frozenset[str]) -> int:
    """Write one image of a layout directory without the blobs its receiver has; returns the bytes written.

    A layer of gigabytes that is there already costs nothing: this is what makes a change of code load in seconds.
    """
    descriptor = _entries(layout)[reference]
    write_layout(out, reference, {name: descriptor[name] for name in ("mediaType", "digest", "size")})
    manifest = json.loads(_blob(layout, descriptor["digest"]).read_text())
    written = 0
    for part in (descriptor, manifest["config"], *manifest["layers"]):
        digest = part["digest"]
        # The manifest is always sent: it is what tells the receiver to keep the parts it has.
        if digest in present and part is not descriptor:
            continue
        with _blob(layout, digest).open("rb") as blob:
            _add(out, f"blobs/sha256/{digest.removeprefix('sha256:')}", blob, part["size"])
        written += part["size"]
    return written


def digest_of(layout: Path, reference: str) -> str | None:
    """The digest of an image's manifest in a layout directory, if it is there."""
    entry = _entries(layout).get(reference)
    return str(entry["digest"]) if entry else None


def prune(layout: Path) -> None:
    """Delete the blobs that no image of the layout directory needs any more."""
    needed = set()
    for entry in _entries(layout).values():
        manifest = json.loads(_blob(layout, entry["digest"]).read_text())
        needed |= {part["digest"] for part in (entry, manifest["config"], *manifest["layers"])}
    for blob in (layout / "blobs" / "sha256").glob("*"):
        if f"sha256:{blob.name}" not in needed:
            blob.unlink()


def share(layout: Path, blobs: Path) -> None:
    """Make the layout's blobs hard links to the same blobs elsewhere: gigabytes are kept once instead of twice."""
    for blob in (layout / "blobs" / "sha256").glob("*"):
        twin = blobs / blob.name
        if twin.exists() and twin.stat().st_dev == blob.stat().st_dev and not twin.samefile(blob):
            link = blob.with_suffix(".link")
            link.hardlink_to(twin)
            link.replace(blob)


def _entries(layout: Path) -> dict[str, dict[str, Any]]:
    """The descriptors of a layout directory by image name."""
    if not (layout / "index.json").exists():
        return {}
    index = json.loads((layout / "index.json").read_text())
    names = [entry.get("annotations", {}).get("org.opencontainers.image.ref.name") for entry in index["manifests"]]
    return {name: entry for name, entry in zip(names, index["manifests"], strict=True) if name}


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _layer(program: Path) -> bytes:
    """One file with fixed owner and time, so that the same program gives the same layer."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as layer:
        entry = tarfile.TarInfo(program.name)
        entry.size = program.stat().st_size
        entry.mode = 0o755
        with program.open("rb") as file:
            layer.addfile(entry, file)
    return content.getvalue()


def _descriptor(media_type: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}", "size": len(blob)}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _add(out: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = size
    out.addfile(entry, content)
