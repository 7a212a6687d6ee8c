"""CEL rules for the CRDs, written as a condition and the sentence a person reads when it doesn't hold. Pure text."""

from __future__ import annotations

import re
from typing import Any

Rule = dict[str, str]

VALIDATIONS = "x-kubernetes-validations"
MEND = "x-mend"  # for the generator only: turns a field's pattern or bounds into a CEL rule with this sentence

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


def rule(condition: str, sentence: str, *, at: str | None = None) -> Rule:
    """A rule; `{expression}` in the sentence is replaced by the value of the CEL string expression.

    `at` is the path of the field the error is about, relative to the struct the rule stands on, such as `.model`.
    """
    result = {"rule": " ".join(condition.split())}
    if _PLACEHOLDER.search(sentence):
        result["messageExpression"] = template(sentence)
    else:
        result["message"] = sentence
    if at is not None:
        result["fieldPath"] = at
    return result


def rules(*all_rules: Rule) -> dict[str, Any]:
    """The rules as `json_schema_extra` of a model or a field."""
    return {VALIDATIONS: list(all_rules)}


def mend(sentence: str) -> dict[str, Any]:
    """`json_schema_extra` of a field with a pattern: what its error says after the value. Of a number with bounds: the whole error.

    Numbers between whole bounds need none: the API server's own error names value and bound. A broken bound it cuts to an
    integer ("should be less than 0" for 0.5), and string(number) is a string without end to CEL's cost estimate: there the
    sentence stands alone.
    """
    return {MEND: sentence}


def template(sentence: str) -> str:
    """A sentence with placeholders as a CEL string expression: `a {self.x} b` becomes `'a ' + self.x + ' b'`."""
    parts = _PLACEHOLDER.split(sentence)
    terms = [quote(text) if i % 2 == 0 else f"({text})" if " " in text else text for i, text in enumerate(parts) if text]
    return " + ".join(terms)


def quote(text: str) -> str:
    """A CEL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def pattern_rule(pattern: str, sentence: str) -> Rule:
    """A rule that a string matches a regular expression, with the string and the mend in its error."""
    return rule(f"self.matches({quote(pattern)})", "'{self}' " + sentence)


def bounds_rule(schema: dict[str, Any], sentence: str) -> Rule:
    """A rule that a number lies between the schema's bounds."""
    comparisons = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    return rule(" && ".join(f"self {sign} {float(schema[key])!r}" for key, sign in comparisons.items() if key in schema), sentence)
