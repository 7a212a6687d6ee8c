"""The Cluster port over the Kubernetes API: server-side apply, creates that never adopt, fenced status writes."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from typing import Any

from flywheel.adapters.kube_api import KubeApi
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

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply. `force`: what the operator states is its own; fields it leaves out stay with whoever set them."""
        return await self._api.request(
            "PATCH",
            _path(manifest),
            query=[("fieldManager", MANAGER), ("force", "true")],
            body=manifest,
            content_type="application/apply-patch+yaml",
        )

    async def create(self, manifest: Manifest) -> Manifest:
        """Create, or return what an earlier try of the same owner has made."""
        meta = manifest["metadata"]
        collection = collection_path(manifest["apiVersion"], manifest["kind"], meta["namespace"])
        try:
            return await self._api.request("POST", collection, query=[("fieldManager", MANAGER)], body=manifest)
        except Conflict as conflict:
            found = await self._api.request("GET", _path(manifest))
            wanted, owner = _belonging(manifest), _belonging(found)
            if wanted == owner or (_controller(manifest) is None and _service(manifest) in (None, _service(found))):
                return found
            raise NameConflict(
                f"{manifest['kind']} {meta['name']} exists and belongs to {owner}, not to {wanted}; delete or rename it",
                status=conflict.status,
                retryable=True,
            ) from conflict

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


def _belonging(manifest: Manifest) -> str:
    """Whose an object is, in a word: its owner's, the model service's that made it to outlive its maker, or nobody's."""
    service = _service(manifest)
    return _controller(manifest) or (f"model service {service}" if service else "nobody")


def _service(manifest: Manifest) -> str | None:
    """The model service that an object of ours is labelled with; None for an object that is not ours."""
    labels = manifest["metadata"].get("labels") or {}
    ours = all(labels.get(name) == value for name, value in MANAGED_BY.items())
    return labels.get(LABEL + "flywheel") if ours else None


def _controller(manifest: Manifest) -> str | None:
    """Whom an object belongs to: its controller's uid; without a controller the first owner's."""
    owners = manifest["metadata"].get("ownerReferences") or ()
    chosen = next((o for o in owners if o.get("controller")), owners[0] if owners else None)
    return str(chosen["uid"]) if chosen else None
