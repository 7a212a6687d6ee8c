"""What is stored keeps its meaning: a release adds, and takes nothing away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flywheel.api.crd import crds
from flywheel.api.crd_upgrade import fields
from tests.released import RELEASES, unpack

DEFAULTS = Path(__file__).parent / "stored" / "defaults.yaml"
Schema = dict[str, Any]


def schema(crd: dict[str, Any]) -> Schema:
    found: Schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def walk(node: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every field with its path."""
    for name, child in (node.get("properties") or {}).items():
        yield (where := f"{path}.{name}".lstrip(".")), child
        yield from walk(child, where)
    for key in ("items", "additionalProperties"):
        if isinstance(child := node.get(key), dict):
            yield f"{path}[]", child
            yield from walk(child, f"{path}[]")


def defaults(all_crds: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Kind -> path -> default."""
    return {
        crd["spec"]["names"]["kind"]: {path: node["default"] for path, node in walk(schema(crd)) if "default" in node}
        for crd in all_crds.values()
    }


def test_every_default_is_written_down_so_that_none_changes_by_accident() -> None:
    now, known = defaults(crds()), yaml.safe_load(DEFAULTS.read_text())
    changed = [
        f"{kind} {path}: {known.get(kind, {}).get(path, 'no default')} -> {now.get(kind, {}).get(path, 'no default')}"
        for kind in sorted({*now, *known})
        for path in sorted({*now.get(kind, {}), *known.get(kind, {})})
        if now.get(kind, {}).get(path) != known.get(kind, {}).get(path)
    ]
    assert not changed, (
        f"{len(changed)} defaults are others than in {DEFAULTS.name}:\n  " + "\n  ".join(changed[:20]) + "\n"
        "A default that a release has had may not change: objects that are stored without the field would mean something else, and "
        "children would be renamed. Give the new behaviour a field of its own. For a new field, whose default must mean what its "
        "absence meant: "
        "`python -m tests.api.test_evolution` writes the file."
    )


@pytest.fixture(scope="module", params=RELEASES)
def released(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The CRDs of an earlier release."""
    directory = unpack(request.param, tmp_path_factory.mktemp("released")) / "helm/flywheel/crds"
    return {path.name: yaml.safe_load(path.read_text()) for path in sorted(directory.glob("*.yaml"))}


def test_no_field_of_an_earlier_release_is_gone(released: dict[str, dict[str, Any]]) -> None:
    """The API server would cut it from stored objects; and the hook would take the release for an older one."""
    now = crds()
    gone = [f"{name} {path}" for name, crd in released.items() for path in sorted({*fields(schema(crd))} - {*fields(schema(now[name]))})]
    assert gone == []


def test_no_default_of_an_earlier_release_has_changed_and_none_came_to_a_field_that_had_none(released: dict[str, dict[str, Any]]) -> None:
    """A struct's default repeats those of its fields; new ones may come in there, as they do in the struct."""
    before, now = defaults(released), defaults(crds())
    for name, crd in released.items():
        kind = crd["spec"]["names"]["kind"]
        for path in fields(schema(crd)):
            was, is_now = before[kind].get(path), now[kind].get(path)
            assert repeated(was, is_now), f"{name} {path}: {was!r} became {is_now!r}"


def repeated(was: Any, is_now: Any) -> bool:
    """Whether nothing of a default is gone or changed."""
    if isinstance(was, dict) and isinstance(is_now, dict):
        return all(key in is_now and repeated(value, is_now[key]) for key, value in was.items())
    if isinstance(was, list) and isinstance(is_now, list):
        return len(was) == len(is_now) and all(map(repeated, was, is_now))
    return bool(was == is_now)


def test_nothing_that_an_earlier_release_took_is_refused_by_its_type_or_is_required_now(released: dict[str, dict[str, Any]]) -> None:
    now = {name: dict(walk(schema(crd))) for name, crd in crds().items()}
    for name, crd in released.items():
        for path, was in [("", schema(crd)), *walk(schema(crd))]:
            node = now[name][path] if path else schema(crds()[name])
            assert node.get("type") == was.get("type"), f"{name} {path}"
            assert set(node.get("required", ())) <= set(was.get("required", ())), f"{name} {path}: a field is required now"
            if "enum" in was and "enum" in node:
                assert set(was["enum"]) <= set(node["enum"]), f"{name} {path}: a value is gone"
            for bound, tighter in (("maxLength", min), ("maxItems", min), ("maxProperties", min), ("maximum", min), ("minimum", max)):
                if bound in node:
                    assert bound in was, f"{name} {path}: {bound} is new"
                    assert was[bound] == node[bound] or tighter(was[bound], node[bound]) == was[bound], f"{name} {path}: {bound} is tighter"


if __name__ == "__main__":
    head = "# Every default of the CRDs, written by `python -m tests.api.test_evolution`. None of a release may change: see that test.\n"
    DEFAULTS.write_text(head + yaml.safe_dump(defaults(crds()), width=140, sort_keys=True))
