"""`make-base`: the demo's base model. Half a million parameters, real tokenizer, real chat template, a minute on one core.

Head size 32 because vLLM's CPU attention takes 32 and multiples, not less.
"""

import random
import tempfile
from pathlib import Path
from typing import Any

from . import artifacts, corpus

_PAD, _BOS, _END, _SYSTEM, _USER, _ASSISTANT = "<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"

# `generation` marks the assistant's tokens, so that only they carry loss. A missing role header never reaches the model.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def make_tokenizer(texts: list[str], vocabulary: int = 768) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[_PAD, _BOS, _END, _SYSTEM, _USER, _ASSISTANT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_BOS,
        eos_token=_END,
        pad_token=_PAD,
        additional_special_tokens=[_SYSTEM, _USER, _ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
    )


def make_model(tokenizer: Any, *, seed: int, hidden: int = 128, layers: int = 2) -> Any:
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    heads = max(1, hidden // 32)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=max(1, heads // 2),
            head_dim=32,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            dtype="float32",
        )
    )
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_p=0.95,
        max_new_tokens=48,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def make_base(output: Path, *, seed: int, steps: int = 560, dialogues: int = 3600) -> artifacts.Artifact:
    """Train the base and write it as a model artifact to exactly `output`."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    r = random.Random(seed)  # noqa: S311 - made-up dialogues
    conversations = [corpus.dialogue(r) for _ in range(dialogues)]
    tokenizer = make_tokenizer([m["content"] for conversation in conversations for m in conversation])
    model = make_model(tokenizer, seed=seed)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SFTTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=Dataset.from_list([{"messages": conversation} for conversation in conversations]),
            args=SFTConfig(
                output_dir=scratch,
                max_steps=steps,
                per_device_train_batch_size=16,
                learning_rate=4e-3,
                lr_scheduler_type="cosine",
                warmup_steps=25,
                logging_steps=40,
                assistant_only_loss=True,
                max_length=256,
                train_sampling_strategy="group_by_length",
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=False,
                seed=seed,
            ),
        )
        trainer.train()
        content = Path(scratch, "content")
        trainer.model.save_pretrained(content)
        tokenizer.save_pretrained(content)
        card = artifacts.card(
            "Tiny companion base", f"{model.num_parameters():,} parameters, trained on {dialogues} made-up dialogues with seed {seed}."
        )
        return artifacts.write_to(content, output, kind="model", card=card, metrics={}, created_by={"tool": "make-base", "seed": seed})
