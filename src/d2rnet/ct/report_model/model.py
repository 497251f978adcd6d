"""The report model of stage 2: selected tokens in, report logits out; stage 1 has looked before and is not part of it.

Shapes: B volumes, L visual tokens (padded), D width of stage 1, d width of the decoder, S structures, P patches.
"""

import torch
from torch import Tensor, nn

from d2rnet.ct.report_model.dataset import CtBatch
from d2rnet.ct.report_model.features import FeatureFacts
from d2rnet.ct.report_model.selection import NUM_KINDS
from d2rnet.ct.report_model.settings import CtReportModelSettings
from d2rnet.ct.structure_model.positions import patch_positions
from d2rnet.report.interface import ReportModel, VisualTokens, make_transformer
from d2rnet.report.llm.decoder import LlmDecoder


class StructureLinear(nn.Module):
    """A linear layer with weights of its own for the tokens of each structure, and for those of none. Ours.

    With one layer for all, what two structures say meets in the same directions, and attention must first learn to tell them
    apart.
    """

    def __init__(self, num_structures: int, d_in: int, d_out: int) -> None:
        """Make the layer; its weights start as those of ``torch.nn.Linear``."""
        super().__init__()
        layers = [nn.Linear(d_in, d_out) for _ in range(num_structures + 1)]
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))  # (S + 1, d_out, d_in)
        self.bias = nn.Parameter(layers[0].bias.detach())  # (d_out,)

    def forward(self, tokens: Tensor, structures: Tensor) -> Tensor:
        """Return (B, L, d_out).

        Args:
            tokens: (B, L, d_in).
            structures: (B, L) int64, -1 for tokens of no structure.
        """
        owners = structures % len(self.weight)  # -1: the last
        if torch.is_autocast_enabled(tokens.device.type):  # once, not in each layer
            tokens = tokens.to(torch.get_autocast_dtype(tokens.device.type))
        projected = tokens.new_zeros(())
        for structure, weight in enumerate(self.weight):  # all tokens through each: a choice of rows would wait for the GPU
            projected = torch.where((owners == structure)[..., None], nn.functional.linear(tokens, weight), projected)
        return projected + self.bias


class CtReportModel(ReportModel):
    """A projection of the tokens with what and where they are, and the decoder.

    Into a language model lead two linear layers, as in the release; into the memory-driven Transformer one. Differs: a norm
    before them, since vectors of observations and of patches have different lengths.
    """

    places: Tensor

    def __init__(self, settings: CtReportModelSettings, *, num_tokens: int, facts: FeatureFacts) -> None:
        """Make the model with random weights.

        Args:
            settings: section ``ct.report.model``.
            num_tokens: size of the vocabulary; a language model brings its own.
            facts: of the features that it sees.

        Raises:
            ConfigError: d_model is odd or not a multiple of the numbers of heads; or a package of the language model is
                missing, or it has no such layers.
            CheckpointError: the folder of the language model holds none.
        """
        super().__init__()
        is_llm = settings.llm.weights is not None
        self.transformer = LlmDecoder(settings.llm) if is_llm else make_transformer(settings, num_tokens)
        d_model = self.transformer.d_model
        self.norm = nn.LayerNorm(facts.width)
        hidden = [nn.Linear(facts.width, facts.width), nn.ReLU()] if is_llm else []
        by_structure = settings.structure_projections
        self.project = nn.Sequential(*hidden, *([] if by_structure else [nn.Linear(facts.width, d_model)]))
        self.project_structures = StructureLinear(len(facts.structures), facts.width, d_model) if by_structure else None
        self.dropout = nn.Dropout(settings.dropout)
        self.kinds = nn.Embedding(NUM_KINDS, d_model) if settings.token_types else None
        # the last row is for tokens of no structure, likewise for places
        self.structures = nn.Embedding(len(facts.structures) + 1, d_model) if settings.token_types else None
        for table in (self.kinds, self.structures):
            if table is not None:
                nn.init.normal_(table.weight, std=d_model**-0.5)
        self.has_places = settings.positions
        places = patch_positions(facts.grid_zyx, d_model, like=self.norm.weight.detach())  # (P, d)
        self.register_buffer("places", torch.cat([places, torch.zeros_like(places[:1])]), persistent=False)

    def look(self, batch: CtBatch) -> VisualTokens:
        """Project the tokens and say what and where each is."""
        tokens = self.project(self.norm(batch.vectors))  # (B, L, d)
        if self.project_structures is not None:
            tokens = self.project_structures(tokens, batch.structures)
        if self.kinds is not None and self.structures is not None:
            tokens = tokens + self.kinds(batch.kinds)
            tokens = tokens + self.structures(batch.structures % self.structures.num_embeddings)  # -1: the last row
        if self.has_places:
            tokens = tokens + self.places[batch.places]  # -1: the last row
        return VisualTokens(self.dropout(tokens), batch.mask)
