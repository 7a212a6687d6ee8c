"""A method's parameters: one frozen dataclass a method, checked from outside values, printable as a JSON schema.

Field names are the names users write in YAML. `option` carries what a reader wants to know: unit, range and meaning.
"""

import dataclasses
import difflib
import json
import math
import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import RunError

T = TypeVar("T")
_MAX_LIST, _MAX_TEXT = 1000, 10_000


def option(
    default: Any, about: str, *, unit: str = "", minimum: float | None = None, maximum: float | None = None, choices: tuple[str, ...] = ()
) -> Any:
    """A documented parameter. `minimum` and `maximum` are inclusive."""
    return dataclasses.field(
        default=default, metadata={"about": about, "unit": unit, "minimum": minimum, "maximum": maximum, "choices": choices}
    )


def parse(cls: type[T], values: Mapping[str, Any], where: str = "parameters") -> T:
    hints = get_type_hints(cls)
    known = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=3, cutoff=0.4) or sorted(known)
        raise RunError("InvalidParameter", f"{where}.{unknown[0]} is not known; the nearest known: {', '.join(near)}")
    checked = {name: _value(value, hints[name], known[name].metadata, f"{where}.{name}") for name, value in values.items()}
    return cls(**checked)


def _value(value: Any, kind: Any, meta: Mapping[str, Any], where: str) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        if value is None:
            return None
        kind = next(a for a in get_args(kind) if a is not type(None))
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise _wrong(where, "an object", value)
        return parse(kind, value, where)  # type: ignore[arg-type]
    if get_origin(kind) is dict:  # free-form: whoever asks for one takes anything
        if not isinstance(value, dict):
            raise _wrong(where, "an object", value)
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, list) or len(value) > _MAX_LIST:
            raise _wrong(where, f"a list of at most {_MAX_LIST}", value)
        return tuple(_value(item, get_args(kind)[0], meta, f"{where}[{i}]") for i, item in enumerate(value))
    if kind is bool:
        if not isinstance(value, bool):
            raise _wrong(where, "true or false", value)
        return value
    if kind is str:
        if not isinstance(value, str) or len(value) > _MAX_TEXT:
            raise _wrong(where, "a text", value)
        if meta["choices"] and value not in meta["choices"]:
            raise _wrong(where, "one of " + ", ".join(meta["choices"]), value)
        return value
    return _number(value, kind, meta, where)


def _number(value: Any, kind: Any, meta: Mapping[str, Any], where: str) -> int | float:
    whole = kind is int
    if isinstance(value, bool) or not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise _wrong(where, "a whole number" if whole else "a number", value)
    if whole and value != int(value):
        raise _wrong(where, "a whole number", value)
    low, high = meta["minimum"], meta["maximum"]
    if (low is not None and value < low) or (high is not None and value > high):
        span = f"{'' if low is None else low} to {'any' if high is None else high}"
        raise _wrong(where, f"{span}{' ' + meta['unit'] if meta['unit'] else ''}", value)
    return int(value) if whole else float(value)


def _wrong(where: str, wanted: str, value: object) -> RunError:
    return RunError("InvalidParameter", f"{where} must be {wanted}, not {json.dumps(value, default=str)[:80]}")


def json_schema(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {
        "type": "object",
        "description": (cls.__doc__ or "").strip(),
        "additionalProperties": False,
        "properties": {field.name: _property(field, hints[field.name]) for field in dataclasses.fields(cls)},
    }


def _property(field: "dataclasses.Field[Any]", kind: Any) -> dict[str, Any]:
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(a for a in get_args(kind) if a is not type(None))
    meta = field.metadata
    if dataclasses.is_dataclass(kind):
        return {**json_schema(kind), "description": meta["about"]}  # type: ignore[arg-type]
    schema: dict[str, Any] = {"description": meta["about"] + (f" [{meta['unit']}]" if meta["unit"] else "")}
    if get_origin(kind) is dict:
        return {**schema, "type": "object"}
    names = {int: "integer", float: "number", bool: "boolean", str: "string"}
    if get_origin(kind) is tuple:
        schema |= {"type": "array", "items": {"type": names[get_args(kind)[0]]}, "maxItems": _MAX_LIST}
    else:
        schema["type"] = names[kind]
    if field.default is not None:
        schema["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
    if meta["choices"]:
        schema["enum"] = list(meta["choices"])
    schema |= {key: meta[key] for key in ("minimum", "maximum") if meta[key] is not None}
    return schema
