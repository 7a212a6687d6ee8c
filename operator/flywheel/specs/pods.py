"""What all pods have in common: the restricted security context, the storage claim, and the user's additions."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from flywheel.api.common import PodSettings, Storage
from flywheel.api.names import LABEL as LABEL
from flywheel.api.names import MANAGED_BY as MANAGED_BY

Manifest = dict[str, Any]
UID = 10001
STORAGE_PATH = "/flywheel"


class Images(Protocol):
    """The operator's default images (plan.base.Defaults has them)."""

    @property
    def trainer_image(self) -> str:
        """Image of training pods."""

    @property
    def vllm_image(self) -> str:
        """Image of serving pods."""


class InvalidPodTemplate(ValueError):
    """The user's podTemplate does not fit on what the operator builds; the message names the field."""


# ------------------------------------------------------------------------------------------------------------- building


def pod_security() -> Manifest:
    """Pod Security `restricted`, for the one UID that owns the store."""
    return {
        "runAsNonRoot": True,
        "runAsUser": UID,
        "runAsGroup": UID,
        "fsGroup": UID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """No capabilities, no way to gain any, and nothing to write to but mounted volumes."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}


def storage_mount(*, read_only: bool = False) -> Manifest:
    """The store, where every pod finds it."""
    return {"name": "storage", "mountPath": STORAGE_PATH, "readOnly": True} if read_only else {"name": "storage", "mountPath": STORAGE_PATH}


def storage_volume(storage: Storage, *, read_only: bool = False) -> Manifest:
    """The store's claim."""
    claim: Manifest = {"claimName": storage.claim_name}
    return {"name": "storage", "persistentVolumeClaim": {**claim, "readOnly": True} if read_only else claim}


def scratch(name: str, path: str, *, memory: bool = False) -> tuple[Manifest, Manifest]:
    """(volume, mount) of an emptyDir."""
    return {"name": name, "emptyDir": {"medium": "Memory"} if memory else {}}, {"name": name, "mountPath": path}


def credentials(storage: Storage) -> list[Manifest]:
    """`envFrom` with the store's credentials."""
    return [{"secretRef": {"name": storage.credentials_secret_ref.name}}] if storage.credentials_secret_ref else []


def environment(values: Mapping[str, str]) -> list[Manifest]:
    """A plain `env`."""
    return [{"name": name, "value": value} for name, value in values.items()]


# A read-only root and a UID that the image's /etc/passwd may not know: libraries ask for a home, a cache and a user name.
HOME_ENVIRONMENT = {"HOME": "/tmp", "XDG_CACHE_HOME": "/tmp/.cache", "USER": "flywheel"}  # noqa: S108 - an emptyDir of the pod


def resources(settings: PodSettings, default: Manifest, *, gpus: int = 0) -> Manifest:
    """The user's requests and limits, or the default ones, and the GPUs."""
    wanted = settings.resources.dump() if settings.resources else {}
    chosen = copy.deepcopy(wanted if wanted.get("requests") or wanted.get("limits") else default)
    if gpus:
        chosen.setdefault("limits", {}).setdefault("nvidia.com/gpu", gpus)
    return {part: values for part, values in chosen.items() if values}


def pod_template(
    container: Manifest,
    settings: PodSettings,
    *,
    labels: Mapping[str, str],
    annotations: Mapping[str, str] | None = None,
    volumes: Sequence[Manifest] = (),
    init_containers: Sequence[Manifest] = (),
    **spec: Any,
) -> Manifest:
    """A pod template around a main container, placed as the user's settings say, with his podTemplate merged over it."""
    metadata: Manifest = {"labels": dict(labels)}
    if annotations:
        metadata["annotations"] = dict(annotations)
    body: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # a Service called `vllm` would set VLLM_PORT
        "securityContext": pod_security(),
        **_placement(settings),
        **spec,
        "containers": [container],
        "volumes": list(volumes),
    }
    if init_containers:
        body["initContainers"] = list(init_containers)
    template = overlay({"metadata": metadata, "spec": body}, settings.pod_template)
    if not template.get("spec", {}).get("containers"):
        raise InvalidPodTemplate(f"podTemplate must not remove the container {container['name']!r}")
    template.setdefault("metadata", {}).setdefault("labels", {}).update(labels)  # selectors depend on them
    return template


def _placement(settings: PodSettings) -> Manifest:
    wanted: Manifest = {
        "serviceAccountName": settings.service_account_name,
        "imagePullSecrets": [secret.dump() for secret in settings.image_pull_secrets],
        "nodeSelector": dict(settings.node_selector),
        "tolerations": [toleration.dump() for toleration in settings.tolerations],
        "priorityClassName": settings.priority_class_name,
    }
    return {key: value for key, value in wanted.items() if value}


# -------------------------------------------------------------------------------------------------------------- merging

# Lists that are merged by a key, as Kubernetes' strategic merge does; every other list is replaced.
MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
APPENDED = {"tolerations", "envFrom"}
ONE_OF = {"env", "volumes"}  # their items are unions (value or valueFrom, one volume source): the new item stands alone
TEMPLATE_FIELDS = {"metadata", "spec"}


def overlay(template: Manifest, additions: Mapping[str, Any]) -> Manifest:
    """The template with the user's additions: objects merged, lists merged by key, null removes."""
    unknown = sorted(set(additions) - TEMPLATE_FIELDS)
    if unknown:
        raise InvalidPodTemplate(f"podTemplate.{unknown[0]} is not a field of a pod template; put it under podTemplate.spec or .metadata")
    merged: Manifest = _merge(template, additions, "podTemplate")
    return merged


def _merge(base: Any, addition: Any, path: str) -> Any:
    if isinstance(base, Mapping):
        if not isinstance(addition, Mapping):
            raise InvalidPodTemplate(f"{path} must be an object, not {_kind(addition)}")
        merged = {key: copy.deepcopy(value) for key, value in base.items() if not (key in addition and addition[key] is None)}
        for key, value in addition.items():
            if value is not None:
                merged[key] = _merge_field(str(key), merged.get(key), value, f"{path}.{key}")
        return merged
    return copy.deepcopy(addition)


def _merge_field(key: str, base: Any, addition: Any, path: str) -> Any:
    if isinstance(base, list) and not isinstance(addition, list):
        raise InvalidPodTemplate(f"{path} must be a list, not {_kind(addition)}")
    if isinstance(addition, list) and key in APPENDED:
        return [*copy.deepcopy(base or []), *copy.deepcopy(addition)]
    if isinstance(addition, list) and key in MERGE_KEYS:
        return _merge_list(base or [], addition, MERGE_KEYS[key], path)
    return _merge({} if base is None and isinstance(addition, Mapping) else base, addition, path)


def _merge_list(base: Sequence[Any], addition: Sequence[Any], key: str, path: str) -> list[Any]:
    merged = [copy.deepcopy(item) for item in base]
    for position, item in enumerate(addition):
        if not isinstance(item, Mapping) or key not in item:
            raise InvalidPodTemplate(f"{path}[{position}] must be an object with {key!r}")
        at = next((i for i, old in enumerate(merged) if old.get(key) == item[key]), None)
        if at is None:
            merged.append(copy.deepcopy(dict(item)))
        else:
            merged[at] = copy.deepcopy(dict(item)) if path.rsplit(".", 1)[-1] in ONE_OF else _merge(merged[at], item, f"{path}[{position}]")
    return merged


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}.get(type(value), f"a {type(value).__name__}")
