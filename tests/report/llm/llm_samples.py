"""A tiny random Llama and its tokenizer, in the files of Hugging Face; nothing is downloaded."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

REPORTS = (
    "The heart is of normal size.",
    "There is a nodule of 3.5 mm in the right lung. The heart is large.",
    "Pleural effusion on the left. No nodule.",
    "Lungs are clear.",
)
PROMPTS = ("Findings:", "Describe the findings of this chest CT in full.")
NEEDS_EXTRA = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("transformers", "peft")),
    reason="extra llm is not installed",
)


def write_llama(folder: Path, texts: Sequence[str] = REPORTS, *, seed: int = 0, extra_rows: int = 0) -> Path:
    """Write a model of 2 layers with random weights and a byte-pair tokenizer of texts; return the folder.

    Args:
        folder: to write.
        texts: what the tokenizer's pieces are made of, beside a prompt.
        seed: of the weights.
        extra_rows: pieces that the model has beyond the tokenizer.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE(unk_token="<unk>"))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    pieces.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>"]
    pieces.train_from_iterator([*texts, *PROMPTS], trainers.BpeTrainer(vocab_size=90, special_tokens=special))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    config = LlamaConfig(
        vocab_size=len(tokenizer) + extra_rows,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.2,
    )
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
