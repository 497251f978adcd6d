"""The report stage with a front end of a few lines: vectors in, no radiograph, no box. Train, resume, save, load, generate."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections import Counter
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from toy_samples import ENTRIES, SETTINGS, TOY, VOCABULARY, WHOLE, WIDTH, ToyEntries, fit, history, stopping_after, train

from d2rnet.errors import CheckpointError, ConfigError
from d2rnet.files.torch_files import load_torch
from d2rnet.report.generation import load_for_generation, write_reports
from d2rnet.report.model_files import LoadedModel, load_model
from d2rnet.report.region_grounding import RegionGrounding
from d2rnet.report.settings import GenerationSettings, ReportTrainingSettings
from d2rnet.report.training_files import check_report_batch
from d2rnet.training.processes import run_processes
from d2rnet.training.record import LAST
from d2rnet.training.task import TrainingTask, make_loader


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


def test_loading_draws_no_weights_for_shapes(trained: Path) -> None:
    """Torch imports its compiler to draw on the device meta, which takes longer than to load a small model."""
    code = (
        "import sys; from pathlib import Path; import torch; from toy_samples import TOY;"
        "from d2rnet.report.model_files import load_model;"
        "load_model(Path(sys.argv[1]), torch.device('cpu'), TOY); sys.exit('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, trained / "model"], cwd=Path(__file__).parent)
    assert done.returncode == 0


def test_parts_of_a_split_are_written_as_the_whole_is(trained: Path) -> None:
    loaded = load_model(trained / "model", torch.device("cpu"), TOY)
    for settings in (
        GenerationSettings(batch_size=2, max_tokens=12),
        GenerationSettings(batch_size=2, method="sample", seed=5),
    ):
        assert write(loaded, settings, ENTRIES[:2]) + write(loaded, settings, ENTRIES[2:]) == write(loaded, settings)


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
