"""The 18 labels by RadBERT's text classifier of CT-RATE, where the user has its weights; else a note says why not.

As in the text classifier of CT-CLIP (facts only): RoBERTa of RadBERT-RoBERTa-4m, a linear layer with 18 outputs on its pooled
first token, sigmoid, threshold 0.5, texts cut at 512 tokens. Weights by path; nothing is downloaded. A folder that
transformers itself has saved as a sequence classifier with 18 outputs is read, too.

Shapes: N reports, C = 18 abnormalities.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d2rnet.ct.evaluation.abnormalities import Truth
from d2rnet.ct.evaluation.metric_table import HEADLINE, RADBERT
from d2rnet.errors import CheckpointError, ToolError
from d2rnet.evaluation.labeller import Judged
from d2rnet.evaluation.outside_labeller import Classify, OutsideLabeller, import_transformers, take_weights
from d2rnet.findings.ct_classes import CT_ABNORMALITIES

PLACE = "ct.evaluation.radbert_weights"
RELEASED = "RadBertClassifier.pth"
THRESHOLD = 0.5
MAX_TOKENS = 512


class RadBert(OutsideLabeller):
    """Reads reports by RadBERT's classifier, or says why it does not.

    Attributes:
        files: of the weights, for the run record.
    """

    def __init__(self, folder: str | None, *, device: str) -> None:
        """Open the classifier.

        Args:
            folder: ``ct.evaluation.radbert_weights``.
            device: auto, cpu, cuda or cuda:N.
        """
        super().__init__(RADBERT, lambda: _open(folder, device))
        found = sorted(Path(folder).iterdir()) if folder is not None and self.runs else []
        self.files = {f"radbert_{path.name}": path for path in found if path.is_file()}

    def judge(self, references: Sequence[str], table: Truth | None, hypotheses: Sequence[str]) -> dict[str, Judged]:
        """Set what it reads in N generated reports beside what it reads in the references, and beside the labels of a table.

        Returns:
            Key of the protocol -> labels; empty where it does not run.
        """
        claimed = self.read(hypotheses)
        truth = self.read(references)
        if claimed is None or truth is None:
            return {}
        found = {f"{RADBERT}_vs_report": Judged(truth, claimed, np.ones_like(truth))}
        if table is not None:
            found[f"{RADBERT}_vs_table"] = Judged(table.labels[HEADLINE], claimed, table.known)
        return found


def _open(folder: str | None, device: str) -> Classify:
    """Return a function: texts -> (n, 18) bool.

    Raises:
        FileNotFoundError: there is no such folder.
        ToolError: no folder is given, or transformers is not installed.
        CheckpointError: it holds no classifier of 18 labels that fits.
    """
    if folder is None:
        raise ToolError(f"{PLACE} is null")
    place = Path(folder)
    if not place.is_dir():
        raise FileNotFoundError(f"{PLACE}: {place}: no such folder.")
    return _classifier(import_transformers(), place, device)


def _classifier(transformers: Any, folder: Path, device: str) -> Classify:
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
    state: Mapping[str, Tensor] = load_torch(folder / RELEASED)
    take_weights(network, state, source=f"{PLACE}: {folder / RELEASED}", expected="config.json and 18 labels")
    return network
