"""Settings of reports that do not depend on what is looked at.

A wing makes its own sections of these, which say where in ``config.yaml`` they stand: its defaults, and ``place``.
"""

from typing import Literal, Self

from pydantic import model_validator

from d2rnet.runs.settings import LoaderRuntime
from d2rnet.settings import Section, setting


class TextSettings(Section):
    """Text of reports."""

    place = "report.text"

    protocol: Literal["r2gen", "faithful"] = setting("r2gen")
    """r2gen: lower case, no punctuation inside sentences (the cleaning of R2Gen, on which published scores are computed);
    faithful: decimals, case and punctuation kept."""
    section: Literal["findings", "impression"] = setting("findings")
    """Report section that the texts are; must equal data.reports.section of the same wing, printed with every score."""
    min_token_count: int = setting(3, ge=1)
    """Training tokens seen less often become <unk>; published: 10 for MIMIC-CXR, 3 for Indiana University."""


class DecoderSettings(Section):
    """The memory-driven Transformer."""

    place = "report.model"

    d_model: int = setting(96, ge=8)
    """Width of the Transformer; 512 published; a multiple of num_heads and memory_heads."""
    d_ff: int = setting(192, ge=8)
    """Width of the feed-forward layers; 512 published."""
    num_heads: int = setting(4, ge=1)
    """Attention heads; 8 published."""
    num_layers: int = setting(2, ge=1, le=64)
    """Layers of the encoder and of the decoder; 3 published."""
    dropout: float = setting(0.1, ge=0, lt=1)
    """Dropout inside the Transformer; 0.1 published."""
    attention_dropout: float | None = setting(None, ge=0, lt=1)
    """Dropout of the weights of its attention; null, as published: the same. With 0 a CPU writes no map of queries by keys."""
    memory_slots: int = setting(3, ge=1)
    """Slots of the relational memory; 3 published."""
    memory_heads: int = setting(4, ge=1)
    """Attention heads of the relational memory; 8 published."""
    weights: str | None = setting(None)
    """Path of a checkpoint of R2Gen, or of D2R-Net's released code (.pth), that the Transformer starts from; sizes and heads
    must be the file's. null: random weights."""


class LlmSettings(Section):
    """A large language model with LoRA adapters in place of the memory-driven Transformer (extra llm).

    "Released" means the code by the authors of arXiv 2603.04878.
    """

    place = "report.model.llm"

    weights: str | None = setting(None)
    """Folder of a causal language model and its tokenizer as Hugging Face saves them, never fetched, which stays frozen while
    adapters in it are trained. Released: LLaMA-2-7B-chat. null: the memory-driven Transformer instead."""
    dtype: Literal["bfloat16", "float32"] = setting("bfloat16")
    """Type of the frozen weights: bfloat16 for GPUs (13.5 GB of 7B parameters; released: float16), or float32. Adapters are
    float32."""
    prompt: str = setting("Describe the findings of this chest CT in full. Findings:")
    """Words between visual tokens and report (ours; released: others, some of them before the tokens)."""
    lora_rank: int = setting(32, ge=1)
    """Rank of the adapters; released: 32."""
    lora_alpha: float = setting(16.0, gt=0)
    """Adapters count lora_alpha / lora_rank times; released: 16."""
    lora_dropout: float = setting(0.05, ge=0, lt=1)
    """Dropout before the adapters; released: 0.05."""
    lora_targets: tuple[str, ...] = setting(("q_proj", "k_proj", "v_proj", "o_proj"), min_length=1)
    """Layers that get adapters, by the last part of their names. Released: W_pack and o_proj, of which LLaMA has o_proj
    alone."""


class SelfCriticalSettings(Section):
    """Self-critical sequence training: reports that the model draws are rewarded, beside or instead of the cross entropy."""

    place = "report.training.self_critical"

    reward: Literal["none", "findings_f1", "cider"] = setting("none")
    """What a drawn report earns beside its reference: none (off); findings_f1, F1 of the findings that it names (radiographs:
    the 22 lesions, CT: the 18 abnormalities; own choice); cider, with the word weights of the training reports, 0 to 10
    (published). Its gain over the greedy report of the same entry decides whether it becomes more or less probable."""
    start_epoch: int = setting(7, ge=0)
    """Epochs of cross entropy alone before it; below epochs."""
    weight: float = setting(1.0, ge=0)
    """Weight of its loss, which is divided by the number of the references' tokens, as the cross entropy is."""
    cross_entropy_weight: float = setting(1.0, ge=0)
    """Weight of the cross entropy beside it, from then on; 0 published. The history's train_loss is without it."""


class ReportTrainingSettings(Section):
    """Training of a report model."""

    place = "report.training"

    seed: int = setting(1, ge=0)
    """Seed of weights, order and dropout."""
    epochs: int = setting(8, ge=1)
    """Passes over the training split; 50 published."""
    batch_size: int = setting(16, ge=1)
    """Entries per step; 32 published."""
    accumulation_steps: int = setting(1, ge=1)
    """Micro-batches that a step's entries go through the model in, of each process, to save memory. The cross entropy's
    gradient is that of 1; batch normalisation and alignment see a micro-batch, but boundaries move once a step, by all of
    them. batch_size must be at least processes times this."""
    group_by_length: bool = setting(False)
    """Reports of a batch are alike in length, so that less is padded: of up to eight batches at a time, a quarter of
    an epoch at the most. Batches come in random order; tokens of short reports weigh a little more."""
    optimizer: Literal["adamw", "adam_amsgrad"] = setting("adamw")
    """adamw, or adam_amsgrad (published)."""
    learning_rate: float = setting(0.002, gt=0)
    """Peak learning rate; 1e-4 published."""
    final_learning_rate: float = setting(1e-05, ge=0)
    """Learning rate at the end of the cosine (of both groups)."""
    warmup_fraction: float = setting(0.05, ge=0, lt=1)
    """Share of all steps with linear warm-up (own choice)."""
    weight_decay: float = setting(0.01, ge=0)
    """Weight decay, not on norms and biases; 5e-5 published."""
    label_smoothing: float = setting(0.0, ge=0, lt=1)
    """Label smoothing of the cross entropy."""
    gradient_clip: float = setting(1.0, gt=0)
    """Bound of the gradient; 0.1 by value published."""
    gradient_clip_kind: Literal["norm", "value"] = setting("norm")
    """norm of all gradients, or value of each (published)."""
    max_report_tokens: int = setting(100, ge=4)
    """Tokens of a training report, end token not counted; longer ones are cut and get no end token. 100 published."""
    selection: Literal["bleu_4", "loss", "reward"] = setting("loss")
    """What picks the weights, on the validation split: loss; bleu_4 of greedy reports (published), which is noisy where
    validation reports are few; or reward, what self_critical gives for greedy reports. By loss, weights from before
    self_critical are likely to be picked."""
    validate_every_epochs: int = setting(3, ge=1)
    """Epochs between validations; the last epoch is always validated."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = setting("32-true")
    """32-true, bf16-mixed or 16-mixed."""
    self_critical: SelfCriticalSettings = SelfCriticalSettings()

    @model_validator(mode="after")
    def _reward_is_used(self) -> Self:
        if self.self_critical.reward == "none":
            if self.selection == "reward":
                raise ValueError("selection: got reward; expected loss or bleu_4 where self_critical.reward is none")
        elif self.self_critical.start_epoch >= self.epochs:
            raise ValueError(
                f"self_critical.start_epoch: got {self.self_critical.start_epoch}; expected less than epochs ({self.epochs})"
            )
        return self


class GenerationSettings(Section):
    """Writing of reports."""

    place = "report.generation"

    split: Literal["train", "val", "test"] = setting("test")
    """Which split to write reports for."""
    batch_size: int = setting(16, ge=1)
    """Entries decoded together."""
    method: Literal["beam", "sample"] = setting("beam")
    """beam: beam search (published); sample: tokens drawn from the model's distribution, the same ones for an entry in any
    shard."""
    beam_size: int = setting(3, ge=1)
    """Method beam: beams; 3 published; 1 is greedy."""
    max_tokens: int = setting(100, ge=1)
    """Most tokens of a report, end token counted; 100 published."""
    min_tokens: int = setting(0, ge=0)
    """No end token before so many tokens."""
    no_repeat_ngram: int = setting(0, ge=0)
    """A report holds no n-gram of this many tokens twice; 0 (published): it may."""
    length_penalty: float = setting(0.0, ge=0)
    """Method beam: score of a finished report is its log-probability / length ** length_penalty; 0 (published): the plain
    sum."""
    temperature: float = setting(1.0, gt=0)
    """Method sample: log-probabilities are divided by it before drawing; below 1 sharper."""
    top_p: float = setting(0.9, le=1, gt=0)
    """Method sample: draw from the fewest most probable tokens that hold this share together; 1: from all."""
    seed: int = setting(0, ge=0)
    """Method sample: seed of the draws; those of an entry depend on it and the entry's id alone."""
    precision: Literal["32-true", "bf16-true"] = setting("32-true")
    """Weights of the Transformer while writing: 32-true, or bf16-true (half the memory, faster where the processor computes in
    bfloat16; reports can differ where words are nearly tied)."""


class ReportRuntime(LoaderRuntime):
    """How a training of a report model runs on this machine; changes no result."""

    place = "runtime"

    checkpoint_minutes: float = setting(10.0, ge=0)
    """Minutes between checkpoints inside an epoch; one is written at each epoch end and on SIGTERM, too."""
