"""Stage 1 from volumes and reports to a scored model: learns, resumes exactly, is the same in one process and in two."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from earlier_version import begun_with, lacking
from pretend_gpu import GPU, on_gpu, pretend_gpu
from safetensors.torch import load_file
from structure_samples import tiny_settings, write_samples

from d2rnet.ct.structure_model import evaluate as evaluation
from d2rnet.ct.structure_model import trainer
from d2rnet.ct.structure_model.dataset import StructureEntries
from d2rnet.ct.structure_model.evaluate import evaluate_structures
from d2rnet.ct.structure_model.model import load_structure_model
from d2rnet.ct.structure_model.settings import EvaluateStructuresSettings, StructureTextSettings, TrainStructuresSettings
from d2rnet.ct.structure_model.text_tower import text_tokens
from d2rnet.ct.structure_model.trainer import train_structures
from d2rnet.ct.structures.table import load_table
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import read_json, read_jsonl, write_json
from d2rnet.report.settings import ReportRuntime
from d2rnet.report.text.vocabulary import count_vocabulary
from d2rnet.training.task import TrainingTask


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples(tmp_path_factory.mktemp("samples"))


def train(
    samples: Path, folder: Path, settings: TrainStructuresSettings, processes: int = 1, checkpoint_minutes: float = 10.0
) -> Path:
    train_structures(
        annotation=samples / "ct_annotation.json",
        volumes=samples / "volumes",
        work=folder / "work",
        output=folder / "model",
        device="cpu",
        settings=settings,
        processes=processes,
        runtime=ReportRuntime(checkpoint_minutes=checkpoint_minutes),
    )
    return folder / "model"


def same_weights(first: Path, second: Path) -> None:
    for name in ("model.safetensors", "text_tower.safetensors"):
        ours, theirs = load_file(first / name), load_file(second / name)
        assert ours.keys() == theirs.keys()
        assert [key for key, value in ours.items() if not torch.equal(value, theirs[key])] == []


def same_embeddings(first: Path, second: Path) -> None:
    """Weights that no loss depends on, such as a bias before a norm, get rounding for a gradient, which Adam makes large."""
    volumes = torch.rand(3, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    cpu = torch.device("cpu")
    ours, theirs = (load_structure_model(folder, cpu).model for folder in (first, second))
    with torch.no_grad():
        torch.testing.assert_close(ours(volumes), theirs(volumes), rtol=1e-3, atol=1e-3)


def evaluate(samples: Path, model: Path, output: Path, masks: tuple[Path, ...] = ()) -> dict[str, Any]:
    evaluate_structures(
        annotation=samples / "ct_annotation.json",
        volumes=samples / "volumes",
        model=model,
        output=output,
        device="cpu",
        settings=EvaluateStructuresSettings.read({"structure_model": {"evaluation": {"bootstrap_samples": 20}}}),
        masks=masks,
    )
    metrics: dict[str, Any] = read_json(output / "metrics.json")
    return metrics


def write_masks(folder: Path, samples: Path) -> Path:
    """The corners where findings are drawn: code 1 of the lung, 2 of the pleura."""
    import nibabel
    from structure_samples import CORNERS, SHAPE

    codes = np.zeros(SHAPE, np.uint8)
    codes[CORNERS["lung"]] = 1
    codes[CORNERS["pleura"]] = 2
    folder.mkdir()
    affine = np.diag([-5.0, -5.0, 5.0, 1.0])  # (x, y, z) of LPS+
    for line in read_jsonl(samples / "volumes" / "volumes.jsonl"):
        image = nibabel.Nifti1Image(codes.transpose(2, 1, 0), affine)
        nibabel.save(image, folder / f"s{line['volume_id'][1:]}.nii.gz")
    write_json(folder / "structures.json", {"lung": [1], "pleura": [2]})
    return folder


@pytest.mark.parametrize("standardise", [False, True])
def test_it_learns_what_is_drawn(samples, tmp_path, standardise):
    """Where queries look is scored, too; of eight patches it says little (docs/explanation/ct-method.md has the demo's)."""
    settings = tiny_settings(
        training={"epochs": 60, "learning_rate": 0.005, "max_shift_voxels": 0},
        model={"observer": {"standardise": standardise}},
    )
    model = train(samples, tmp_path, settings)
    metrics = evaluate(samples, model, tmp_path / "scores", (write_masks(tmp_path / "masks", samples),))
    lung, pleura = metrics["structures"]["lung"], metrics["structures"]["pleura"]
    assert lung["distinct_texts"] == 2 and lung["image_to_text_recall_at_1"] == 1.0
    assert pleura["volumes"] < lung["volumes"] and pleura["image_to_text_recall_at_1"] == 1.0
    assert metrics["zero_shot_auroc"]["Lung nodule"]["auroc"] == 1.0
    assert metrics["zero_shot_auroc"]["Pleural effusion"]["auroc"] == 1.0
    assert metrics["structures"]["bone"]["volumes"] == 0 and metrics["structures"]["bone"]["image_to_text_recall_at_1"] is None
    assert lung["attention_expected"] == pytest.approx(0.125)
    for row in (lung, pleura):
        assert row["attention_ratio"] == pytest.approx(row["attention_inside"] / row["attention_expected"])
    assert metrics["masks"] == {"volumes": 6, "left_out": {}}
    assert "compared with true masks in 6 volumes." in (tmp_path / "scores" / "metrics.md").read_text()
    loaded = load_structure_model(model, torch.device("cpu"))
    assert loaded.structures[2] == "lung" and loaded.conversion.shape_zyx == (16, 16, 16)
    history = list(read_jsonl(model / "metrics.jsonl"))
    assert history[-1]["contrast_loss"] < history[0]["contrast_loss"] and history[-1]["queue_fill"] > 0
    lines = list(read_jsonl(tmp_path / "scores" / "per_volume.jsonl"))
    assert [line["id"] for line in lines] == [f"v{number}" for number in range(16, 22)]
    assert {line["ranks"]["lung"] for line in lines} == {1} and {line["ranks"]["bone"] for line in lines} == {None}
    assert [line["ranks"]["pleura"] for line in lines] == [1, 1, 1, None, 1, 1]  # v19 does not speak of it
    assert [line["equals"]["pleura"] for line in lines] == [1, 1, 1, None, 1, 1]
    for name in ("metrics.md", "structures.png", "structures.svg", "run.json"):
        assert (tmp_path / "scores" / name).stat().st_size > 100


NEW = ("structures", "structure_model.training.contrast", "structure_model.model.observer.attention_start")


@pytest.mark.parametrize(("step", "new"), [(2, ()), (3, ()), (2, NEW)])
def test_a_stopped_training_goes_on_as_if_it_had_not_been(samples, tmp_path, monkeypatch, step, new):
    """Inside an epoch of three steps, and at its end; queue, momentum copy and shifts included.

    The version that was stopped may have lacked the settings ``new``.
    """
    settings = tiny_settings()
    whole = train(samples, tmp_path / "whole", settings)
    original = TrainingTask.train_step

    def interrupted(task: TrainingTask, batch: Any) -> None:
        if task.finished_steps + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        original(task, batch)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingTask, "train_step", interrupted)
        with pytest.raises(SystemExit):
            train(samples, tmp_path / "parts", settings)
    if new:
        begun_with(tmp_path / "parts/work", lacking(*new))
    same_weights(whole, train(samples, tmp_path / "parts", settings))


@pytest.mark.parametrize("symmetric", [False, True])
def test_two_processes_make_the_steps_of_one(samples, tmp_path, symmetric):
    """12 entries in batches of 11: the last batch of an epoch leaves one of two processes without any."""
    changes: dict[str, Any] = {"training": {"batch_size": 11, "contrast": {"symmetric": symmetric}}}
    # Each process draws its own dropout; and standardised, observations of nearly equal volumes differ by rounding, magnified.
    changes["model"] = {"observer": {"dropout": 0.0, "standardise": False}}
    settings = tiny_settings(**changes)
    one = train(samples, tmp_path / "one", settings)
    two = train(samples, tmp_path / "two", settings, processes=2)
    same_embeddings(one, two)
    first, second = (list(read_jsonl(model / "metrics.jsonl"))[-1] for model in (one, two))
    for key in ("contrast_loss", "val_loss", "queue_distinct_texts", "queue_mean_age"):
        assert first[key] == pytest.approx(second[key], rel=1e-4)


@pytest.mark.parametrize(
    "training",
    [
        {"queue": {"length": 0}},
        {"queue": {"rule": "released", "start": "noise", "equal_texts": "always"}},
        {"contrast": {"soft_share": 0.0, "other_structures_weight": 0.0, "other_structures_as_negatives": False}},
        {"contrast": {"normalise_targets": False, "equal_texts": False, "learn_temperature": True}},
        {"precision": "bf16-mixed"},
    ],
)
def test_every_switch_trains(samples, tmp_path, training):
    model = train(samples, tmp_path, tiny_settings(training={"epochs": 1, **training}))
    assert np.isfinite(list(read_jsonl(model / "metrics.jsonl"))[-1]["val_loss"])


OTHER = {
    "text": {"missing": "normal"},
    "model": {"observer": {"standardise": False, "update_patches": True, "num_layers": 2}, "encoder": {"layers": 1}},
    "training": {
        "contrast": {"learn_temperature": True, "symmetric": True, "equal_texts": False},
        "queue": {"rule": "released", "start": "noise", "equal_texts": "always"},
    },
}
NO_QUEUE = {"training": {"queue": {"length": 0}}}


@pytest.mark.parametrize("changes", [{}, OTHER, NO_QUEUE])
def test_a_run_on_a_gpu_resumed_from_its_file_is_that_on_the_cpu(samples, tmp_path, monkeypatch, changes):
    """On the pretend GPU: model, both text towers, temperature and queue go there, to the file and back; validation, too."""
    settings = tiny_settings(**changes)
    wanted = train(samples, tmp_path / "cpu", settings)
    original = TrainingTask.train_step

    def killed(task: TrainingTask, batch: Any) -> None:
        kept = [tensor for part in task.parts.values() for tensor in part.state_dict().values()]
        assert all(map(on_gpu, [*kept, batch.values, batch.known]))
        if task.finished_steps == 4:
            raise KeyboardInterrupt
        original(task, batch)

    monkeypatch.setattr(trainer, "resolve_device", lambda name: GPU)
    with pretend_gpu():
        with monkeypatch.context() as patch:
            patch.setattr(TrainingTask, "train_step", killed)
            with pytest.raises(KeyboardInterrupt):
                train(samples, tmp_path / "gpu", settings, checkpoint_minutes=0)
        found = train(samples, tmp_path / "gpu", settings)
    same_weights(found, wanted)
    first, second = (list(read_jsonl(model / "metrics.jsonl")) for model in (found, wanted))
    assert [row | {"train_seconds": 0} for row in first] == [row | {"train_seconds": 0} for row in second]


def test_scores_on_a_gpu_are_those_on_the_cpu(samples, tmp_path, monkeypatch):
    model = train(samples, tmp_path, tiny_settings())
    masks = (write_masks(tmp_path / "masks", samples),)
    wanted = evaluate(samples, model, tmp_path / "cpu", masks)
    monkeypatch.setattr(evaluation, "resolve_device", lambda name: GPU)
    with pretend_gpu():
        assert evaluate(samples, model, tmp_path / "gpu", masks) == wanted
    per_volume = [(tmp_path / device / "per_volume.jsonl").read_text() for device in ("cpu", "gpu")]
    assert per_volume[0] == per_volume[1]


class EnoughError(Exception):
    """A training has shown what it was made for."""


@pytest.mark.parametrize(
    ("standardise", "steps", "of_loss", "of_gradient"),
    [(False, range(1), 0.01, 0.1), (False, range(20, 30), 0.01, 0.25), (True, range(20, 30), 0.01, 0.3)],
)
def test_bfloat16_makes_nearly_the_same_steps(samples, tmp_path, monkeypatch, standardise, steps, of_loss, of_gradient):
    """Steps of a training in float32, made in both: the loss of each, how far its gradient is off as a share of its length.

    bfloat16 is off by up to 0.4 % in each number, which standardising magnifies where volumes look nearly alike. Single steps
    spread widely, 14 to 39 % with standardising on one processor, so the mean of ten counts; at first that gradient may be off
    by its own length (docs/explanation/ct-method.md).
    """
    off: list[float] = []

    def in_both(task: TrainingTask, batch: Any) -> None:
        if task.finished_steps not in steps:
            return original(task, batch)
        found = []
        for precision in ("bf16-mixed", "32-true"):
            task.settings = task.settings.replaced(precision=precision)
            task.optimizer.zero_grad()
            loss = task.loss(batch)
            loss.backward()
            gradients = [one.grad.float().flatten() for one in task.objective.parameters() if one.grad is not None]
            found.append((loss.item(), torch.cat(gradients)))
        (rough, other), (exact, gradient) = found
        assert rough != exact and rough == pytest.approx(exact, rel=of_loss)
        off.append(float((gradient - other).norm() / gradient.norm()))
        if task.finished_steps == steps[-1]:
            raise EnoughError
        return original(task, batch)

    original = TrainingTask.train_step
    monkeypatch.setattr(TrainingTask, "train_step", in_both)
    training = {"epochs": 40, "batch_size": 12, "learning_rate": 0.01, "validate_every_epochs": 40}
    with pytest.raises(EnoughError):
        train(samples, tmp_path, tiny_settings(training=training, model={"observer": {"standardise": standardise}}))
    assert len(off) == len(steps) and 0 < sum(off) / len(off) < of_gradient


def test_structures_that_are_not_mentioned_can_be_called_normal(samples, tmp_path):
    """In training, and in what its batches push away; every model is asked for the same texts, those that reports have."""
    metrics = {}
    for missing in ("normal", "mask"):
        model = train(samples, tmp_path / missing, tiny_settings(text={"missing": missing}, training={"epochs": 1}))
        # only the table's sentence has the word
        assert ("thyroid" in read_json(model / "vocabulary.json")["tokens"]) == (missing == "normal")
        metrics[missing] = evaluate(samples, model, tmp_path / missing / "scores")
    for name, row in metrics["normal"]["structures"].items():
        other = metrics["mask"]["structures"][name]
        alike = [key for key in row if key in ("volumes", "distinct_texts") or "chance" in key or "commonest" in key]
        assert len(alike) == 11 and [key for key in alike if row[key] != other[key]] == [], name
    unsaid = {missing: of["structures"]["bone"] for missing, of in metrics.items()}
    assert (unsaid["normal"]["volumes"], unsaid["normal"]["texts_effective_rank"]) == (0, None)
    assert unsaid["normal"]["batch_negatives"] == 0 and unsaid["mask"]["batch_negatives"] is None
    names = list(metrics["normal"]["structures"])
    bone, lung, pleura = (names.index(name) for name in ("bone", "lung", "pleura"))
    assert metrics["normal"]["similarity_image_to_text"][0][bone] is None
    of_images, of_texts = (metrics["normal"][f"similarity_{kind}_to_{kind}"] for kind in ("image", "text"))
    assert of_images[lung][lung] == of_images[bone][bone] == of_texts[lung][lung] == of_texts[pleura][pleura] == 1.0
    assert of_images[lung][pleura] == of_images[pleura][lung] != 1.0
    assert of_texts[lung][pleura] == of_texts[pleura][lung] != 1.0 and of_texts[bone][lung] is of_texts[bone][bone] is None
    (line,) = [one for one in read_jsonl(tmp_path / "normal/scores/per_volume.jsonl") if one["id"] == "v19"]
    assert line["ranks"]["pleura"] is None and line["equals"]["pleura"] is None


def test_only_what_a_report_calls_normal_counts_as_normal():
    """Not judged is not normal; the table's sentence for what is not mentioned is."""
    table = load_table("ten")
    said = {"lung": ("Old scars.", None), "pleura": ("No effusion.", False), "bone": ("A fracture.", True)}
    cut = {name: dict(zip(("text", "abnormal"), said.get(name, ("", None)), strict=True)) for name in table.structures}
    entry = {"id": "x", "volume_path": "x.npy", "shape_zyx": [1, 1, 1], "structures": cut}
    vocabulary = count_vocabulary(["x"], protocol="r2gen", section="findings", min_token_count=1)
    normal = {}
    for missing in ("mask", "normal"):
        text = StructureTextSettings.read({"missing": missing})
        tokens = text_tokens(text, vocabulary)
        entries = StructureEntries([entry], Path(), tokens=tokens, table=table, text=text)
        normal[missing] = {name for name, flag in zip(table.structures, entries.normal[0], strict=True) if flag}
    assert normal["mask"] == {"pleura"} and normal["normal"] == {*table.structures} - {"lung", "bone"}


def test_volumes_of_another_grid_are_refused(samples, tmp_path):
    other = tiny_settings().replaced(data={"conversion": {"shape_zyx": [16, 16, 32]}})
    with pytest.raises(DatasetError, match=r"volume v0 has \[16, 16, 16\] voxels .* expected \[16, 16, 32\]"):
        train(samples, tmp_path, other)


def test_more_processes_than_volumes_in_a_batch(samples, tmp_path):
    with pytest.raises(ConfigError, match=r"--processes 5: expected 1 to ct\.structure_model\.training\.batch_size \(4\)"):
        train(samples, tmp_path, tiny_settings(), processes=5)


def test_an_entry_cut_by_another_table(samples, tmp_path):
    content = read_json(samples / "ct_annotation.json")
    content["val"][0]["structures"] = {"lung": content["val"][0]["structures"]["lung"]}
    write_json(tmp_path / "ct_annotation.json", content)
    with pytest.raises(
        DatasetError, match=r"structures lung; expected trachea_bronchi, .* with the same ct\.structures\.table"
    ):
        train_structures(
            annotation=tmp_path / "ct_annotation.json",
            volumes=samples / "volumes",
            work=tmp_path / "work",
            output=tmp_path / "model",
            device="cpu",
            settings=tiny_settings(),
        )
