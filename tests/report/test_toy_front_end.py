"""The report stage with a front end of a few lines: vectors in, no radiograph, no box. Train, resume, save, load, generate."""

import json
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from d2rnet.errors import CheckpointError, ConfigError
from d2rnet.files.torch_files import load_torch
from d2rnet.report.fit import fit_reports
from d2rnet.report.generation import load_for_generation, write_reports
from d2rnet.report.interface import FrontEnd, ReportModel, VisualTokens, make_transformer
from d2rnet.report.model_files import LoadedModel, load_model, save_model
from d2rnet.report.region_grounding import RegionGrounding
from d2rnet.report.settings import DecoderSettings, GenerationSettings, ReportRuntime, ReportTrainingSettings, TextSettings
from d2rnet.report.text.vocabulary import Vocabulary, count_vocabulary
from d2rnet.report.training_files import check_report_batch
from d2rnet.report.training_task import report_task
from d2rnet.settings import Section
from d2rnet.training.batches import stack_padded
from d2rnet.training.processes import run_processes
from d2rnet.training.record import BEST, LAST
from d2rnet.training.task import TrainingTask, make_loader

WIDTH = 4


@dataclass
class ToyBatch:
    """Vectors (B, L, WIDTH) with a mask, and the tokens of their reports."""

    vectors: Tensor
    mask: Tensor
    token_ids: Tensor

    def to(self, device: torch.device | str) -> "ToyBatch":
        return ToyBatch(self.vectors.to(device), self.mask.to(device), self.token_ids.to(device))

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

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        entry = self.entries[index]
        return torch.tensor(entry["vectors"]), torch.tensor(self.vocabulary.encode(entry["report"], max_tokens=12))

    def collate(self, samples: Sequence[tuple[Tensor, Tensor]]) -> ToyBatch:
        if not samples:  # other processes have the few entries of an epoch's last batch
            vectors = torch.zeros(0, 1, WIDTH)
            return ToyBatch(vectors, torch.zeros(0, 1, dtype=torch.bool), torch.zeros(0, 2, dtype=torch.int64))
        vectors, mask = stack_padded([sample[0] for sample in samples])
        token_ids, _ = stack_padded([sample[1] for sample in samples])
        return ToyBatch(vectors, mask, token_ids)


REPORTS = ("The heart is large.", "Lungs are clear.", "There is a nodule.", "The heart is small. Lungs are clear.")
ENTRIES = [
    {"id": f"e{number}", "report": report, "vectors": torch.eye(WIDTH)[[number] * (1 + number % 3)].tolist()}
    for number, report in enumerate(REPORTS)
]
VOCABULARY = count_vocabulary(REPORTS, protocol="r2gen", section="findings", min_token_count=1)
SETTINGS = ToySettings()


def train(work: Path, output: Path, settings: ToySettings = SETTINGS) -> Path:
    """What a trainer of this front end is; returns the model folder."""
    work.mkdir(exist_ok=True)
    entries = ToyEntries(ENTRIES, VOCABULARY)
    torch.manual_seed(settings.training.seed)
    model = ToyModel(settings.model, len(VOCABULARY))
    task = report_task(model, entries, settings.training, device=torch.device("cpu"))
    fit_reports(work, task, entries, VOCABULARY, ReportRuntime())
    best = load_torch(work / BEST)
    save_model(
        output, best["model"], settings=settings, vocabulary=VOCABULARY, facts={"width": WIDTH}, selected=best["selected"]
    )
    return output


def history(work: Path) -> list[dict[str, Any]]:
    """Metrics of a run without its times."""
    rows = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "train_seconds"} for row in rows]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with work folder and model folder of an uninterrupted run."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("toy")
    train(folder / "work", folder / "model")
    return folder


def write(loaded: LoadedModel, settings: GenerationSettings, entries: list[dict[str, Any]] = ENTRIES) -> list[dict[str, Any]]:
    """Reports of entries."""
    dataset = ToyEntries(entries, VOCABULARY)
    return list(
        write_reports(loaded, entries, dataset, settings, torch.device("cpu"), Counter(), ground=RegionGrounding(0.05, 1.2))
    )


def test_it_learns_to_write_what_the_vectors_say(trained: Path) -> None:
    settings = GenerationSettings(batch_size=2, beam_size=2, max_tokens=12)
    rows = write(load_for_generation(trained / "model", torch.device("cpu"), settings, TOY), settings)
    assert [row["id"] for row in rows] == ["e0", "e1", "e2", "e3"]
    assert [row["hypothesis"] for row in rows] == [row["reference"] for row in rows]
    assert rows[3]["sentences"] == [
        {"text": "the heart is small .", "boxes": [], "attended": None},
        {"text": "lungs are clear .", "boxes": [], "attended": None},
    ]
    assert history(trained / "work")[-1]["val_bleu_4"] == pytest.approx(1.0)


def test_parts_of_a_split_are_written_as_the_whole_is(trained: Path) -> None:
    loaded = load_model(trained / "model", torch.device("cpu"), TOY)
    for settings in (
        GenerationSettings(batch_size=2, max_tokens=12),
        GenerationSettings(batch_size=2, method="sample", seed=5),
    ):
        assert write(loaded, settings, ENTRIES[:2]) + write(loaded, settings, ENTRIES[2:]) == write(loaded, settings)


def stopping_after(steps: int) -> Callable[[TrainingTask, ToyBatch], None]:
    """A step of a training that is told to stop after some of them."""
    original = TrainingTask.train_step

    def step(task: TrainingTask, batch: ToyBatch) -> None:
        original(task, batch)
        if task.finished_steps == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    return step


@pytest.mark.parametrize("steps", [3, 4])
def test_a_stopped_training_goes_on_as_if_it_had_not(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Inside an epoch of two steps, and at its end."""
    with monkeypatch.context() as patch:
        patch.setattr(TrainingTask, "train_step", stopping_after(steps))
        with pytest.raises(SystemExit) as stopped:
            train(tmp_path / "work", tmp_path / "model")
    assert stopped.value.code == 143
    assert not (tmp_path / "model").exists()
    train(tmp_path / "work", tmp_path / "model")
    assert history(tmp_path / "work") == history(trained / "work")
    one, other = (load_model(folder / "model", torch.device("cpu"), TOY).model.state_dict() for folder in (tmp_path, trained))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_loader_processes_outlive_a_stop_signal_to_the_whole_job() -> None:
    loader = iter(make_loader(range(40), [[number] for number in range(40)], list, workers=1))
    first = next(loader)
    (worker,) = multiprocessing.active_children()
    for number in (signal.SIGTERM, signal.SIGUSR1):
        os.kill(worker.pid or 0, number)
    assert [*first, *(entry for batch in loader for entry in batch)] == list(range(40))


@pytest.mark.parametrize("kind", ["norm", "value"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_a_mixed_training_goes_on_with_its_loss_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, kind: str
) -> None:
    changes = {"epochs": 3, "validate_every_epochs": 1, "precision": precision, "gradient_clip_kind": kind}
    settings = SETTINGS.replaced(training=changes | {"gradient_clip": 0.1})
    # The scale grows at every third step, so that a resumed run without its count would have another one.
    monkeypatch.setattr(torch.amp.GradScaler, "__init__", partialmethod(torch.amp.GradScaler.__init__, growth_interval=3))
    train(tmp_path / "whole", tmp_path / "model", settings)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(TrainingTask, "train_step", stopping_after(4))
        train(tmp_path / "stopped", tmp_path / "model", settings)
    train(tmp_path / "stopped", tmp_path / "model", settings)
    assert history(tmp_path / "stopped") == history(tmp_path / "whole")
    scales = [load_torch(tmp_path / run / LAST)["scaler"] for run in ("stopped", "whole")]
    assert scales[0] == scales[1]
    assert bool(scales[0]) is (precision == "16-mixed")


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
    task = report_task(ToyModel(settings.model, len(VOCABULARY)), entries, settings.training, device=torch.device("cpu"))
    fit_reports(work, task, entries, VOCABULARY, ReportRuntime())


@pytest.mark.parametrize(("micro_batches", "processes"), [(2, 1), (3, 1), (1, 2), (2, 2)])
def test_micro_batches_of_any_number_of_processes_make_the_step_of_one(
    tmp_path: Path, micro_batches: int, processes: int
) -> None:
    """Reports differ in length: a mean of means would not do."""
    folders = [tmp_path / "whole", tmp_path / "parts"]
    settings = [WHOLE, WHOLE.replaced(training={"accumulation_steps": micro_batches})]
    for folder, own, number in zip(folders, settings, (1, processes), strict=True):
        folder.mkdir()
        run_processes(fit, folder, own, processes=number, device=torch.device("cpu"))
    for one, other in zip(*map(history, folders), strict=True):
        assert other == pytest.approx(one, rel=1e-4)
    whole, parts = (load_torch(folder / LAST)["optimizer"]["state"] for folder in folders)
    assert any(float(state["exp_avg"].abs().max()) > 1e-3 for state in whole.values())
    for place, state in whole.items():  # its running mean of the gradients
        torch.testing.assert_close(parts[place]["exp_avg"], state["exp_avg"], rtol=1e-4, atol=1e-7)


def test_a_training_in_micro_batches_goes_on_as_if_it_had_not_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SETTINGS.replaced(training={"epochs": 3, "validate_every_epochs": 1, "accumulation_steps": 2})
    train(tmp_path / "whole", tmp_path / "model", settings)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(TrainingTask, "train_step", stopping_after(3))
        train(tmp_path / "stopped", tmp_path / "model", settings)
    train(tmp_path / "stopped", tmp_path / "model", settings)
    assert history(tmp_path / "stopped") == history(tmp_path / "whole")


def test_more_micro_batches_than_entries_are_refused() -> None:
    check_report_batch(2, ReportTrainingSettings(batch_size=4, accumulation_steps=2))
    with pytest.raises(ConfigError, match=r"accumulation_steps 3 in 2 process\(es\): .*batch_size \(4\)"):
        check_report_batch(2, ReportTrainingSettings(batch_size=4, accumulation_steps=3))


def test_the_model_folder_gives_settings_and_facts_back(trained: Path, tmp_path: Path) -> None:
    loaded = load_model(trained / "model", torch.device("cpu"), TOY)
    assert loaded.settings == SETTINGS and loaded.facts == {"width": WIDTH}
    assert not loaded.model.training
    config = yaml.safe_load((trained / "model" / "config.yaml").read_text())
    training = {"training": {"epochs": 3, "workers": 2}}
    other = r"lacks training.seed, .* and has unknown training.workers; the model was trained by another version"
    for number, (change, message) in enumerate(
        (({"width": 5}, "vectors of 5 numbers"), ({"model": {}}, "lacks model.d_model"), (training, other))
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("model.safetensors", "vocabulary.json"):
            (folder / name).write_bytes((trained / "model" / name).read_bytes())
        (folder / "config.yaml").write_text(yaml.safe_dump(config | change))
        with pytest.raises(CheckpointError, match=message):
            load_model(folder, torch.device("cpu"), TOY)


def test_a_model_of_an_earlier_version_is_read_as_it_was(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It lacks what came later: a setting of the model is named with its default, one of the training says nothing."""
    for name in ("model.safetensors", "vocabulary.json"):
        (tmp_path / name).write_bytes((trained / "model" / name).read_bytes())
    config = yaml.safe_load((trained / "model" / "config.yaml").read_text())
    del config["model"]["memory_slots"], config["training"]["accumulation_steps"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    loaded = load_model(tmp_path, torch.device("cpu"), TOY)
    assert loaded.settings == SETTINGS
    (warning,) = (record.getMessage() for record in caplog.records if record.name.endswith("model_files"))
    assert "without model.memory_slots (3); taken as" in warning
