"""Alignment losses: regions of the image against words of the report (LAB and GAB). Training only.

Source: D2R-Net (Tang et al. 2025) names the Local and Global Alignment Block and shows no equation. Reconstructed from the
negative-aware attention framework (NAAF; Zhang et al., CVPR 2022), whose hyper-parameters the released argument list carries.
LAB: lesion tokens against the words of single sentences. GAB: patch features against the words of the whole report; scores of
both: word_scores.py. Differs: with soft targets, reports that say the same are no negatives of each other, as many normal
reports of a cohort otherwise are; images may then choose among earlier reports, too (report_queue.py).

The grid of all images with all reports is computed at once: about 10 tensors of I x B x U x R float32 live at a time. At the
published sizes (32 images, 32 reports, 100 words, 144 patches) that is 0.6 GB each; larger grids are cut along the images and
computed again in the backward pass, so that no part has more than ``GRID_ELEMENTS`` numbers.

Shapes: I images and B reports (one each per entry), Q reports of the queue, R regions, U words, E width of the shared space.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from d2rnet.cxr.report_model.alignment_watch import OF_REPORTS, OF_SENTENCES, Watch, mean_length
from d2rnet.cxr.report_model.dataset import ChestBatch
from d2rnet.cxr.report_model.model import ChestTokens
from d2rnet.cxr.report_model.report_findings import jaccard, naming_sentences, report_classes
from d2rnet.cxr.report_model.report_queue import ReportQueue
from d2rnet.cxr.report_model.sentence_box import box_retrieval, sentence_box_loss, sentence_pairs
from d2rnet.cxr.report_model.settings import AlignmentSettings, D2RNetModelSettings
from d2rnet.cxr.report_model.word_scores import Boundary, best_similarities, word_scores
from d2rnet.errors import ConfigError
from d2rnet.report.local_encoder import encoder_files
from d2rnet.report.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from d2rnet.report.text_encoder import PretrainedTextEncoder, SmallTextEncoder, Words
from d2rnet.report.training_task import FurtherLosses
from d2rnet.training.collectives import first_row, gather_rows, pad_over_processes
from d2rnet.training.contrastive import hardest_negative_loss, mean_vector, soft_target_loss
from d2rnet.training.loss_weights import LossWeights

GRID_ELEMENTS = 2**26
SENTENCE_BOX = "sentence_box"
LOSS_NAMES = {"local": "local_alignment", "global": "global_alignment", SENTENCE_BOX: SENTENCE_BOX}
WEIGHTS = {"local": "lab_weight", "global": "gab_weight", SENTENCE_BOX: "sentence_box_weight"}  # settings
LEAST_LENGTH = 1e-4  # a vector that is the mean itself has no direction


class Alignment(FurtherLosses):
    """LAB and GAB with their text encoder, projections and boundaries."""

    rarity: Tensor

    def __init__(
        self, settings: AlignmentSettings, model: D2RNetModelSettings, vocabulary: Vocabulary, *, max_tokens: int
    ) -> None:
        """Make what the losses need.

        Args:
            settings: which losses, and their numbers.
            model: of the model that is trained with them.
            vocabulary: of the model.
            max_tokens: of a training report.

        Raises:
            ConfigError: LAB without lesion tokens, or a text encoder that cannot be made.
        """
        super().__init__()
        self.settings = settings
        self._kinds = {"local": settings.lab, "global": settings.gab}
        self.vocabulary = vocabulary
        _check_branch(settings, model)
        self.text_encoder = make_text_encoder(settings, vocabulary, dropout=model.dropout)
        widths = {"local": model.d_model, "global": model.patch_channels, SENTENCE_BOX: model.d_model}
        self._blocks = blocks = [block for block, kind in self._kinds.items() if kind != "none"]
        projected = [*blocks, *([SENTENCE_BOX] if settings.sentence_box else [])]
        self._projection_of = {block: block if settings.word_projection == "separate" else "shared" for block in projected}
        self.words = nn.ModuleDict()
        for name in dict.fromkeys(self._projection_of.values()):
            self.words[name] = nn.Linear(self.text_encoder.width, settings.embed_dim, bias=settings.projection_bias)
        self.regions = nn.ModuleDict()
        self.boundaries = nn.ModuleDict()
        self.watches = nn.ModuleDict()
        for block in projected:
            self.regions[block] = nn.Linear(widths[block], settings.embed_dim, bias=settings.projection_bias)
            wording = OF_SENTENCES if block == SENTENCE_BOX else OF_REPORTS
            self.watches[block] = Watch(LOSS_NAMES[block], place=settings.place, weight=WEIGHTS[block], wording=wording)
        self.weights = LossWeights(
            {LOSS_NAMES[block]: getattr(settings, WEIGHTS[block]) for block in projected},
            target_ratio=settings.gradient_ratio if settings.weight_by == "gradient_ratio" else None,
            warmup_steps=settings.warmup_steps,
            measure_every_steps=settings.measure_every_steps,
        )
        for block in blocks:
            if self._kinds[block] != "mean":
                self.boundaries[block] = Boundary(
                    start=settings.boundary_start, momentum=settings.boundary_momentum, alpha=settings.alpha
                )
        self.queue: ReportQueue | None = None
        if settings.queue_length and blocks:
            rule, words = settings.queue_rule, len(vocabulary)
            self.queue = ReportQueue(settings.queue_length, rule=rule, num_words=words, max_tokens=max_tokens)
        counts = torch.tensor(vocabulary.counts, dtype=torch.float32)
        rarity = torch.log(counts.sum().clamp(min=1) / counts.clamp(min=1))
        rarity[: len(SPECIAL_TOKENS)] = 0
        self.register_buffer("rarity", rarity, persistent=False)

    def forward(self, visual: ChestTokens, batch: ChestBatch) -> dict[str, Tensor]:
        """Return the losses that are on, ``local_alignment``, ``global_alignment`` and ``sentence_box``, unweighted.

        Args:
            visual: of D2RNet.look, images of this process.
            batch: of n entries, with their reports.
        """
        losses = {}
        token_ids = batch.token_ids
        likeness, left_out = self._relations(token_ids) if self._blocks else (None, None)
        for block in self._blocks:
            regions, region_mask = self._regions_of(block, visual)
            encoded = self.text_encoder(token_ids, by_sentence=block == "local")
            with torch.autocast(token_ids.device.type, enabled=False):
                queued = self._queued(block, encoded)
                regions = self._project(self.regions[block], regions, region_mask)
                features = self._project(self.words[self._projection_of[block]], encoded.features, encoded.mask)
                words = Words(features, encoded.mask)
                if self._kinds[block] == "mean":
                    regions, region_mask = self._mean(regions, region_mask)
                    words = Words(*self._mean(words.features, words.mask))
                scores, valid = self._grid(block, regions, region_mask, words, queued)
                if likeness is None:
                    loss = hardest_negative_loss(scores, valid, self.settings.margin, left_out)
                else:
                    queue_valid = None if queued is None else queued.mask.any(dim=1)
                    loss = soft_target_loss(scores, valid, likeness, self.settings.soft_temperature, left_out, queue_valid)
                if self.training:
                    lengths = (mean_length(regions, region_mask), mean_length(words.features, words.mask))
                    cast(Watch, self.watches[block]).look(scores[:, : len(scores)], valid, lengths)
            losses[LOSS_NAMES[block]] = loss
        if self.settings.sentence_box:
            losses[SENTENCE_BOX] = self._sentence_box(visual, batch)
        return losses

    def _sentence_box(self, visual: ChestTokens, batch: ChestBatch) -> Tensor:
        """Compare the sentences that name a class with the boxes of all processes."""
        sentences = naming_sentences(batch.token_ids, self.vocabulary)
        words = self.text_encoder(sentences.token_ids, by_sentence=True)
        with torch.autocast(batch.token_ids.device.type, enabled=False):
            features = self._project(self.words[self._projection_of[SENTENCE_BOX]], words.features, words.mask)
            means, there = self._mean(features, words.mask)  # (M, 1, E), (M, 1)
            boxes = self._project(self.regions[SENTENCE_BOX], visual.lesions, visual.lesion_mask)
            pairs = sentence_pairs(
                means[:, 0],
                sentences.owners,
                sentences.classes,
                boxes,
                visual.lesion_mask,
                batch.category_ids,
                temperature=self.settings.sentence_box_temperature,
            )
            if self.training:
                *retrieval, count = box_retrieval(pairs)
                lengths = (mean_length(boxes, visual.lesion_mask), mean_length(means, there))
                if count >= 2:
                    cast(Watch, self.watches[SENTENCE_BOX]).note((retrieval[0], retrieval[1]), lengths)
            return sentence_box_loss(pairs)

    @torch.no_grad()
    def _relations(self, token_ids: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the likeness of reports for soft targets, and which pairs of reports are no negatives.

        Both are (B, B + Q), None where they are not asked for: reports of the batch by those of batch and queue.
        """
        settings = self.settings
        soft = settings.targets == "soft"
        by_classes = settings.same_findings == "left_out" or (soft and settings.likeness != "words")
        classes = report_classes(token_ids, self.vocabulary) if by_classes else None
        by_findings = None if classes is None else self._likeness_of_classes(classes)
        left_out = None
        if by_findings is not None and settings.same_findings == "left_out":
            left_out = by_findings == 1
        if self.queue is not None and self.training:
            self.queue.note(self._bags(token_ids), token_ids, classes)
        if not soft:
            return None, left_out
        if by_findings is None or settings.likeness == "words":
            return self._likeness(token_ids), left_out
        return (by_findings if settings.likeness == "findings" else (self._likeness(token_ids) + by_findings) / 2), left_out

    def _likeness_of_classes(self, classes: Tensor) -> Tensor:
        """Compare the classes (n, C) of all processes' reports with each other and with those of the queue: (B, B + Q)."""
        of_batch = gather_rows(classes.byte()).bool()
        return jaccard(of_batch, of_batch if self.queue is None else torch.cat([of_batch, self.queue.classes]))

    @torch.no_grad()
    def _queued(self, block: str, words: Words) -> Words | None:
        """Return the words of the queue's reports as :meth:`forward` makes those of the batch, None without a queue.

        They are constants. Where vectors are centred, it is by the means of the batch.

        Args:
            block: which loss.
            words: of the batch, before projection.
        """
        if self.queue is None:
            return None
        layer = self.words[self._projection_of[block]]
        found = self.text_encoder(self.queue.reports(), by_sentence=block == "local")
        mask = found.mask & self.queue.valid[:, None]
        of_batch = layer(words.features.float())
        features = self._unit(layer(found.features.float()), mask, (of_batch, words.mask))
        if self._kinds[block] != "mean":
            return Words(features, mask)
        means = mean_of_each(self._unit(of_batch, words.mask), words.mask)
        there = mask.any(dim=1, keepdim=True)
        return Words(self._unit(mean_of_each(features, mask), there, (means, words.mask.any(dim=1, keepdim=True))), there)

    def weigh(self, losses: dict[str, Tensor], main: Tensor, shared: Sequence[nn.Parameter]) -> dict[str, Tensor]:
        """Return each loss times its weight, and measure gradients where it is time to."""
        return self.weights(losses, main, shared)

    def after_step(self) -> None:
        """Count a step, for weights, boundaries, what is watched and the queue: micro-batches are none of their own."""
        self.weights.after_step()
        for boundary in self.boundaries.values():
            cast(Boundary, boundary).after_step()
        for watch in self.watches.values():
            cast(Watch, watch).after_step()
        if self.queue is not None:
            self.queue.after_step()

    def values(self) -> dict[str, float]:
        """Return boundaries (``local_boundary``), weights and gradient ratios, retrieval and lengths of mean vectors."""
        found = {f"{block}_boundary": float(cast(Boundary, kept).value) for block, kept in self.boundaries.items()}
        for watch in self.watches.values():
            found |= cast(Watch, watch).values()
        if self.queue is not None:
            found |= self.queue.values()
        return found | self.weights.values()

    def _project(self, layer: nn.Module, features: Tensor, mask: Tensor) -> Tensor:
        """Project (n, R, C) to (n, R, E) of length 1."""
        return self._unit(layer(features.float()), mask)

    def _mean(self, vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the direction of each entry's mean vector, (n, 1, E), and whether it has any vector, (n, 1)."""
        any_there = mask.any(dim=1, keepdim=True)
        return self._unit(mean_of_each(vectors, mask), any_there), any_there

    def _unit(self, vectors: Tensor, mask: Tensor, centre_of: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Give vectors (n, ..., E) length 1, where they are to be centred by their mean over all processes.

        Args:
            vectors: any.
            mask: (n, ...) bool, True where there is one.
            centre_of: vectors and their mask whose mean it is instead.
        """
        if not self.settings.centring:
            return F.normalize(vectors, dim=-1)
        return F.normalize(vectors - mean_vector(*(centre_of or (vectors, mask))), dim=-1, eps=LEAST_LENGTH)

    def _regions_of(self, block: str, visual: ChestTokens) -> tuple[Tensor, Tensor]:
        """Return regions before projection (n, R, C) and their mask; R is at least 1."""
        if block == "global":
            return visual.patches, visual.patch_mask
        num_patches = visual.patch_mask.shape[1]
        share = visual.patch_mask / visual.patch_mask.sum(dim=1, keepdim=True).clamp(min=1)
        whole = torch.einsum("bp,bpd->bd", share.to(visual.tokens.dtype), visual.tokens[:, :num_patches]).unsqueeze(1)
        boxless = ~visual.lesion_mask.any(dim=1, keepdim=True)
        whole_mask = boxless if self.settings.lab == "lesions_or_image" else torch.zeros_like(boxless)
        return torch.cat([whole.to(visual.lesions.dtype), visual.lesions], 1), torch.cat([whole_mask, visual.lesion_mask], 1)

    def _grid(
        self, block: str, regions: Tensor, region_mask: Tensor, words: Words, queued: Words | None
    ) -> tuple[Tensor, Tensor]:
        """Score all images with all reports of all processes and of the queue: (B, B + Q), and tell who takes part: (B,)."""
        valid = gather_rows((region_mask.any(dim=1) & words.mask.any(dim=1)).byte()).bool()
        if self._kinds[block] == "mean":
            means = gather_rows(words.features[:, 0])
            return gather_rows(
                regions[:, 0] @ (means if queued is None else torch.cat([means, queued.features[:, 0]])).T
            ), valid
        word_mask = gather_rows(pad_over_processes(words.mask.byte(), 1)).bool()
        features = gather_rows(pad_over_processes(words.features, 1))
        keys = Words(features, word_mask) if queued is None else joined(Words(features, word_mask), queued)
        boundary = cast(Boundary, self.boundaries[block])
        parts = max(1, math.ceil(regions.shape[0] * regions.shape[1] * keys.mask.numel() / GRID_ELEMENTS))
        cut = max(1, math.ceil(len(regions) / parts))
        if self.training:
            with torch.no_grad():
                best = [
                    best_similarities(*part, features) for part in zip(regions.split(cut), region_mask.split(cut), strict=True)
                ]
            rows = torch.arange(len(regions), device=regions.device) + first_row(len(regions), regions.device)
            own = rows[:, None] == torch.arange(len(valid), device=regions.device)  # (n, B)
            in_words = (valid[rows][:, None] & valid)[:, :, None] & word_mask  # (n, B, U)
            boundary.update(torch.cat(best), in_words & own[:, :, None], in_words & ~own[:, :, None])
        t = boundary.value.clone()
        sharpness = self.settings.lambda_softmax

        def score(some: Tensor, some_mask: Tensor) -> Tensor:
            return word_scores(some, some_mask, keys.features, keys.mask, boundary=t, sharpness=sharpness)

        scores = [
            checkpoint(score, *part, use_reentrant=False) if parts > 1 else score(*part)
            for part in zip(regions.split(cut), region_mask.split(cut), strict=True)
        ]
        return gather_rows(torch.cat(scores)), valid

    @torch.no_grad()
    def _likeness(self, token_ids: Tensor) -> Tensor:
        """Cosine of the reports' word counts, rare words counting more, in float32 whatever autocast is on: (B, B + Q)."""
        bags = gather_rows(self._bags(token_ids))
        keys = bags if self.queue is None else torch.cat([bags, self.queue.bags])
        with torch.autocast(token_ids.device.type, enabled=False):
            return bags @ keys.T

    def _bags(self, token_ids: Tensor) -> Tensor:
        """Return the word counts of reports, rare words counting more, of length 1: (n, W)."""
        bags = self.rarity.new_zeros(len(token_ids), len(self.rarity))
        bags.scatter_add_(1, token_ids, torch.ones_like(token_ids, dtype=bags.dtype))
        return F.normalize(bags * self.rarity, dim=1)


def _check_branch(settings: AlignmentSettings, model: D2RNetModelSettings) -> None:
    """Refuse losses on lesion tokens where there are none."""
    if settings.sentence_box and model.lesion_branch == "none":
        raise ConfigError(
            "cxr.report.training.alignment.sentence_box: true, but cxr.report.model.lesion_branch is 'none' and leaves no "
            "lesion token for a box. Set it to false, or the branch to roi_align or crop."
        )
    if settings.lab != "none" and model.lesion_branch == "none":
        raise ConfigError(
            f"cxr.report.training.alignment.lab: got '{settings.lab}', but cxr.report.model.lesion_branch is 'none' and "
            "leaves no lesion token to align. Set it to none, or the branch to roi_align or crop."
        )


def mean_of_each(vectors: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of each entry's vectors (n, R, E) where ``mask`` (n, R) is True: (n, 1, E)."""
    mean = (vectors * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return mean.unsqueeze(1)


def joined(some: Words, others: Words) -> Words:
    """Put the reports of two sets of words one behind the other, padded to the longer ones."""
    longest = max(some.mask.shape[1], others.mask.shape[1])
    padded = [
        Words(
            F.pad(words.features, (0, 0, 0, longest - words.mask.shape[1])),
            F.pad(words.mask, (0, longest - words.mask.shape[1])),
        )
        for words in (some, others)
    ]
    return Words(torch.cat([words.features for words in padded]), torch.cat([words.mask for words in padded]))


def make_text_encoder(
    settings: AlignmentSettings, vocabulary: Vocabulary, *, dropout: float
) -> SmallTextEncoder | PretrainedTextEncoder:
    """Make the encoder that the settings ask for; ``dropout`` is the small one's."""
    if settings.text_encoder_weights is not None:
        return PretrainedTextEncoder(settings.text_encoder_weights, vocabulary, place=_text_weights(settings))
    encoder = SmallTextEncoder(
        vocabulary,
        width=settings.embed_dim,
        num_layers=settings.text_layers,
        num_heads=settings.text_heads,
        dropout=dropout,
        place=f"{settings.place}.embed_dim",
    )
    return encoder.let_context_count()


def _text_weights(settings: AlignmentSettings) -> str:
    return f"{settings.place}.text_encoder_weights"


def pretrained_files(settings: AlignmentSettings) -> dict[str, Path]:
    """Return the files of the pretrained text encoder, name -> path; none where none is used.

    Raises:
        FileNotFoundError: its folder is missing.
    """
    if settings.text_encoder_weights is None or not settings.is_on:
        return {}
    return encoder_files(Path(settings.text_encoder_weights), place=_text_weights(settings))
