"""A front end of a few lines for tests: vectors in, no radiograph, no box."""

import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from d2rnet.errors import CheckpointError
from d2rnet.files.torch_files import load_torch
from d2rnet.report.fit import fit_reports
from d2rnet.report.interface import FrontEnd, ReportModel, VisualTokens, make_transformer
from d2rnet.report.model_files import save_model
from d2rnet.report.rewards import make_reward
from d2rnet.report.settings import DecoderSettings, ReportRuntime, ReportTrainingSettings, TextSettings
from d2rnet.report.text.vocabulary import Vocabulary, count_vocabulary
from d2rnet.report.training_task import report_task
from d2rnet.settings import Section
from d2rnet.training.batches import stack_padded
from d2rnet.training.record import BEST
from d2rnet.training.task import TrainingTask

WIDTH = 4


@dataclass
class ToyBatch:
    """Vectors (B, L, WIDTH) with a mask, the tokens of their reports, and the places of their entries."""

    vectors: Tensor
    mask: Tensor
    token_ids: Tensor
    entry_numbers: Tensor

    def to(self, device: torch.device | str) -> "ToyBatch":
        return ToyBatch(*(getattr(self, field.name).to(device) for field in fields(self)))

    def __len__(self) -> int:
        return len(self.token_ids)


class ToyModel(ReportModel):
    """A visual token per vector."""

    def __init__(self, settings: DecoderSettings, num_tokens: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(WIDTH, settings.d_model)
        self.transformer = make_transformer(settings, num_tokens)

    def look(self, batch: ToyBatch) -> VisualTokens:
        return VisualTokens(self.embedding(batch.vectors), batch.mask)


class ToySettings(Section):
    """What a training of it reads."""

    text: TextSettings = TextSettings(min_token_count=1)
    model: DecoderSettings = DecoderSettings(d_model=16, d_ff=16, num_heads=2, num_layers=1, dropout=0.05, memory_heads=2)
    training: ReportTrainingSettings = ReportTrainingSettings(
        epochs=60, batch_size=2, learning_rate=0.01, validate_every_epochs=20, selection="bleu_4", max_report_tokens=12
    )


class ToyFrontEnd(FrontEnd):
    """How a model folder becomes the model again."""

    def make_model(self, settings: ToySettings, *, num_tokens: int, facts: Any) -> ToyModel:
        if facts["width"] != WIDTH:
            raise CheckpointError(f"vectors of {facts['width']} numbers")
        return ToyModel(settings.model, num_tokens)


TOY = ToyFrontEnd(settings=ToySettings, facts=("width",))


class ToyEntries:
    """Entries of a split; a data set, too: no epoch changes them."""

    def __init__(self, entries: list[dict[str, Any]], vocabulary: Vocabulary) -> None:
        self.entries = entries
        self.vocabulary = vocabulary

    def of_epoch(self, epoch: int) -> "ToyEntries":
        return self

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        entry = self.entries[index]
        token_ids = torch.tensor(self.vocabulary.encode(entry["report"], max_tokens=12))
        return torch.tensor(entry["vectors"]), token_ids, index

    def collate(self, samples: Sequence[tuple[Tensor, Tensor, int]]) -> ToyBatch:
        if not samples:  # other processes have the few entries of an epoch's last batch
            none = torch.zeros(0, 2, dtype=torch.int64)
            return ToyBatch(torch.zeros(0, 1, WIDTH), torch.zeros(0, 1, dtype=torch.bool), none, none[:, 0])
        vectors, mask = stack_padded([sample[0] for sample in samples])
        token_ids, _ = stack_padded([sample[1] for sample in samples])
        return ToyBatch(vectors, mask, token_ids, torch.tensor([sample[2] for sample in samples]))


REPORTS = ("The heart is large.", "Lungs are clear.", "There is a nodule.", "The heart is small. Lungs are clear.")
ENTRIES = [
    {"id": f"e{number}", "report": report, "vectors": torch.eye(WIDTH)[[number] * (1 + number % 3)].tolist()}
    for number, report in enumerate(REPORTS)
]
VOCABULARY = count_vocabulary(REPORTS, protocol="r2gen", section="findings", min_token_count=1)
SETTINGS = ToySettings()
# Four entries in batches of three: the last batch of an epoch has one, so that two of its three micro-batches are empty.
# Steps so small that Adam does not blow rounding up.
WHOLE = SETTINGS.replaced(
    model={"dropout": 0.0}, training={"epochs": 2, "batch_size": 3, "validate_every_epochs": 1, "learning_rate": 1e-8}
)


def fit(work: Path, settings: ToySettings) -> None:
    """Train in this process, which may be one of several."""
    torch.set_num_threads(1)
    entries = ToyEntries(ENTRIES, VOCABULARY)
    torch.manual_seed(settings.training.seed)
    model = ToyModel(settings.model, len(VOCABULARY))
    reward = make_reward(settings.training, VOCABULARY, read=named, entries=ENTRIES)
    task = report_task(model, entries, settings.training, device=torch.device("cpu"), reward=reward)
    fit_reports(work, task, entries, VOCABULARY, ReportRuntime(), reward)


def named(text: str) -> set[str]:
    """Findings that a report names."""
    return set(text.split()) & {"large", "nodule", "small"}


def train(work: Path, output: Path, settings: ToySettings = SETTINGS) -> Path:
    """What a trainer of this front end is; returns the model folder."""
    work.mkdir(exist_ok=True)
    fit(work, settings)
    best = load_torch(work / BEST)
    save_model(
        output, best["model"], settings=settings, vocabulary=VOCABULARY, facts={"width": WIDTH}, selected=best["selected"]
    )
    return output


def history(work: Path) -> list[dict[str, Any]]:
    """Metrics of a run without its times."""
    rows = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "train_seconds"} for row in rows]


def stopping_after(steps: int) -> Callable[[TrainingTask, ToyBatch], None]:
    """A step of a training that is told to stop after some of them."""
    original = TrainingTask.train_step

    def step(task: TrainingTask, batch: ToyBatch) -> None:
        original(task, batch)
        if task.finished_steps == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    return step
