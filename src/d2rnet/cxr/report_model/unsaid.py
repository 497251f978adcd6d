"""The search is told what a report leaves out: classes that the encoder found, said to the decoder, and that it does not name.

A report is searched for by its log-probability, which prefers to say less: of reports of the demo that are told four findings
or more, each third told one is left out. Here a finished report loses some nats for each class told and not named, so that one
a little less probable, which names it, wins. Ours.

Shapes: B sources, G beams, t tokens, C lesion classes.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from d2rnet.cxr.report_model.front_end import categories_of
from d2rnet.cxr.report_model.model import D2RNet
from d2rnet.findings.mentions import named_classes
from d2rnet.report.decoder.beam_search import Loss
from d2rnet.report.interface import Encoded
from d2rnet.report.model_files import LoadedModel


@dataclass(frozen=True)
class UnsaidFindings:
    """Judges finished reports by the classes that they do not name.

    Attributes:
        weight: nats a class.
    """

    weight: float

    def __call__(self, loaded: LoadedModel, encoded: Encoded) -> Loss | None:
        """Return what finished reports of these entries lose; None where the decoder is told nothing, or nothing is lost.

        Args:
            loaded: a D2R-Net.
            encoded: what it sees of B entries.
        """
        found = cast(D2RNet, loaded.model).findings
        told = found.told(encoded) if found is not None and self.weight else None
        if told is None:
            return None
        names = categories_of(loaded)
        wanted = [frozenset(name for name, is_told in zip(names, row, strict=True) if is_told) for row in told.tolist()]

        def lost(sources: Tensor, token_ids: Tensor, ended: Tensor) -> Tensor:
            owners = sources.unsqueeze(1).expand_as(ended)[ended].tolist()
            texts = [" ".join(loaded.tokens.decode(ids)) for ids in token_ids[ended].tolist()]
            unsaid = [float(len(wanted[owner] - named_classes(text))) for owner, text in zip(owners, texts, strict=True)]
            found = torch.zeros(ended.shape, device=token_ids.device)
            found[ended] = self.weight * torch.tensor(unsaid, device=token_ids.device)
            return found

        return lost
