"""The five kinds by all the names people type: kind, plural, short name, with or without the group."""

from __future__ import annotations

from flywheel.api.base import API_VERSION, GROUP
from flywheel.api.crd import KINDS, Kind

BY_NAME: dict[str, Kind] = {word: kind for kind in KINDS for word in (kind.name.lower(), kind.plural, kind.short_name)}
BY_KIND: dict[str, Kind] = {kind.name: kind for kind in KINDS}


def kind_named(word: str) -> Kind | None:
    """The kind that a word stands for, such as `generations.modelflywheel.dev` or `fwgen`."""
    return BY_NAME.get(word.lower().removesuffix(f".{GROUP}"))


def path(kind: Kind, namespace: str | None, name: str | None = None) -> str:
    """URL path of a kind's objects, or of one."""
    root = f"/apis/{API_VERSION}" + (f"/namespaces/{namespace}" if namespace else "")
    return f"{root}/{kind.plural}" + (f"/{name}" if name else "")
