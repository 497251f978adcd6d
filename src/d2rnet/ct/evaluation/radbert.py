"""The 18 labels by RadBERT's text classifier of CT-RATE, where the user has its weights; else a note says why not.

As in the text classifier of CT-CLIP (facts only): RoBERTa of RadBERT-RoBERTa-4m, a linear layer with 18 outputs on its pooled
first token, sigmoid, threshold 0.5, texts cut at 512 tokens. Weights by path; nothing is downloaded. A folder that
transformers itself has saved as a sequence classifier with 18 outputs is read, too.

Shapes: N reports, C = 18 abnormalities.
"""

import importlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from d2rnet.ct.evaluation.abnormalities import Truth
from d2rnet.ct.evaluation.metric_table import HEADLINE, RADBERT
from d2rnet.ct.evaluation.systems import Judged
from d2rnet.errors import CheckpointError
from d2rnet.evaluation.labeller import Named
from d2rnet.findings.ct_classes import CT_ABNORMALITIES

log = logging.getLogger(__name__)
PLACE = "ct.evaluation.radbert_weights"
RELEASED = "RadBertClassifier.pth"
THRESHOLD = 0.5
MAX_TOKENS = 512
BATCH_TEXTS = 32  # changes no label


@dataclass
class RadBertLabels:
    """Reads reports, or says why it does not.

    Attributes:
        notes: why it does not run; empty where it does.
        files: of the weights, for the run record.
    """

    notes: dict[str, str] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    _classify: Any = None
    _known: dict[str, Any] = field(default_factory=dict)

    def judge(self, references: Sequence[str], table: Truth | None, hypotheses: Sequence[str]) -> dict[str, Judged]:
        """Set what it reads in N generated reports beside what it reads in the references, and beside the labels of a table.

        Returns:
            Key of the protocol -> labels; empty where it does not run.
        """
        if self._classify is None:
            return {}
        claimed = self.labels(hypotheses)
        truth = self.labels(references)
        found = {f"{RADBERT}_vs_report": Judged(truth, claimed, np.ones_like(truth))}
        if table is not None:
            found[f"{RADBERT}_vs_table"] = Judged(table.labels[HEADLINE], claimed, table.known)
        return found

    def labels(self, texts: Sequence[str]) -> Named:
        """Return (N, 18) bool; a text that was read before is not read again."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for start in range(0, len(new), BATCH_TEXTS):
            part = new[start : start + BATCH_TEXTS]
            self._known.update(zip(part, self._classify(part), strict=True))
        return np.array([self._known[text] for text in texts], dtype=bool).reshape(len(texts), len(CT_ABNORMALITIES))


def radbert_labels(folder: str | None, *, device: str) -> RadBertLabels:
    """Open the classifier.

    Args:
        folder: ``ct.evaluation.radbert_weights``.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        FileNotFoundError: there is no such folder.
        CheckpointError: it holds no classifier of 18 labels that fits.
    """
    if folder is None:
        return RadBertLabels({RADBERT: f"not run: {PLACE} is null"})
    place = Path(folder)
    if not place.is_dir():
        raise FileNotFoundError(f"{PLACE}: {place}: no such folder.")
    try:
        transformers = importlib.import_module("transformers")  # an optional extra
    except ImportError as error:
        note = f"not run: the package transformers does not import ({error}). Install it: pip install 'd2rnet[text-encoder]'."
        return RadBertLabels({RADBERT: note})
    classify = _open(transformers, place, device)
    files = {f"radbert_{path.name}": path for path in sorted(place.iterdir()) if path.is_file()}
    return RadBertLabels(files=files, _classify=classify)


def _open(transformers: Any, folder: Path, device: str) -> Any:
    """Return a function: texts -> (n, 18) bool."""
    import torch

    from d2rnet.runs.device import resolve_device

    safely = {"local_files_only": True, "trust_remote_code": False}  # else a folder may bring its own code
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **safely)
        config = transformers.AutoConfig.from_pretrained(str(folder), **safely)
        if (folder / RELEASED).is_file():
            network = _released(transformers, folder, config)
        else:
            network = transformers.AutoModelForSequenceClassification.from_pretrained(str(folder), **safely)
    except (OSError, ValueError, KeyError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise CheckpointError(
            f"{PLACE}: {folder}: no text classifier ({first}). Expected config.json, the tokenizer's files and {RELEASED}, or "
            "a sequence classifier saved by transformers."
        ) from error
    at = resolve_device(device)
    network = network.to(at).eval()

    @torch.no_grad()
    def classify(texts: Sequence[str]) -> Any:
        options = {"padding": True, "truncation": True, "max_length": MAX_TOKENS, "return_tensors": "pt"}
        inputs = tokenizer(list(texts), **options).to(at)
        found = network(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        logits = found if isinstance(found, torch.Tensor) else found.logits
        if logits.shape[1] != len(CT_ABNORMALITIES):
            raise CheckpointError(f"{PLACE}: {folder}: {logits.shape[1]} outputs; expected {len(CT_ABNORMALITIES)} labels.")
        return (logits.sigmoid() > THRESHOLD).cpu().numpy()

    return classify


def _released(transformers: Any, folder: Path, config: Any) -> Any:
    """Build the classifier in the layout of the released file: ``model.*`` and ``classifier.*``; every key must fit."""
    from torch import Tensor, nn

    from d2rnet.files.torch_files import load_torch

    class PooledClassifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = transformers.AutoModel.from_config(config)
            self.classifier = nn.Linear(config.hidden_size, len(CT_ABNORMALITIES))

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            pooled = self.model(input_ids=input_ids, attention_mask=attention_mask).pooler_output
            return self.classifier(pooled)

    network = PooledClassifier()
    state: Mapping[str, Tensor] = {
        key: value for key, value in load_torch(folder / RELEASED).items() if not key.endswith("position_ids")
    }  # a buffer that older versions of transformers saved
    try:
        network.load_state_dict(state)
    except (RuntimeError, AttributeError) as error:
        first = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{PLACE}: {folder / RELEASED}: does not fit config.json and 18 labels: {first}") from error
    return network
