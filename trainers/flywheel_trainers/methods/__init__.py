"""The methods by name. Importing this costs nothing: torch comes only with the method that needs it."""

import difflib
import importlib
import json

from .. import parameters
from ..errors import RunError

_MODULES = {
    "Curate": "curate",
    "Reward": "reward",
    "RejectionSample": "rejection_sample",
    "SFT": "sft",
    "DPO": "dpo",
    "KTO": "kto",
    "GRPO": "grpo",
    "RLOO": "rloo",
    "Evaluate": "evaluate",
    "Record": "record",
    "GarbageCollect": "garbage_collect",
}
WITHOUT_TORCH = frozenset({f"{__name__}.curate", f"{__name__}.record", f"{__name__}.garbage_collect"})


def module_of(method: str) -> str:
    if method not in _MODULES:
        near = difflib.get_close_matches(method, _MODULES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_MODULES)}"
        raise RunError("InvalidConfig", f"run.json.method {method} is not known; {hint}")
    return f"{__name__}.{_MODULES[method]}"


def parameters_of(method: str) -> type:
    found = importlib.import_module(module_of(method)).Parameters
    assert isinstance(found, type)
    return found


def schema_text(method: str | None) -> str:
    try:
        if method is not None:
            return json.dumps({"$schema": _DRAFT, "title": method, **parameters.json_schema(parameters_of(method))}, indent=2)
    except RunError as error:
        raise KeyError(error.message) from error
    return json.dumps({name: parameters.json_schema(parameters_of(name)) for name in _MODULES}, indent=2)


_DRAFT = "https://json-schema.org/draft/2020-12/schema"
