"""Model directories in, model directories out. Weights are safetensors, code is never loaded from a model."""

import shutil
from pathlib import Path
from typing import Any

from .errors import RunError

# What a descendant keeps from its ancestor, byte for byte: training changes weights, not how text is read or sampled.
_INHERITED = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja", "generation_config.json",
)  # fmt: skip


def check(path: Path, what: str) -> None:
    if not (path / "config.json").is_file():
        raise RunError("ModelInvalid", f"{what} ({path}) has no config.json; point to a model directory as save_pretrained writes it")
    if not any(path.glob("*.safetensors")):
        raise RunError(
            "ModelInvalid",
            f"{what} ({path}) has no *.safetensors; pickled weights are never loaded: "
            "convert it once with model.save_pretrained(directory, safe_serialization=True)",
        )


def load_tokenizer(path: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise RunError("ModelInvalid", f"the tokenizer of {path} cannot be loaded: {error}") from error
    if not tokenizer.chat_template:
        raise RunError("ModelInvalid", f"the tokenizer of {path} has no chat template; add chat_template.jinja to the model directory")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_causal(path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, path)


def load_scorer(path: Path, *, fresh_head: bool = False) -> Any:
    """A sequence classifier with one output: the pointwise reward. A fresh head is put on a language model's body."""
    from transformers import AutoModelForSequenceClassification

    return _load(AutoModelForSequenceClassification, path, **({"num_labels": 1} if fresh_head else {}))


def _load(auto: Any, path: Path, **options: Any) -> Any:
    import torch
    from safetensors import SafetensorError

    accelerated = torch.cuda.is_available()
    try:
        return auto.from_pretrained(
            path,
            dtype=torch.bfloat16 if accelerated else torch.float32,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise RunError("ModelInvalid", f"{path} cannot be loaded: {str(error)[:500]}") from error


def save(model: Any, content: Path, *, ancestor: Path) -> Path:
    """Write weights and configuration; everything else is the ancestor's. LoRA is merged: the result serves like any model."""
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model.save_pretrained(content, safe_serialization=True)
    inherit(content, ancestor)
    return content


def inherit(content: Path, ancestor: Path) -> None:
    """How text is read and sampled is the ancestor's."""
    for name in _INHERITED:
        if (ancestor / name).is_file():
            shutil.copyfile(ancestor / name, content / name)
        else:
            (content / name).unlink(missing_ok=True)
