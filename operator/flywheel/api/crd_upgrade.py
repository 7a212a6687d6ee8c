"""Which CRD replaces which. Pure: the cluster's CRD and this release's in, the one to write out.

A CRD is replaced whole: its spec is what the release says. It is never replaced by an older one: what that one doesn't know, the API server
would cut from stored objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Manifest = dict[str, Any]
_SERVERS_OWN = ("managedFields",)


def replacement(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Manifest:
    """The CRD to write: this release's, under the metadata (resourceVersion, labels, annotations) of the one that is there."""
    metadata = {key: value for key, value in found["metadata"].items() if key not in _SERVERS_OWN}
    return {**wanted, "metadata": {**metadata, **wanted["metadata"]}}


def unknown(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Fields and versions of the cluster's CRD that this release doesn't know: it is of a newer one."""
    theirs, ours = _versions(found), _versions(wanted)
    more = [f"version {name}" for name in sorted(theirs.keys() - ours.keys())]
    for name in sorted(theirs.keys() & ours.keys()):
        more += sorted(set(fields(theirs[name])) - set(fields(ours[name])))
    return more


def fields(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The paths of all fields below a schema."""
    for name, child in (schema.get("properties") or {}).items():
        where = f"{path}.{name}" if path else name
        yield where
        yield from fields(child, where)
    for key in ("items", "additionalProperties"):
        if isinstance(child := schema.get(key), Mapping):
            yield from fields(child, f"{path}[]")


def _versions(crd: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {version["name"]: version["schema"]["openAPIV3Schema"] for version in crd["spec"]["versions"]}
