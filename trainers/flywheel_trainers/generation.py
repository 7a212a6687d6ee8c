"""Replies in batches from a model directory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import models
from .corpus import Message
from .job import Job


class Generator:
    def __init__(self, path: Path, *, temperature: float, top_p: float, max_new_tokens: int, batch_size: int) -> None:
        import torch

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer = models.load_tokenizer(path)
        self._tokenizer.padding_side = "left"
        self._model = models.load_causal(path).to(self._device).eval()
        self._sampling: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": temperature > 0}
        if temperature > 0:
            self._sampling |= {"temperature": temperature, "top_p": top_p, "top_k": 0}
        self._batch = batch_size

    def replies(self, prompts: Sequence[list[Message]], samples: int, job: Job, *, seed: int, phase: str = "Generating") -> list[list[str]]:
        """`samples` replies to each prompt. The same seed and prompts give the same replies."""
        import torch

        torch.manual_seed(seed)
        texts = [self._tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True) for prompt in prompts]
        # Prompts of like length share a batch, so that padding stays small.
        jobs = sorted((i for i in range(len(texts)) for _ in range(samples)), key=lambda i: (len(texts[i]), i))
        found: list[list[str]] = [[] for _ in texts]
        job.progress.begin(phase, len(jobs))
        for start in range(0, len(jobs), self._batch):
            job.check()
            batch = jobs[start : start + self._batch]
            for i, reply in zip(batch, self._batch_replies([texts[i] for i in batch]), strict=True):
                found[i].append(reply)
            job.progress.step(min(start + self._batch, len(jobs)))
        return found

    def _batch_replies(self, texts: list[str]) -> list[str]:
        import torch

        inputs = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(self._device)
        inputs.pop("token_type_ids", None)
        with torch.no_grad():
            output = self._model.generate(**inputs, **self._sampling, pad_token_id=self._tokenizer.pad_token_id)
        decoded = self._tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [str(text).strip() for text in decoded]
