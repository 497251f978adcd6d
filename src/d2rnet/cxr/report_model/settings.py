"""Settings of D2R-Net: branches, augmentation, alignment."""

from typing import Annotated, Literal, Self

from pydantic import model_validator

from d2rnet.report.settings import (
    DecoderSettings,
    GenerationSettings,
    ReportTrainingSettings,
    SelfCriticalSettings,
    TextSettings,
)
from d2rnet.settings import Section, WhereAbsent, setting

VISION_TRANSFORMER = "vision_transformer"
DETECTOR = "detector"
FOUND_AT = 0.4  # a class is found at this probability and more, wherever nothing else is said


class D2RNetTextSettings(TextSettings):
    """Text of reports."""

    place = "cxr.report.text"


class D2RNetModelSettings(DecoderSettings):
    """D2R-Net's branches and the Transformer behind them."""

    place = "cxr.report.model"

    input_size_px: int = setting(64, ge=32, le=2048)
    """Side of the square input, pixels; radiographs are scaled to fit and padded (letterbox). 384 published."""
    backbone: Literal[
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
        "resnext50_32x4d",
        "resnext101_32x8d",
        "resnext101_64x4d",
        "wide_resnet50_2",
        "wide_resnet101_2",
        "densenet121",
        "vision_transformer",
    ] = setting("resnet18")
    """Network of the global branch, by torchvision's name (resnet101 published), or vision_transformer: that of the folder in
    backbone_weights (needs the package transformers)."""
    backbone_width: Annotated[int, WhereAbsent(64)] = setting(32, ge=8, le=256)
    """Channels of a ResNet's stem; 64 published. That of the detector, where it starts from its weights."""
    backbone_stages: int = setting(2, ge=2, le=4)
    """Residual stages (dense blocks) used: 4 = conv5, stride 32 (published); 3 = conv4, stride 16; 2 = conv3, stride 8."""
    backbone_weights: str | None = setting("detector")
    """Where the global branch starts from: path of a state dict (.pth or .safetensors) of torchvision or torchxrayvision, of a
    checkpoint of R2Gen, or of a vision transformer's folder; detector: the trained detector's backbone, of the same depth and
    width; null: random weights."""
    backbone_pixels: Literal["imagenet", "torchxrayvision"] = setting("imagenet")
    """Grey levels that the weights of a file were trained on: imagenet (normalised), or torchxrayvision (-1024 to 1024)."""
    channel_prior_attention: bool = setting(True)
    """Channel prior convolutional attention (CPCA) on the last feature map; published."""
    patch_channels: int = setting(128, ge=8)
    """Channels of the patch features after the 1 x 1 projection; 1024 published."""
    lesion_branch: Literal["none", "roi_align", "crop"] = setting("roi_align")
    """Source of lesion tokens: none (no tokens), roi_align (pooled from the backbone map, own choice; far cheaper than crops),
    crop (full-resolution crops through a small network, published)."""
    lesion_roi_size: int = setting(3, ge=1, le=14)
    """RoIAlign output cells per side."""
    crop_size_px: int = setting(64, ge=32, le=1024, multiple_of=16)
    """Branch crop: side of the square that a lesion's crop of the original image is padded and resized to, pixels. 384
    published."""
    crop_width: int = setting(16, ge=2, le=128)
    """Branch crop: channels of the first of five convolutions, doubled by each next one. 64 published."""
    crop_margin: float = setting(1.0, ge=1, le=4)
    """Branch crop: sides of what is cut out, as a multiple of the box's; 1 published."""
    crop_statistics: Literal["square", "box"] = setting("square")
    """Branch crop: a crop gets mean 0 and standard deviation 1 over the padded square (published), or over its own pixels, and
    padding is then the mean (own choice)."""
    crop_chunk: int = setting(0, ge=0)
    """Branch crop: most crops that go through their network together, in each process; 0 (published): all. A batch of more
    takes them in chunks, with the same batch statistics and gradients up to rounding: memory of one chunk, but several times
    the work in training (own choice)."""
    lesion_enhancement: Literal["none", "clahe", "lera"] = setting("none")
    """Branch crop: what is done to a crop before its network: none, clahe (histogram equalisation), lera (Lesion Region
    Enhancement Module, published; its inside is reconstructed)."""
    lera_gate: Literal["clamped", "shifted"] = setting("clamped")
    """How LERA weighs a patch by its cosine with a learnt pattern: clamped, below 0 not at all (HCF-Net), which leaves some
    branches silent and without a gradient from the start; shifted, by (1 + cosine) / 2 (own choice)."""
    lesion_class: bool = setting(True)
    """A lesion token carries its class (own choice; false in the published model)."""
    lesion_class_dropout: float = setting(0.0, ge=0, le=1)
    """Share of lesion tokens whose class is hidden in training, so that their look has to tell it (own choice)."""
    lesion_score: bool = setting(True)
    """A lesion token carries its score (own choice; false in the published model)."""
    lesion_position: bool = setting(True)
    """A lesion token carries its normalised position (own choice; false in the published model)."""
    findings: Annotated[Literal["none", "taught", "told"], WhereAbsent("none")] = setting("told")
    """none: as published. taught: a layer on the means of the encoded lesion tokens and of the others learns which classes a
    report names (cxr.report.training.lesion_loss). told: the decoder is told what it finds, by tokens of these (ours)."""
    finding_sides: Annotated[bool, WhereAbsent(False)] = setting(True)
    """Where findings is told: the token of a class also says on which sides the class has boxes (ours), whatever lesion_class
    and lesion_position say. Boxes of lateral images have no side where the entries tell views (cxr.annotation.context); else
    leave them out with cxr.annotation.box_views."""
    finding_scores: Annotated[bool, WhereAbsent(False)] = setting(True)
    """Where findings is not none: the layer also sees the greatest score of each class's boxes, whatever lesion_class and
    lesion_score say (ours)."""
    view_embedding: bool = setting(False)
    """Patch and lesion tokens carry the view of their image (PA, AP, lateral, unknown) and, beyond the first image of a view,
    its number, as learnt embeddings (own choice). Needs views in cxr.annotation.context."""
    indication: bool = setting(False)
    """The words of the indication are tokens of the encoder (own choice). Needs indication in cxr.annotation.context."""
    prior: bool = setting(False)
    """The words of the report of the patient's study before, and its lesions (class, score, place), are tokens of the encoder
    (own choice). Needs prior in cxr.annotation.context."""
    context_words: int = setting(60, ge=1)
    """Most words taken of an indication, and of a report before."""
    context_buckets: int = setting(4096, ge=16)
    """Rows of the table that the words of either text are hashed into; more of them share fewer rows."""
    patch_dropout: float = setting(0.5, ge=0, lt=1)
    """Dropout after the patch projection; 0.5 published."""
    dropout: float = setting(0.0, ge=0, lt=1)
    """Dropout inside the Transformer, none in the few epochs of the demo; 0.1 published."""


class AugmentationSettings(Section):
    """Augmentation of image and boxes together."""

    place = "cxr.report.training.augmentation"

    max_shift: float = setting(0.0, ge=0, le=0.5)
    """Most shift along each axis, as a share of the input side."""
    max_scale: float = setting(0.0, ge=0, le=0.5)
    """Most relative change of size, either way."""
    max_intensity: float = setting(0.0, ge=0, le=0.5)
    """Most relative change of contrast, and of brightness as a share of the grey range."""
    horizontal_flip: bool = setting(False)
    """Mirror every second image with its boxes, and swap left and right in its report. Hearts and burnt-in side markers are
    mirrored, too."""


class AlignmentSettings(Section):
    """Alignment losses LAB and GAB; text encoder and projections live in training only."""

    place = "cxr.report.training.alignment"

    lab: Literal["none", "lesions", "lesions_or_image"] = setting("none")
    """LAB, lesion tokens against the words of the sentences: none, lesions (images without boxes leave the term),
    lesions_or_image (their mean patch is their only region). Published: on."""
    gab: Literal["none", "patches", "mean"] = setting("none")
    """GAB: none, patches (patch features against the words of the report), mean (mean patch against mean word). Published:
    on."""
    lab_weight: float = setting(1.0, ge=0)
    """Weight of LAB's loss beside the cross entropy; 1 published."""
    gab_weight: float = setting(1.0, ge=0)
    """Weight of GAB's loss beside the cross entropy; 1 published."""
    weight_by: Annotated[Literal["fixed", "gradient_ratio"], WhereAbsent("fixed")] = setting("gradient_ratio")
    """fixed: the weights are these (published); gradient_ratio: they are factors on the weight at which a loss's gradient on
    the visual parameters that it reaches is gradient_ratio times that of the cross entropy (own choice)."""
    gradient_ratio: float = setting(0.5, gt=0)
    """Wanted ratio of gradient norms with weight_by gradient_ratio (own choice)."""
    warmup_steps: Annotated[int, WhereAbsent(0)] = setting(100, ge=0)
    """Steps over which the weights rise linearly from 0 (own choice; 0 in the published model)."""
    measure_every_steps: int = setting(10, ge=1)
    """Steps between measurements of the gradient ratio; each is a backward pass per loss and one of the cross entropy (own
    choice)."""
    centring: Annotated[bool, WhereAbsent(False)] = setting(True)
    """Subtract the mean over the batch from the vectors of regions, and from those of words, before they get length 1 (own
    choice; keeps the hinge from moving all vectors one way). Not in the published model."""
    word_projection: Annotated[Literal["shared", "separate"], WhereAbsent("shared")] = setting("separate")
    """Whether LAB and GAB project words by one layer (published) or each by its own."""
    projection_bias: Annotated[bool, WhereAbsent(True)] = setting(False)
    """Whether the projections of regions and words have a bias, which alone can make all vectors alike (own choice: false)."""
    targets: Annotated[Literal["hardest", "soft"], WhereAbsent("hardest")] = setting("soft")
    """hardest: hinge with the hardest negative of the batch, both ways (NAAF, published), which can collapse; soft: cross
    entropy against shares by likeness of the reports, so that near-duplicate reports are no negatives."""
    likeness: Annotated[Literal["words", "findings", "words_and_findings"], WhereAbsent("words")] = setting(
        "words_and_findings"
    )
    """What makes reports alike for targets soft: words (cosine of word counts), findings (lesion classes that both name over
    those that either names; own choice), or the mean of both."""
    same_findings: Annotated[Literal["negatives", "left_out"], WhereAbsent("negatives")] = setting("left_out")
    """Whether two reports that name the same lesion classes, or none, are negatives of each other (published) or left out (own
    choice)."""
    queue_length: int = setting(0, ge=0, le=100000)
    """Earlier reports that images choose among beside those of the batch, for targets soft: like ones are soft positives,
    others negatives (after stage 1 of chest CT; arXiv 2603.04878: 1000 texts of a structure). 0: no queue."""
    queue_rule: Literal["fifo", "released", "refreshed", "closest_pair"] = setting("closest_pair")
    """Which report leaves a full queue: fifo, the oldest; released, the most similar to the others when it came, never judged
    again; refreshed, the most similar to the others now; closest_pair, the older of the two most alike. By their words."""
    sentence_box: bool = setting(False)
    """A third loss: a sentence that names a class against boxes, those of its entry and class the positives (own choice)."""
    sentence_box_weight: float = setting(1.0, ge=0)
    """Its weight beside the cross entropy."""
    sentence_box_temperature: float = setting(0.1, gt=0)
    """Temperature of its cosines."""
    margin: float = setting(0.2, ge=0)
    """Margin of the hinge; 0.2 published."""
    lambda_softmax: float = setting(20.0, gt=0)
    """Sharpness of the weights over regions; 20 published."""
    alpha: float = setting(2.0, gt=0)
    """Cost of a mismatched word above the boundary against a matched one below; 2 published."""
    boundary_start: float = setting(0.0, ge=-1, le=1)
    """First similarity boundary between matched and mismatched words, a cosine; 0 published."""
    boundary_momentum: float = setting(0.99, ge=0, lt=1)
    """Share of the old boundary that a step keeps (own choice; NAAF starts again in every batch, which is 0)."""
    soft_temperature: float = setting(0.1, gt=0)
    """Temperature of targets soft, of scores and of report likeness alike (own choice)."""
    embed_dim: int = setting(64, ge=4)
    """Width of the space that regions and words share; 1024 published."""
    text_layers: int = setting(1, ge=1, le=64)
    """Layers of the small text encoder (own choice)."""
    text_heads: int = setting(4, ge=1)
    """Attention heads of the small text encoder; must divide embed_dim (own choice)."""
    text_encoder_weights: str | None = setting(None)
    """Folder of a Hugging Face BERT-like encoder (needs the package transformers), frozen, instead of the small text encoder;
    published: BERT. null: the small one."""

    @model_validator(mode="after")
    def _queue_has_targets(self) -> Self:
        if self.queue_length and self.targets != "soft":
            raise ValueError(f"queue_length: got {self.queue_length}; expected 0 where targets is {self.targets}")
        return self

    @property
    def is_on(self) -> bool:
        """Whether any of the losses is."""
        return self.sentence_box or not self.lab == self.gab == "none"


class D2RNetSelfCriticalSettings(SelfCriticalSettings):
    """Self-critical sequence training: reports that the model draws are rewarded, beside or instead of the cross entropy."""

    place = "cxr.report.training.self_critical"


class D2RNetTrainingSettings(ReportTrainingSettings):
    """Training of D2R-Net."""

    place = "cxr.report.training"

    backbone_learning_rate: float = setting(0.001, ge=0)
    """Peak learning rate of the ResNet."""
    pointer_weight: Annotated[float, WhereAbsent(0.0)] = setting(0.3, ge=0)
    """Weight of a loss that teaches the last layer's attention among lesion tokens to go to boxes of the class, and on the
    side, that a sentence names (own choice); 0 is off. Boxes of lateral images have no side where the entries tell views
    (cxr.annotation.context); else leave them out with cxr.annotation.box_views."""
    lesion_loss: float = setting(2.0, gt=0)
    """Weight of the loss that teaches cxr.report.model.findings; with 1 a class counts as a token of the report does."""
    finding_dropout: float = setting(0.1, ge=0, lt=1)
    """Share of the classes named by a report that the decoder, where cxr.report.model.findings tells it, is not told in
    training, so that it goes on reading its lesion tokens itself."""
    side_weight: Annotated[float, WhereAbsent(1.0)] = setting(3.0, ge=1)
    """What a word that names a side, be it of a lesion or of a tube, counts for in the cross entropy (what is beyond 1 without
    label smoothing), beside 1 of all others (ours): a side is one word of twenty, and the image decides it."""
    augmentation: AugmentationSettings = AugmentationSettings()
    alignment: AlignmentSettings = AlignmentSettings()
    self_critical: D2RNetSelfCriticalSettings = D2RNetSelfCriticalSettings()


class D2RNetGenerationSettings(GenerationSettings):
    """Writing of reports."""

    place = "cxr.report.generation"

    finding_threshold: float = setting(FOUND_AT, gt=0, lt=1)
    """Where cxr.report.model.findings is told, the decoder is told a class that is found with this probability and more (own
    choice). A lower one names more lesions, and more that are not there."""
    beam_size: int = setting(6, ge=1)
    """Method beam: beams; 3 published, 1 is greedy. Own choice 6: more of them hold a report that unsaid_weight prefers."""
    unsaid_weight: Annotated[float, WhereAbsent(0.0)] = setting(4.0, ge=0)
    """Where cxr.report.model.findings is told, method beam: nats that a finished report loses in the search for each class
    that the decoder was told and that it does not name (ours); 0 is off. log_prob stays that of its tokens."""
    grounding_share: float = setting(0.05, ge=0, le=1)
    """A lesion box is listed with a sentence when its token gets at least this share of the sentence's mean cross-attention
    and passes grounding_contrast (own choice)."""
    grounding_contrast: float = setting(1.2, ge=0)
    """... and at least so many times its mean share over the whole report; 0 is off (own choice)."""


class TrainReportModelSettings(Section):
    """What train-report-model reads."""

    place = "cxr.report"

    text: D2RNetTextSettings = D2RNetTextSettings()
    model: D2RNetModelSettings = D2RNetModelSettings()
    training: D2RNetTrainingSettings = D2RNetTrainingSettings()


class ReportSettings(TrainReportModelSettings):
    """The report model, its training, and the reports that it writes."""

    generation: D2RNetGenerationSettings = D2RNetGenerationSettings()
