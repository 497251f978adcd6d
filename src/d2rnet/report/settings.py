"""Settings of reports that do not depend on what is looked at."""

from typing import Literal

from d2rnet.runs.settings import LoaderRuntime
from d2rnet.settings import Section, setting


class TextSettings(Section):
    """Text of reports."""

    place = "cxr.report.text"

    protocol: Literal["r2gen", "faithful"] = setting(
        "r2gen",
        "r2gen: lower case, no punctuation inside sentences (the cleaning of R2Gen, on which published scores are "
        "computed); faithful: decimals, case and punctuation kept.",
    )
    section: Literal["findings", "impression"] = setting(
        "findings",
        "Report section that the texts are; must equal cxr.data.reports.section, printed with every score.",
    )
    min_token_count: int = setting(
        3,
        "Training tokens seen less often become <unk>; published: 10 for MIMIC-CXR, 3 for Indiana University.",
        ge=1,
    )


class DecoderSettings(Section):
    """The memory-driven Transformer."""

    place = "cxr.report.model"

    d_model: int = setting(96, "Width of the Transformer; 512 published; a multiple of num_heads and memory_heads.", ge=8)
    d_ff: int = setting(192, "Width of the feed-forward layers; 512 published.", ge=8)
    num_heads: int = setting(4, "Attention heads; 8 published.", ge=1)
    num_layers: int = setting(2, "Layers of the encoder and of the decoder; 3 published.", ge=1, le=64)
    dropout: float = setting(0.1, "Dropout inside the Transformer; 0.1 published.", ge=0, lt=1)
    memory_slots: int = setting(3, "Slots of the relational memory; 3 published.", ge=1)
    memory_heads: int = setting(4, "Attention heads of the relational memory; 8 published.", ge=1)


class ReportTrainingSettings(Section):
    """Training of a report model."""

    place = "cxr.report.training"

    seed: int = setting(1, "Seed of weights, order and dropout.", ge=0)
    epochs: int = setting(14, "Passes over the training split; 50 published.", ge=1)
    batch_size: int = setting(16, "Entries a step; 32 published.", ge=1)
    optimizer: Literal["adamw", "adam_amsgrad"] = setting("adamw", "adamw, or adam_amsgrad (published).")
    learning_rate: float = setting(0.002, "Peak learning rate; 1e-4 published.", gt=0)
    final_learning_rate: float = setting(1e-05, "Learning rate at the end of the cosine (of both groups).", ge=0)
    warmup_fraction: float = setting(0.05, "Share of all steps with linear warm-up (own choice).", ge=0, lt=1)
    weight_decay: float = setting(0.01, "Weight decay, not on norms and biases; 5e-5 published.", ge=0)
    label_smoothing: float = setting(0.0, "Label smoothing of the cross entropy.", ge=0, lt=1)
    gradient_clip: float = setting(1.0, "Bound of the gradient; 0.1 by value published.", gt=0)
    gradient_clip_kind: Literal["norm", "value"] = setting("norm", "norm of all gradients, or value of each (published).")
    max_report_tokens: int = setting(
        100,
        "Tokens of a training report, end token not counted; longer ones are cut and get no end token. 100 published.",
        ge=4,
    )
    selection: Literal["bleu_4", "loss"] = setting(
        "loss",
        "What picks the weights, on the validation split: loss, or bleu_4 of greedy reports (published), which is "
        "noisy where validation reports are few.",
    )
    validate_every_epochs: int = setting(3, "Epochs between validations; the last epoch is always validated.", ge=1)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = setting("32-true", "32-true, bf16-mixed or 16-mixed.")


class GenerationSettings(Section):
    """Writing of reports."""

    place = "cxr.report.generation"

    split: Literal["train", "val", "test"] = setting("test", "Which split to write reports for.")
    batch_size: int = setting(16, "Entries decoded together.", ge=1)
    method: Literal["beam", "sample"] = setting(
        "beam",
        "beam: beam search (published); sample: tokens drawn from the model's distribution, the same ones for an "
        "entry in any shard.",
    )
    beam_size: int = setting(3, "Method beam: beams; 3 published; 1 is greedy.", ge=1)
    max_tokens: int = setting(100, "Most tokens of a report, end token counted; 100 published.", ge=1)
    min_tokens: int = setting(0, "No end token before so many tokens.", ge=0)
    no_repeat_ngram: int = setting(0, "A report holds no n-gram of this many tokens twice; 0 (published): it may.", ge=0)
    length_penalty: float = setting(
        0.0,
        "Method beam: score of a finished report is its log-probability / length ** length_penalty; 0 "
        "(published): the plain sum.",
        ge=0,
    )
    temperature: float = setting(
        1.0,
        "Method sample: log-probabilities are divided by it before drawing; below 1 sharper.",
        gt=0,
    )
    top_p: float = setting(
        0.9,
        "Method sample: draw from the fewest most probable tokens that hold this share together; 1: from all.",
        le=1,
        gt=0,
    )
    seed: int = setting(0, "Method sample: seed of the draws; those of an entry depend on it and the entry's id alone.", ge=0)
    precision: Literal["32-true", "bf16-true"] = setting(
        "32-true",
        "Weights of the Transformer while writing: 32-true, or bf16-true (half the memory, faster where the "
        "processor computes in bfloat16; reports can differ where words are nearly tied).",
    )
    grounding_share: float = setting(
        0.05,
        "A lesion box is listed with a sentence when its token gets at least this share of the sentence's mean "
        "cross-attention and passes grounding_contrast (own choice).",
        ge=0,
        le=1,
    )
    grounding_contrast: float = setting(
        1.2,
        "... and at least so many times its mean share over the whole report; 0 is off (own choice).",
        ge=0,
    )


class ReportRuntime(LoaderRuntime):
    """How a training of a report model runs on this machine; changes no result."""

    place = "runtime"

    checkpoint_minutes: float = setting(
        10.0, "Minutes between checkpoints inside an epoch; one is written at each epoch end and on SIGTERM, too.", ge=0
    )
