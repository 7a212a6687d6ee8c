"""Are a custom trainer's parameters what its own schema says? Answered before a pod is made.

Schema and values are a user's, and a planner must not be slow for anybody's sake: the schema is a subset of JSON Schema without
references, its patterns are matched in linear time, and pydantic does the checking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic_core import SchemaError

from flywheel.api.reasons import Reason
from flywheel.api.training_run import TrainingTemplate
from flywheel.plan.references import Problem

WHERE = "spec.custom.parametersSchema"
MAX_DEPTH = 16
_BOUNDS = {  # of JSON Schema, as pydantic calls them
    "integer": {"minimum": "ge", "maximum": "le", "exclusiveMinimum": "gt", "exclusiveMaximum": "lt", "multipleOf": "multiple_of"},
    "number": {"minimum": "ge", "maximum": "le", "exclusiveMinimum": "gt", "exclusiveMaximum": "lt", "multipleOf": "multiple_of"},
    "string": {"minLength": "min_length", "maxLength": "max_length", "pattern": "pattern"},
    "array": {"minItems": "min_length", "maxItems": "max_length", "items": ""},
    "object": {"properties": "", "required": "", "additionalProperties": ""},
    "boolean": {},
}
_PLAIN = {"integer": int, "number": float, "string": str, "boolean": bool}
_ANYWHERE = {"type", "enum", "default", "description", "title", "format", "$schema"}


class _Unfit(ValueError):
    """The schema itself can't be used."""


def invalid_parameter(spec: TrainingTemplate) -> Problem | None:
    """The first parameter that the schema doesn't allow, with its path; or what is wrong with the schema."""
    if spec.custom is None or not spec.custom.parameters_schema:
        return None
    try:
        TypeAdapter(_type(spec.custom.parameters_schema, WHERE, 0)).validate_python(dict(spec.parameters), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        given = "" if first["type"] == "missing" else f", not {str(first['input'])[:80]!r}"
        said = "is required" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
        message = f"spec.parameters{path}: {said}{given}; mend it, or {WHERE}"
        return Problem(Reason.INVALID_PARAMETER, message, final=True)
    except _Unfit as unfit:
        return Problem(Reason.INVALID_SPEC, str(unfit), final=True)
    except (SchemaError, TypeError, NameError, ValueError) as error:
        return Problem(Reason.INVALID_SPEC, f"{WHERE} can't be used: {' '.join(str(error).split())[:300]}; mend it", final=True)
    return None


def _type(schema: object, where: str, depth: int) -> Any:
    """A schema as an annotation for pydantic."""
    if not isinstance(schema, Mapping):
        raise _Unfit(f"{where} must be an object with a type, not {str(schema)[:40]!r}; mend it")
    if depth > MAX_DEPTH:
        raise _Unfit(f"{where} is nested more than {MAX_DEPTH} deep; flatten it")
    kind = schema.get("type", "object" if "properties" in schema else None)
    if kind not in _BOUNDS:
        raise _Unfit(f"{where}.type is {kind!r}; write one of {', '.join(sorted(_BOUNDS))}")
    unknown = sorted(set(schema) - _ANYWHERE - set(_BOUNDS[kind]))
    if unknown:
        known = ", ".join(sorted([*_BOUNDS[kind], "enum"]))
        raise _Unfit(f"{where}.{unknown[0]} is not supported for type {kind}; known: {known}")
    bounds = {name: schema[key] for key, name in _BOUNDS[kind].items() if name and key in schema}
    checks: list[Any] = [Field(**bounds)] if bounds else []
    if "enum" in schema:
        checks.append(AfterValidator(_one_of(schema["enum"], where)))
    plain = _container(kind, schema, where, depth)
    return Annotated[(plain, *checks)] if checks else plain


def _container(kind: str, schema: Mapping[str, Any], where: str, depth: int) -> Any:
    if kind == "array":
        item: Any = _type(schema["items"], f"{where}.items", depth + 1) if "items" in schema else Any
        return list[item]
    if kind != "object":
        return _PLAIN[kind]
    properties, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
    required = schema.get("required", [])
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        raise _Unfit(f"{where}: properties must be an object and required a list of names; mend it")
    if isinstance(rest, Mapping) and not properties:
        value: Any = _type(rest, f"{where}.additionalProperties", depth + 1)
        return dict[str, value]
    if not isinstance(rest, bool):
        raise _Unfit(f"{where}.additionalProperties must be true or false beside properties; mend it")
    absent = [name for name in required if name not in properties]
    if absent:
        raise _Unfit(f"{where}.required names {absent[0]!r}, which is no property; add it to properties")
    fields: dict[str, Any] = {
        f"field_{number}": (_type(one, f"{where}.properties.{name}", depth + 1), Field(... if name in required else None, alias=str(name)))
        for number, (name, one) in enumerate(properties.items())
    }
    made: type[BaseModel] = create_model("Parameters", __config__=ConfigDict(extra="allow" if rest else "forbid", strict=True), **fields)
    return made


def _one_of(allowed: object, where: str) -> Callable[[Any], Any]:
    if not isinstance(allowed, list) or not allowed:
        raise _Unfit(f"{where}.enum must be a list of the values that are allowed; mend it")

    def check(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(map(str, allowed))[:200]}")
        return value

    return check
