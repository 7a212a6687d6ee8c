"""From pydantic's JSON schema to a structural one, piece by piece."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from flywheel.api.base import SCHEMALESS, Duration, Finite, Resource
from flywheel.api.cel import mend, rule, rules, template
from flywheel.api.crd import observed, structural


class Inner(Resource):
    """Inner."""

    width: Annotated[int, Field(ge=1, description="Width.")] = 3
    label: Annotated[str, Field(max_length=8, description="Label.")] = ""


class Outer(Resource):
    """Outer."""

    inner: Annotated[Inner, Field(description="Ours.")] = Inner()
    maybe: Annotated[Inner | None, Field(description="Perhaps.")] = None
    share: Annotated[Finite, Field(gt=0, lt=1, description="Share.")] = 0.5
    only: Annotated[Literal["One"], Field(description="One.")] = "One"
    wait: Annotated[Duration, Field(description="How long.")] = "30s"
    free: Annotated[dict[str, Any], Field(description="Anything.", json_schema_extra=SCHEMALESS)] = {}  # noqa: RUF012
    names: Annotated[tuple[str, ...], Field(max_length=4, description="Names.")] = ()


def schema_of(field: str) -> dict[str, Any]:
    schema: dict[str, Any] = structural(Outer.model_json_schema(by_alias=True))["properties"][field]
    return schema


def test_a_nested_struct_is_inlined_with_its_fields_own_description_and_its_whole_default() -> None:
    assert schema_of("inner")["description"] == "Ours."
    assert schema_of("inner")["default"] == {"width": 3}
    assert schema_of("inner")["properties"]["width"] == {
        "type": "integer",
        "format": "int64",
        "minimum": 1,
        "default": 3,
        "description": "Width.",
    }


def test_an_optional_field_is_simply_not_required() -> None:
    assert schema_of("maybe")["type"] == "object"
    assert "default" not in schema_of("maybe")


def test_an_exclusive_bound_becomes_a_flag() -> None:
    assert schema_of("share") == {
        "type": "number",
        "minimum": 0,
        "exclusiveMinimum": True,
        "maximum": 1,
        "exclusiveMaximum": True,
        "default": 0.5,
        "description": "Share.",
    }


def test_a_constant_becomes_an_enum_of_one() -> None:
    assert schema_of("only") == {"type": "string", "enum": ["One"], "default": "One", "description": "One."}


def test_a_pattern_with_a_mend_becomes_a_rule_that_says_it() -> None:
    schema = schema_of("wait")
    assert "pattern" not in schema
    (only,) = schema["x-kubernetes-validations"]
    assert only["messageExpression"].startswith("'\\'' + self + '\\' is not a duration; write ")


def test_a_schemaless_field_keeps_what_it_is_given() -> None:
    assert schema_of("free") == {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "description": "Anything."}


def test_an_empty_default_is_left_out() -> None:
    assert "default" not in schema_of("names")


def test_a_union_is_refused_when_the_schema_is_made() -> None:
    class Wrong(Resource):
        value: int | str = 1

    with pytest.raises(ValueError, match="no unions"):
        structural(Wrong.model_json_schema())


def test_what_has_no_place_in_a_structural_schema_is_refused() -> None:
    class Wrong(Resource):
        value: Annotated[int, Field(multiple_of=2)] = 2

    with pytest.raises(ValueError, match="multipleOf"):
        structural(Wrong.model_json_schema())


def test_rules_of_a_struct_and_of_its_field_add_up() -> None:
    class Part(Resource):
        model_config = Resource.model_config | {"json_schema_extra": rules(rule("true", "inner"))}

    class Whole(Resource):
        part: Annotated[Part | None, Field(json_schema_extra=rules(rule("true", "outer")))] = None

    found = structural(Whole.model_json_schema())["properties"]["part"]["x-kubernetes-validations"]
    assert [one["message"] for one in found] == ["inner", "outer"]


def test_an_observation_has_no_default_and_no_rule() -> None:
    schema = {"type": "string", "default": "x", "pattern": "^x$", "maxLength": 3, "x-kubernetes-validations": [{}]}
    assert observed({"type": "object", "properties": {"a": schema}}) == {
        "type": "object",
        "properties": {"a": {"type": "string", "maxLength": 3}},
    }


def test_a_sentence_with_values_becomes_a_cel_expression() -> None:
    assert template("it's {self.a}; {self.b == 'x' ? 'y' : 'z'}") == "'it\\'s ' + self.a + '; ' + (self.b == 'x' ? 'y' : 'z')"


def test_a_rule_is_one_line() -> None:
    assert rule("a ||\n   b", "no {c}", at=".d") == {"rule": "a || b", "messageExpression": "'no ' + c", "fieldPath": ".d"}
    assert mend("so") == {"x-mend": "so"}
