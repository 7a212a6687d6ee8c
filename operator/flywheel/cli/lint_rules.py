"""The CRDs' own CEL rules, evaluated without an API server. Pure: a schema and a value in, what is wrong out.

The rules and their sentences are those that `api` gives to the API server; here they only get an engine. Rules that compare
with the stored object (`oldSelf`) have nothing to compare with, and are left out.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import cel

from flywheel.api.cel import VALIDATIONS

QUANTITY = re.compile(r"^[+-]?([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[mkMGTPEnu]|[eE][+-]?[0-9]+)?$")
LIST_KEYS = "x-kubernetes-list-map-keys"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with an object."""

    path: str  # such as spec.stages[0].gates[1].value
    message: str
    certain: bool = True  # False: a rule could not be computed, mostly because its value is of a wrong type

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def defaulted(schema: Mapping[str, Any], value: Any) -> Any:
    """The value with the schema's defaults, as the API server sees it when it comes to the rules."""
    if isinstance(value, Mapping):
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
        whole = {key: one["default"] for key, one in properties.items() if "default" in one} | dict(value)
        return {key: defaulted(properties.get(key) or rest or {}, one) for key, one in whole.items()}
    if isinstance(value, list):
        return [defaulted(schema.get("items", {}), one) for one in value]
    return value


def broken_rules(schema: Mapping[str, Any], value: Any, path: str = "") -> Iterator[Finding]:
    """What the rules of a schema and of all below it say against a value."""
    for rule in schema.get(VALIDATIONS, ()):
        where = (path + rule.get("fieldPath", "")).lstrip(".")
        try:
            message = _broken(rule, value)
        except (ValueError, TypeError, KeyError, IndexError, RuntimeError, OverflowError) as error:
            yield Finding(where, f"the rule '{rule['rule']}' can't be computed here ({error}); mend the types of its fields", certain=False)
            continue
        if message is not None:
            yield Finding(where, message)
    if isinstance(value, Mapping):
        for key, child in schema.get("properties", {}).items():
            if key in value:
                yield from broken_rules(child, value[key], f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        yield from _twins(schema, value, path)
        for index, one in enumerate(value):
            yield from broken_rules(schema.get("items", {}), one, f"{path}[{index}]")


def _twins(schema: Mapping[str, Any], value: list[Any], path: str) -> Iterator[Finding]:
    """Two items of a list-map with one key."""
    seen: set[str] = set()
    for index, one in enumerate(value):
        key = {name: one.get(name) for name in schema.get(LIST_KEYS, ())} if isinstance(one, Mapping) else {}
        told = json.dumps(key, sort_keys=True)
        if key and told in seen:
            yield Finding(f"{path}[{index}]", f"duplicate value {told}; rename or remove one")
        seen.add(told)


def _broken(rule: Mapping[str, str], value: Any) -> str | None:
    """The rule's sentence if it doesn't hold."""
    if "oldSelf" in rule["rule"]:
        return None
    context = _context(value)
    if _program(rule["rule"]).execute(context) is not False:
        return None
    expression = rule.get("messageExpression")
    return str(_program(expression).execute(context)) if expression else rule["message"]


@cache
def _program(expression: str) -> Any:
    return cel.compile(expression)


def _context(value: Any) -> cel.Context:
    """The object under `self`, and the functions that Kubernetes adds to CEL and the rules use."""
    context = cel.Context()
    context.add_variable("self", value)
    context.add_function("isSorted", lambda items: list(items) == sorted(items))
    context.add_function("sum", lambda items: sum(items[1:], items[0]) if items else dt.timedelta())
    context.add_function("indexOf", lambda items, one: list(items).index(one))
    context.add_function("isQuantity", lambda text: QUANTITY.match(text) is not None)
    return context
