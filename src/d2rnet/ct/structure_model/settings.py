"""Settings of stage 1. "Released" means the code by the authors of arXiv 2603.04878, which may differ from the paper."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from d2rnet.ct.conversion.settings import CtConversionSettings
from d2rnet.ct.structures.settings import StructureSettings
from d2rnet.settings import Section, WhereAbsent, setting

_Side = Annotated[int, Field(ge=1, le=512)]


class VolumeEncoderSettings(Section):
    """From a volume to patch embeddings."""

    place = "ct.structure_model.model.encoder"

    kind: Literal["small", "ct_vit", "monai", "colipri"] = setting("small")
    """small: shares of grey ranges and two thin layers (ours, for a laptop); ct_vit: the factorised Transformer of CT-CLIP
    (released); monai: a network of MONAI by name (extra ct-encoders); colipri: COLIPRI's image encoder (extra colipri)."""
    patch_zyx: tuple[_Side, _Side, _Side] = setting((8, 8, 8))
    """Voxels of a patch, as [z, y, x]; must divide ct.data.conversion.shape_zyx. small: even; convolutional networks of MONAI:
    4, 8, 16 or 32, all alike. Released: 15 x 30 x 30."""
    width: int = setting(96, ge=8)
    """Width of a patch embedding; released: 512."""
    channels: int = setting(64, ge=4, le=256)
    """Kind small: width of its two layers."""
    edges: tuple[Annotated[float, Field(gt=-1, lt=1)], ...] = setting(
        (-0.96, -0.9, -0.78, -0.6, -0.35, -0.15, -0.02, 0.025, 0.06, 0.13, 0.3)
    )
    """Kind small: edges of the grey ranges, in a window of [-1000, 1000] HU / 1000."""
    layers: int = setting(0, ge=0, le=48)
    """Transformer layers: of kind small over the patches of its convolutions, of kind ct_vit in the plane, and as many over z
    (released: 4), of monai's vit and of colipri in all."""
    num_heads: int = setting(4, ge=1)
    """Attention heads of these layers; released: 8."""
    axes: Literal["zyx", "zxy", "xyz"] = setting("zyx")
    """Order of the axes in which kinds other than small take a volume; patches come back in the order z, y, x. zxy: as CT-CLIP
    was trained (repair); released: zyx."""
    recompute: bool = setting(False)
    """Kind ct_vit: compute its layers again in the backward pass instead of keeping them: less memory, more time, same
    result."""
    name: str | None = setting(None)
    """Kind monai: resnet18, resnet34, resnet50 (MONAI's own), medicalnet_resnet18, medicalnet_resnet34, medicalnet_resnet50
    (of MedicalNet's weights), densenet121 or vit."""
    weights: str | None = setting(None)
    """Path of pretrained weights, which must fit in every tensor: of CT-CLIP's first release (CT_CLIP_zeroshot.pt) for ct_vit,
    COLIPRI's model.safetensors, a state dict of MONAI's network. null: random weights."""


class ObserverSettings(Section):
    """Queries that look at the patches."""

    place = "ct.structure_model.model.observer"

    queries_per_structure: int = setting(1, ge=1, le=64)
    """Learnable queries of each structure; released: 1."""
    d_model: int = setting(96, ge=8)
    """Width of queries and patches in the observer; released: 768."""
    d_ff: int = setting(192, ge=8)
    """Width of its feed-forward layers; released: 3072."""
    num_heads: int = setting(4, ge=1)
    """Attention heads; released: 12."""
    num_layers: int = setting(1, ge=1, le=24)
    """Layers of cross-attention; released: 2. With one, the attention that is kept is all that an observation is made of."""
    attention_start: float = setting(8.0, gt=0, le=100)
    """What the projections of queries to attention are multiplied with at the start (ours); released: 1. At 1 each query looks
    everywhere alike, so that no place tells it more than another; at 8 each begins with some places."""
    update_patches: bool = setting(False)
    """Patches attend to each other and back to the queries in each layer, with the same weights (released). Attention among
    4,096 patches is what takes the memory."""
    positions: bool = setting(True)
    """Add the place of a patch, sines and cosines along z, y, x (ours); released: only what the encoder knows of it."""
    mask_air: bool = setting(True)
    """Patches of nothing but the lowest value of the window, where a volume was padded, are not looked at (ours)."""
    dropout: float = setting(0.0, ge=0, lt=1)
    """Dropout; released: 0.1, whose noise is greater than what differs between volumes in the first hundred steps."""
    standardise: bool = setting(True)
    """Each number of an observation has mean 0 and deviation 1 over a training batch, by running ones afterwards (ours).
    Without it, what differs between volumes is a few percent of what they share, and a small model does not learn it."""


class StructureNetworkSettings(Section):
    """Volume encoder and observer."""

    place = "ct.structure_model.model"

    encoder: VolumeEncoderSettings = VolumeEncoderSettings()
    observer: ObserverSettings = ObserverSettings()


class StructureTextSettings(Section):
    """What a report says of a structure, and the encoder of it."""

    place = "ct.structure_model.text"

    protocol: Literal["r2gen", "faithful"] = setting("faithful")
    """Cleaning of the own encoder's text: faithful keeps decimals and punctuation; r2gen does not."""
    section: Literal["findings"] = setting("findings")
    """Report section that structures are cut from; released: findings alone."""
    min_token_count: int = setting(2, ge=1)
    """Training tokens seen less often become <unk>."""
    max_tokens: int = setting(64, ge=4)
    """Tokens of a structure's text that are read, of a pretrained encoder word pieces; released: 200."""
    weights: str | None = setting(None)
    """Folder of a Hugging Face encoder (needs the package transformers), frozen, as the released code's, which reads the text
    as written with its own tokenizer; null: the own small encoder, trained along, with a momentum copy whose texts fill the
    queue (ours)."""
    ct_clip_weights: str | None = setting(None)
    """Path of CT-CLIP's weights, whole, of either release: its text tower takes the place of the folder's weights, in every
    tensor, and its projection follows (released). The folder gives configuration and tokenizer."""
    pooling: Literal["mean", "cls"] = setting("mean")
    """What of a pretrained encoder stands for a text: the mean of its words (ours), or its first token (released), from which
    CT-CLIP's projection was learnt."""
    embed_dim: int = setting(64, ge=4)
    """Width of the space where observations and texts are compared; a pretrained encoder brings its own. Released: 512."""
    num_layers: int = setting(1, ge=1, le=24)
    """Layers of the own encoder."""
    num_heads: int = setting(4, ge=1)
    """Attention heads of the own encoder; must divide embed_dim."""
    momentum: float = setting(0.99, ge=0, lt=1)
    """Share of the momentum copy of the own encoder that a step keeps."""
    missing: Literal["mask", "normal"] = setting("mask")
    """A structure that the report does not mention: mask leaves it out of the contrast; normal gives it the table's normal
    sentence (released)."""

    @model_validator(mode="after")
    def _tower_is_whole(self) -> Self:
        if self.ct_clip_weights is not None and self.weights is None:
            raise ValueError("ct_clip_weights: expected null without weights, the folder of its configuration and tokenizer")
        if self.ct_clip_weights is not None and self.pooling != "cls":
            raise ValueError("pooling: expected cls with ct_clip_weights, whose projection is of the first token")
        if self.pooling == "cls" and self.weights is None:
            raise ValueError("pooling: expected mean without weights; the own encoder has no first token for a text")
        return self


class ContrastSettings(Section):
    """The contrast of observations and texts."""

    place = "ct.structure_model.training.contrast"

    temperature: float = setting(0.07, gt=0, le=10)
    """Temperature of the similarities; released: 0.07, fixed."""
    learn_temperature: bool = setting(False)
    """Learn it, between 0.01 and 0.5."""
    target_temperature: float = setting(0.07, gt=0, le=10)
    """Temperature of the texts' similarity to each other in the soft targets; released: 0.07."""
    soft_share: float = setting(0.2, ge=0, le=1)
    """Share of the soft targets beside the pair itself; released: 0.2; 0: hard targets."""
    other_structures_weight: float = setting(0.0, ge=0)
    """Weight of the texts of other structures in the soft targets; released: 0.1."""
    other_structures_as_negatives: bool = setting(False)
    """Texts of other structures stand in the denominator, where they keep structures apart (released)."""
    normalise_targets: bool = setting(True)
    """Targets of a row sum to 1 (repair); released: below 1, by what the weights take away."""
    equal_texts: bool = setting(True)
    """Equal texts of a structure share the pair's part of the target (ours); released: they are negatives."""
    symmetric: bool = setting(False)
    """Texts also choose among observations (ours); released: observations among texts alone."""

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if self.learn_temperature and not 0.01 <= self.temperature <= 0.5:
            raise ValueError("temperature: expected 0.01 to 0.5 where it is learnt")
        if self.other_structures_weight and not self.other_structures_as_negatives:
            raise ValueError("other_structures_weight: expected 0 where other structures are no negatives")
        return self


class QueueSettings(Section):
    """The queue of texts beside those of the batch."""

    place = "ct.structure_model.training.queue"

    length: Annotated[int, WhereAbsent(64)] = setting(0, ge=0, le=100000)
    """Texts kept of each structure; released: 1000; 0: no queue, which was better on the demo cohort."""
    rule: Literal["fifo", "released", "refreshed", "closest_pair"] = setting("closest_pair")
    """Which text leaves a full queue: fifo, the oldest; released, the most similar to the others when it came, never judged
    again; refreshed, the most similar to the others now; closest_pair, the older of the two most alike."""
    start: Literal["empty", "noise"] = setting("empty")
    """empty: texts count as they come (repair); noise: random vectors that are not of length 1 (released)."""
    equal_texts: Literal["once", "always"] = setting("once")
    """Whether a text that the queue holds is admitted again; released: always."""


class StructureTrainingSettings(Section):
    """Training of stage 1."""

    place = "ct.structure_model.training"

    seed: int = setting(1, ge=0)
    """Seed of weights, order, shifts and dropout."""
    epochs: int = setting(22, ge=1)
    """Passes over the training split; released: 20."""
    batch_size: int = setting(16, ge=1)
    """Volumes per step, of all processes together; released: 1 on each of 3 GPUs."""
    optimizer: Literal["adamw", "adam_amsgrad"] = setting("adamw")
    """adamw (released, with betas 0.9 and 0.98), or adam_amsgrad."""
    learning_rate: float = setting(0.002, gt=0)
    """Peak learning rate; released: 1e-4, five times that for the heads."""
    final_learning_rate: float = setting(1e-05, ge=0)
    """Learning rate at the end of the cosine."""
    warmup_fraction: float = setting(0.1, ge=0, lt=1)
    """Share of all steps with linear warm-up; released: 0.1."""
    weight_decay: float = setting(0.01, ge=0)
    """Weight decay, not on norms, biases and embeddings; released: 0.01."""
    gradient_clip: float = setting(1.0, gt=0)
    """Bound of the gradient."""
    gradient_clip_kind: Literal["norm", "value"] = setting("norm")
    """norm of all gradients, or value of each."""
    validate_every_epochs: int = setting(11, ge=1)
    """Epochs between validations; the last epoch is always validated."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = setting("32-true")
    """32-true, bf16-mixed or 16-mixed (released)."""
    max_shift_voxels: int = setting(2, ge=0, le=64)
    """Most shift of a training volume along each axis, voxels of the grid, drawn for each epoch (ours). Left and right are
    never exchanged: sides would be false."""
    contrast: ContrastSettings = ContrastSettings()
    queue: QueueSettings = QueueSettings()


class StructureModelSettings(Section):
    """Stage 1: structures observed."""

    place = "ct.structure_model"

    text: StructureTextSettings = StructureTextSettings()
    model: StructureNetworkSettings = StructureNetworkSettings()
    training: StructureTrainingSettings = StructureTrainingSettings()


class GridSettings(Section):
    """The grid of converted volumes."""

    place = "ct.data"

    conversion: CtConversionSettings = CtConversionSettings()


class TrainStructuresSettings(Section):
    """What train-structures reads."""

    place = "ct"

    data: GridSettings = GridSettings()
    structures: StructureSettings = StructureSettings()
    structure_model: StructureModelSettings = StructureModelSettings()


class StructureEvaluationSettings(Section):
    """Scores of stage 1."""

    place = "ct.structure_model.evaluation"

    bootstrap_samples: int = setting(1000, ge=1)
    """Resamples of patients for the 95 % intervals."""
    bootstrap_seed: int = setting(0, ge=0)
    """Seed of the resamples."""
    masks: str | None = setting(None)
    """Folder of true masks of the test scans, <volume>.nii.gz or <study>.nii.gz, a code per voxel, on the scan's grid; null:
    those of the demo cohort or of ct.data.reports.region_mask_root, where there are some. No training reads masks."""
    mask_codes: str | None = setting(None)
    """JSON file of structure -> list of codes in these masks; null: structures.json in their folder."""

    @model_validator(mode="after")
    def _codes_have_masks(self) -> Self:
        if self.mask_codes is not None and self.masks is None:
            raise ValueError("mask_codes: expected null without masks")
        return self

    def label_volumes(self) -> tuple[Path | None, Path | None]:
        """Return the folder of masks and its table of codes, None where the settings name none."""
        return Path(self.masks) if self.masks else None, Path(self.mask_codes) if self.mask_codes else None


class StageOneSettings(StructureModelSettings):
    """Stage 1 and its scores."""

    evaluation: StructureEvaluationSettings = StructureEvaluationSettings()


class StructureScoreSettings(Section):
    """The scores of stage 1 alone."""

    place = "ct.structure_model"

    evaluation: StructureEvaluationSettings = StructureEvaluationSettings()


class EvaluateStructuresSettings(Section):
    """What evaluate-structures reads."""

    place = "ct"

    structures: StructureSettings = StructureSettings()
    structure_model: StructureScoreSettings = StructureScoreSettings()
