"""Whether what was applied still stands: parts of a stack that somebody deleted, or changed where it is ours to say.

The API server keeps book of whose each field is. An edit, or a removal, of a field that we stated takes it from us, so what
is ours no more is what was changed; no value has to be compared, and no default of the server looks like a change. The number
of replicas is anybody's: an autoscaler's or a person's choice is kept.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from flywheel.api.names import MANAGER
from flywheel.plan.base import Action, Apply, Emit, Manifest, deployments_last

Parts = Mapping[tuple[str, str], str]  # (kind, name) -> fields_of_ours; of every part of a service that exists
UNKNOWN = "?"  # fields of an object of which the API server tells nothing
_NOT_FIELDS = {"apiVersion", "kind"}
_IDENTITY = {"name", "namespace", "uid", "resourceVersion", "ownerReferences"}


def fields_of_ours(body: Manifest) -> str:
    """What of an object is ours by its managedFields, as one string that objects of one making have in common."""
    managed = body["metadata"].get("managedFields")
    if managed is None:
        return UNKNOWN
    ours = [m for m in managed if m.get("manager") == MANAGER and m.get("operation") == "Apply" and not m.get("subresource")]
    fields = dict(ours[0].get("fieldsV1") or {}) if ours else {}
    meta = {name: value for name, value in (fields.get("f:metadata") or {}).items() if name != "f:ownerReferences"}  # they hold uids
    rest = {name: value for name, value in fields.items() if name != "f:metadata"} | ({"f:metadata": meta} if meta else {})
    return json.dumps(rest, sort_keys=True, separators=(",", ":"))


def damaged(manifests: Iterable[Manifest], parts: Parts) -> dict[str, Manifest]:
    """What of a stack has to be applied again, by why: 'Service f-router was deleted'."""
    found = {}
    for manifest in manifests:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        fields = parts.get((kind, name))
        if fields is None:
            found[f"{kind} {name} was deleted"] = manifest
        elif fields != UNKNOWN and (lost := _lost(manifest, _read(fields), kind)):
            found[f"{kind} {name} was changed by hand ({lost})"] = manifest
    return found


def restore(broken: Mapping[str, Manifest]) -> list[Action]:
    """Apply it again, and say so."""
    said = [Emit("Warning", "Restored", f"{why}: it is made again as it was") for why in broken]
    return [*(Apply(manifest) for manifest in deployments_last(list(broken.values()))), *said]


@functools.lru_cache(maxsize=1024)
def _read(fields: str) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads(fields))


def _lost(manifest: Manifest, fields: Mapping[str, Any], kind: str) -> str | None:
    """The first field that is stated and not ours; None if all are."""
    stated = {key: value for key, value in manifest.items() if key not in _NOT_FIELDS}
    meta = {key: value for key, value in stated.pop("metadata").items() if key not in _IDENTITY}
    stated |= {"metadata": meta} if meta else {}
    if kind == "Deployment" and "spec" in stated:
        stated["spec"] = {key: value for key, value in stated["spec"].items() if key != "replicas"}
    return _missing(stated, fields, "")


def _missing(stated: Any, fields: Mapping[str, Any], path: str) -> str | None:
    if isinstance(stated, Mapping):
        for key, value in stated.items():
            if value is None:
                continue  # states nothing
            below = fields.get(f"f:{key}")
            if below is None:
                return f"{path}.{key}"
            if below and (lost := _missing(value, below, f"{path}.{key}")):
                return lost
        return None
    if isinstance(stated, Sequence) and not isinstance(stated, str):
        keyed = [(json.loads(name[2:]), below) for name, below in fields.items() if name.startswith("k:")]
        for number, item in enumerate(stated) if keyed else ():
            below = next((b for keys, b in keyed if all(item.get(k, v) == v for k, v in keys.items())), None)
            if below is None:
                return f"{path}[{number}]"
            if lost := _missing(item, below, f"{path}[{number}]"):
                return lost
    return None
