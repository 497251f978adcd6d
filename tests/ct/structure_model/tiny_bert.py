"""A folder of a tiny BERT with a tokenizer of some words, as transformers saves it; sizes of ct_clip_sample.SMALL."""

import json
from pathlib import Path
from typing import Any

from ct_clip_sample import SMALL

WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    ".",
    "lung",
    "##s",
    "nod",
    "##ule",
    "clear",
    "is",
    "are",
    "the",
    "effusion",
)


def write_bert(folder: Path, **changes: Any) -> Path:
    """Write the folder with random weights; ``changes`` are laid over its configuration."""
    import torch
    import transformers

    folder.mkdir(parents=True)
    vocabulary = [*WORDS, *(f"[unused{number}]" for number in range(SMALL.words - len(WORDS)))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    save_tokenizer(folder)
    config = transformers.BertConfig(
        vocab_size=SMALL.words,
        hidden_size=SMALL.text_width,
        num_hidden_layers=SMALL.text_layers,
        num_attention_heads=2,
        intermediate_size=4 * SMALL.text_width,
        max_position_embeddings=SMALL.positions,
    )
    config.update(changes)
    torch.manual_seed(3)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """Save the tokenizer of the words in ``vocab.txt``."""
    import transformers

    transformers.BertTokenizerFast.from_pretrained(folder, local_files_only=True).save_pretrained(folder)


def as_cxr_bert(folder: Path) -> Path:
    """Make the folder look as CXR-BERT's: another name of the same network, and code that goes by it."""
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "configuration_cxrbert.CXRBertConfig", "AutoModel": "modeling_cxrbert.CXRBertModel"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "cxr-bert", "auto_map": code}))
    (folder / "tokenizer.json").unlink()
    words = {
        "tokenizer_class": "CXRBertTokenizer",
        "auto_map": {"AutoTokenizer": ["configuration_cxrbert.CXRBertTokenizer", None]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, **words}))
    return folder
