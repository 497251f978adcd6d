"""Settings of stage 2. "Released" means the code by the authors of arXiv 2603.04878, which may differ from the paper."""

from typing import Annotated, Literal, Self

from pydantic import model_validator

from d2rnet.report.settings import (
    DecoderSettings,
    GenerationSettings,
    LlmSettings,
    ReportTrainingSettings,
    SelfCriticalSettings,
    TextSettings,
)
from d2rnet.settings import Section, WhereAbsent, setting


class CtFeatureSettings(Section):
    """What is kept of a volume that stage 1 has looked at."""

    place = "ct.report.features"

    patches: Literal["top", "random", "all"] = setting("top")
    """Patch vectors that are kept: top, those that each structure attends to most (released); random, as many drawn at random,
    for the baseline; all, which serve every ct.report.model.selection and take up to 40 times the space."""
    most_per_structure: int = setting(9, ge=1, le=4096)
    """Patches of each structure; ct.report.model.patches_per_structure may be lower, without another extraction. Released:
    9."""
    seed: int = setting(0, ge=0)
    """Patches random: seed of the draws; those of a volume depend on it and the volume's id alone."""
    dtype: Literal["float16", "float32"] = setting("float16")
    """Type of the stored numbers; released: float32."""
    precision: Literal["32-true", "bf16-mixed"] = setting("32-true")
    """Arithmetic of stage 1 while it looks: 32-true, or bf16-mixed (faster on GPUs)."""


class CtTextSettings(TextSettings):
    """Text of reports."""

    place = "ct.report.text"

    protocol: Literal["r2gen", "faithful"] = setting("faithful")
    """faithful: decimals, case and punctuation kept, on which sizes depend; r2gen: lower case, no punctuation inside sentences
    (as CT2Rep)."""


class CtLlmSettings(LlmSettings):
    """A large language model with LoRA adapters in place of the memory-driven Transformer."""

    place = "ct.report.model.llm"


class CtReportModelSettings(DecoderSettings):
    """Tokens chosen of a volume, and the memory-driven Transformer behind them. Sizes called published are R2Gen's."""

    place = "ct.report.model"

    selection: Literal["attention", "random", "all", "mean", "none"] = setting("attention")
    """Which patches the decoder sees: attention, those that each structure attends to most (released); the others are
    baselines: random, as many at random; all of them; mean, their mean alone; none."""
    patches_per_structure: int = setting(4, ge=1, le=4096)
    """Selection attention or random: patches of each structure; at most ct.report.features.most_per_structure. Released: 9."""
    duplicates: Literal["once", "keep"] = setting("once")
    """A patch that several structures chose: once, with the structure that attends to it most (repair); keep, as often as it
    was chosen (released)."""
    observations: bool = setting(True)
    """The observation tokens of the structures are seen, too (released)."""
    observations_twice: bool = setting(False)
    """They are seen a second time behind all others (released: 110 tokens of 10 structures)."""
    positions: bool = setting(True)
    """Add the place of a patch, sines and cosines along z, y, x (repair); released: only what the patch vector knows of it."""
    token_types: bool = setting(True)
    """Add what a token is (observation, patch, mean) and the structure that it belongs to (ours)."""
    structure_projections: Annotated[bool, WhereAbsent(False)] = setting(True)
    """Tokens of each structure, and those of none, have their own linear layer into the decoder's width (ours); released: one
    for all."""
    attention_dropout: Annotated[float | None, WhereAbsent(None)] = setting(0.0, ge=0, lt=1)
    """Dropout of the weights of the Transformer's attention; null, as published: the same as elsewhere. With 0 a CPU writes no
    map of queries by keys: a step is shorter, and with all patches much shorter."""
    llm: CtLlmSettings = CtLlmSettings()


class CtSelfCriticalSettings(SelfCriticalSettings):
    """Self-critical sequence training: reports that the model draws are rewarded, beside or instead of the cross entropy."""

    place = "ct.report.training.self_critical"


class CtReportTrainingSettings(ReportTrainingSettings):
    """Training of the report model; stage 1 stays as it is."""

    place = "ct.report.training"

    epochs: int = setting(10, ge=1)
    """Passes over the training split; released: 20."""
    batch_size: int = setting(16, ge=1)
    """Volumes per step; released: 1."""
    learning_rate: float = setting(0.006, gt=0)
    """Peak learning rate, for the few steps of the demo; released: 1e-4."""
    abnormality_loss: Annotated[float, WhereAbsent(0.0)] = setting(2.0, ge=0)
    """Weight of a loss that teaches the encoder the labels of a volume (ours): the cross entropy of a linear layer on the
    encoded observation tokens, where with 1 a label counts as a token of the report. The layer is not part of the model. With
    0, or without ct.report.model.observations, there is none."""
    abnormality_weight: Annotated[float, WhereAbsent(1.0)] = setting(2.0, gt=0)
    """What the tokens of a sentence that names an abnormality count for in the cross entropy, beside 1 of all others (ours).
    More finds more and invents more. Tokens of a language model (ct.report.model.llm) all count for 1."""
    group_by_length: Annotated[bool, WhereAbsent(False)] = setting(True)
    """Reports of a batch are alike in length, so that less is padded: of up to eight batches at a time, a quarter of
    an epoch at the most. Batches come in random order; tokens of short reports weigh a little more."""
    max_report_tokens: int = setting(180, ge=4)
    """Tokens of a training report, end token not counted; longer ones are cut and get no end token. Released: 380 of LLaMA."""
    self_critical: CtSelfCriticalSettings = CtSelfCriticalSettings()


class CtGenerationSettings(GenerationSettings):
    """Writing of reports."""

    place = "ct.report.generation"

    beam_size: int = setting(2, ge=1)
    """Beams; 1 is greedy (released). More write likelier reports; a finding that is told in many ways, with sizes and sides,
    loses to the one normal sentence if the model is not sure of it."""
    max_tokens: int = setting(180, ge=1)
    """Most tokens of a report, end token counted; released: 330 of LLaMA."""


class TrainCtReportModelSettings(Section):
    """What train-ct-report-model reads."""

    place = "ct.report"

    text: CtTextSettings = CtTextSettings()
    model: CtReportModelSettings = CtReportModelSettings()
    training: CtReportTrainingSettings = CtReportTrainingSettings()

    @model_validator(mode="after")
    def _one_decoder(self) -> Self:
        if self.model.llm.weights and self.model.weights:
            raise ValueError("model.weights: expected null where model.llm.weights names a language model")
        if self.model.llm.weights and self.training.label_smoothing:
            raise ValueError("training.label_smoothing: expected 0 where model.llm.weights names a language model")
        if self.model.llm.weights and self.training.self_critical.reward != "none":
            raise ValueError("training.self_critical.reward: expected none where model.llm.weights names a language model")
        return self


class CtReportSettings(TrainCtReportModelSettings):
    """Stage 2: features of volumes, the report model, its training, and the reports that it writes."""

    features: CtFeatureSettings = CtFeatureSettings()
    generation: CtGenerationSettings = CtGenerationSettings()
