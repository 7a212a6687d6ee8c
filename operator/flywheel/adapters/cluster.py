"""The Cluster port over the Kubernetes API: server-side apply, creates that never adopt, fenced status writes."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from typing import Any

from flywheel.adapters.kube_api import KubeApi, find
from flywheel.adapters.resources import collection_path, object_path
from flywheel.api.base import API_VERSION
from flywheel.plan.base import LABEL, MANAGED_BY, MANAGER, Manifest, stable_hash
from flywheel.ports import ClusterError, Conflict, NameConflict

_log = logging.getLogger(__name__)
_REPEAT_AFTER = 600.0  # seconds in which the same event on the same object is said once
_REMEMBERED = 4096


class KubernetesCluster:
    """Writes for the operator. Reads come from the watch caches, except where a name is already taken."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._said: OrderedDict[str, float] = OrderedDict()
        self._ours: OrderedDict[str, str] = OrderedDict()  # path -> uid of what this process has applied, so that it is looked at once

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply. What the operator states is its own, fields it leaves out stay with whoever set them; but an object of the
        same name that is somebody else's is a NameConflict: else whoever may make a Flywheel could rewrite others' Services and Roles."""
        if {"uid", "resourceVersion"} & manifest["metadata"].keys():
            return await self._patch(manifest, force=True)  # it says which object it means
        path = _path(manifest)
        if (uid := self._ours.get(path)) is not None:
            try:
                return self._remember(path, await self._patch(_fenced(manifest, uid), force=True))
            except ClusterError as error:
                if error.status not in (409, 422):  # gone; or another object, which the server calls a change of an immutable field
                    raise
                self._ours.pop(path, None)
        found = await find(self._api, path)
        if found is None:
            # Without force: if somebody takes the name at this moment, his fields are refused to us, and the next pass sees whose it is.
            return self._remember(path, await self._patch(manifest, force=False))
        if not _is_ours(found, manifest):
            raise _name_conflict(manifest, found)
        return self._remember(path, await self._patch(_fenced(manifest, found["metadata"]["uid"]), force=True))

    async def _patch(self, manifest: Manifest, *, force: bool) -> Manifest:
        return await self._api.request(
            "PATCH",
            _path(manifest),
            query=[("fieldManager", MANAGER), ("force", "true" if force else "false")],
            body=manifest,
            content_type="application/apply-patch+yaml",
        )

    def _remember(self, path: str, made: Manifest) -> Manifest:
        self._ours[path] = made["metadata"]["uid"]
        self._ours.move_to_end(path)
        while len(self._ours) > _REMEMBERED:
            self._ours.popitem(last=False)
        return made

    async def create(self, manifest: Manifest) -> Manifest:
        """Create, or return what an earlier try of the same owner has made."""
        meta = manifest["metadata"]
        collection = collection_path(manifest["apiVersion"], manifest["kind"], meta["namespace"])
        try:
            return await self._api.request("POST", collection, query=[("fieldManager", MANAGER)], body=manifest)
        except Conflict as conflict:
            found = await self._api.request("GET", _path(manifest))
            wanted, owner = _controller(manifest), _controller(found)
            if wanted == owner if wanted is not None else _service(manifest) in (None, _service(found)):
                return found
            raise _name_conflict(manifest, found) from conflict

    async def delete(self, api_version: str, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete in the background. Another uid under that name is another object: what was to go is gone."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._api.request("DELETE", object_path(api_version, kind, namespace, name), body=options)
        except ClusterError as error:
            if error.status not in (404, 409):
                raise

    async def patch_status(self, body: Manifest, status: dict[str, Any]) -> Manifest:
        """Replace the status (PUT, so that a key that is left out is gone) under the resourceVersion and uid that were read."""
        meta = body["metadata"]
        fenced = {name: meta[name] for name in ("name", "namespace", "uid", "resourceVersion")}
        whole = {
            "apiVersion": body["apiVersion"],
            "kind": body["kind"],
            "metadata": fenced,
            "spec": body.get("spec") or {},
            "status": status,
        }
        return await self._api.request("PUT", _path(body) + "/status", query=[("fieldManager", MANAGER)], body=whole)

    async def emit(self, body: Manifest, type_: str, reason: str, message: str) -> None:
        """Record an event on the object; the same words are not repeated within ten minutes."""
        meta = body["metadata"]
        name = f"{meta['name'][:200]}.{stable_hash(meta['uid'], reason, message, length=12)}.{int(time.time()):x}"
        if self._said_lately(f"{meta['uid']}/{reason}/{message}"):
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": body.get("apiVersion", API_VERSION),
                "kind": body["kind"],
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
                "resourceVersion": meta.get("resourceVersion", ""),
            },
            "type": type_,
            "reason": reason[:128],
            "message": message[:1024],
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._api.request("POST", collection_path("v1", "Event", meta["namespace"]), body=event)
        except ClusterError as error:
            _log.info("event not recorded: %s", error)

    def _said_lately(self, words: str) -> bool:
        now = time.monotonic()
        last = self._said.get(words)
        if last is not None and now - last < _REPEAT_AFTER:
            return True
        self._said[words] = now
        self._said.move_to_end(words)
        while len(self._said) > _REMEMBERED:
            self._said.popitem(last=False)
        return False


def _path(manifest: Manifest) -> str:
    meta = manifest["metadata"]
    return object_path(manifest["apiVersion"], manifest["kind"], meta["namespace"], meta["name"])


def _fenced(manifest: Manifest, uid: str) -> Manifest:
    """The same, for the object of that uid alone."""
    return {**manifest, "metadata": {**manifest["metadata"], "uid": uid}}


def _is_ours(found: Manifest, manifest: Manifest) -> bool:
    """Whether an object of the manifest's name is one that an earlier pass has made for the same owner or the same model service."""
    owner = _controller(manifest)
    if manifest["apiVersion"] == API_VERSION:  # people make these too, with whatever labels: only an owner tells
        return owner is not None and any(reference["uid"] == owner for reference in found["metadata"].get("ownerReferences") or ())
    if owner is not None and owner == _controller(found):
        return True
    # A Flywheel that was deleted and made again has another uid; what serves outlives that, and is taken up by its labels.
    return _managed(found) and _service(manifest) in (None, _service(found))


def _name_conflict(manifest: Manifest, found: Manifest) -> NameConflict:
    return NameConflict(
        f"{manifest['kind']} {manifest['metadata']['name']} exists and belongs to {_belonging(found)}, not to {_belonging(manifest)}; "
        "delete or rename it, or choose another name for what needs it",
        status=409,
        retryable=True,
    )


def _belonging(manifest: Manifest) -> str:
    """Whose an object is, for people: its owner's, the model service's that made it to outlive its maker, or nobody's."""
    if (owner := _owner(manifest)) is not None:
        return f"{owner['kind']} {owner['name']} (uid {owner['uid']})"
    if (service := _service(manifest)) is not None:
        return f"model service {service}"
    tool = (manifest["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by")
    return f"nobody (managed by {tool})" if tool else "nobody"


def _managed(manifest: Manifest) -> bool:
    labels = manifest["metadata"].get("labels") or {}
    return all(labels.get(name) == value for name, value in MANAGED_BY.items())


def _service(manifest: Manifest) -> str | None:
    """The model service that an object of ours is labelled with; None for an object that is not ours."""
    return (manifest["metadata"].get("labels") or {}).get(LABEL + "flywheel") if _managed(manifest) else None


def _owner(manifest: Manifest) -> Manifest | None:
    """The reference to whom an object belongs to: its controller; without a controller the first owner."""
    owners = manifest["metadata"].get("ownerReferences") or ()
    return next((o for o in owners if o.get("controller")), owners[0] if owners else None)


def _controller(manifest: Manifest) -> str | None:
    """The uid of whom an object belongs to."""
    owner = _owner(manifest)
    return str(owner["uid"]) if owner else None
