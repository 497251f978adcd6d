"""Training: learns, resumes exactly, stops on request, refuses what does not fit."""

import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
import yaml
from backbone_samples import write_detector, write_transformer
from earlier_version import begun_with, lacking
from pretend_gpu import GPU, pretend_gpu
from r2gen_reference import random_weights
from report_samples import EVERYTHING, PUBLISHED_ALIGNMENT, small_settings, training_settings, write_cohort
from safetensors.torch import load_file

from d2rnet.cxr.report_model import generate, trainer
from d2rnet.cxr.report_model.front_end import D2RNET, categories_of
from d2rnet.cxr.report_model.generate import generate_reports
from d2rnet.cxr.report_model.settings import ReportSettings
from d2rnet.cxr.report_model.trainer import train_report_model
from d2rnet.errors import CheckpointError, ConfigError, D2RNetError, DatasetError
from d2rnet.report.model_files import load_model
from d2rnet.report.text.vocabulary import BOS_ID, PAD_ID, build_vocabulary
from d2rnet.report.validation import is_better, token_loss
from d2rnet.runs import code_parts
from d2rnet.training.record import TrainingRecord
from d2rnet.training.task import TrainingTask, learning_rate


def train(
    cohort: Path,
    folder: Path,
    settings: ReportSettings,
    device: str = "cpu",
    processes: int = 1,
    detector: Path | None = None,
) -> Path:
    """Run both commands; return the model folder."""
    build_vocabulary(annotation=cohort / "annotation.json", output=folder / "vocabulary", settings=settings.text)
    train_report_model(
        annotation=cohort / "annotation.json",
        vocabulary=folder / "vocabulary" / "vocabulary.json",
        image_root=cohort,
        work=folder / "work",
        output=folder / "model",
        device=device,
        settings=training_settings(settings),
        detector=detector,
        processes=processes,
    )
    return folder / "model"


def history(model: Path) -> list[dict[str, Any]]:
    """Metrics of a run without its times."""
    rows = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "train_seconds"} for row in rows]


def same_weights(one: Path, other: Path) -> bool:
    first = load_file(one / "model.safetensors")
    second = load_file(other / "model.safetensors")
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folder of an uninterrupted run; images and settings are those of the other tests."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    return train(write_cohort(folder / "cohort"), folder, small_settings())


def test_outputs_and_metadata(whole_run: Path) -> None:
    model = whole_run
    assert {path.name for path in model.iterdir()} == {
        "model.safetensors",
        "vocabulary.json",
        "config.yaml",
        "model_card.md",
        "metrics.jsonl",
        "run.json",
    }
    rows = history(model)
    assert [row["epoch"] for row in rows] == [1, 2, 3] and [row["step"] for row in rows] == [3, 6, 9]
    run = json.loads((model / "run.json").read_text())
    assert run["counts"] == {"train": 5, "train_without_words": 0, "val": 2, "val_without_words": 0}
    loaded = load_model(model, torch.device("cpu"), D2RNET)
    assert loaded.settings.text.protocol == "r2gen" and len(categories_of(loaded)) == 22
    assert not loaded.model.training


def test_what_entries_tell_changes_nothing_unless_it_is_asked_for(whole_run: Path, tmp_path: Path) -> None:
    """Entries without views, indication and prior, as they always were, give the same weights to the bit."""
    cohort = write_cohort(tmp_path / "cohort")
    content = json.loads((cohort / "annotation.json").read_text())
    for entries in content.values():
        for entry in entries:
            for key in ("views", "indication", "prior"):
                del entry[key]
    (cohort / "annotation.json").write_text(json.dumps(content))
    assert same_weights(whole_run, train(cohort, tmp_path, small_settings()))
    asked = small_settings().replaced(model={"indication": True})
    with pytest.raises(DatasetError, match=r"7 of 7 entries, such as train0, have no key 'indication'"):
        train(cohort, tmp_path / "asked", asked)


def test_test_split_is_never_looked_at(cohort: Path, tmp_path: Path, report_settings: ReportSettings) -> None:
    for image in cohort.glob("test_*.png"):
        image.unlink()
    model = train(cohort, tmp_path, report_settings.replaced(**{"training": {"epochs": 1}}))
    assert (model / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("step", "new"),
    [(2, ()), (3, ()), (4, ()), (9, ()), (4, ("training.alignment", "model.prior", "model.finding_sides", "training.seed"))],
)
def test_resume_after_sigterm_is_bit_identical(
    cohort: Path,
    tmp_path: Path,
    report_settings: ReportSettings,
    whole_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    new: tuple[str, ...],
) -> None:
    """3 steps an epoch: stops inside an epoch (2, 4), at its end (3) and at the very end (9).

    The version that was stopped may have lacked the settings ``new``.
    """
    with monkeypatch.context() as patch:
        stop_after(step, patch)
        with pytest.raises(SystemExit) as stopped:
            train(cohort, tmp_path / "parts", report_settings)
    assert stopped.value.code == 143
    if new:
        begun_with(tmp_path / "parts/work", lacking(*new))
    parts = train(cohort, tmp_path / "parts", report_settings)
    assert same_weights(whole_run, parts)
    assert history(whole_run) == history(parts)
    assert len(list((tmp_path / "parts/work").glob("*/fingerprint.json"))) == 1


def test_a_run_that_other_code_resumed_names_both(
    cohort: Path, tmp_path: Path, report_settings: ReportSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = {"d2rnet": "0.0.1", "commit": "f" * 40, "dirty": False}
    with monkeypatch.context() as patch:
        patch.setattr(code_parts, "code_version", lambda: begun)
        stop_after(4, patch)
        with pytest.raises(SystemExit):
            train(cohort, tmp_path, report_settings)
    model = train(cohort, tmp_path, report_settings)
    record = json.loads((model / "run.json").read_text())
    assert [(part["from"], part["code"]) for part in record["code_parts"]] == [(0, begun), (4, record["code"])]
    assert f"| code until step 4 | d2rnet 0.0.1, commit {'f' * 40} |" in (model / "model_card.md").read_text()


@pytest.mark.parametrize("epoch", [1, 2])
def test_resume_after_a_kill_before_the_checkpoint_is_bit_identical(
    cohort: Path, tmp_path: Path, report_settings: ReportSettings, whole_run: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    """A process that dies between writing history and the checkpoint repeats the epoch and leaves one line for it."""
    original = TrainingRecord.save

    def die(self: TrainingRecord) -> None:
        if self.task.finished_epochs == epoch:
            raise KeyError("killed")
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRecord, "save", die)
        with pytest.raises(KeyError, match="killed"):
            train(cohort, tmp_path / "parts", report_settings)
    parts = train(cohort, tmp_path / "parts", report_settings)
    assert same_weights(whole_run, parts) and history(whole_run) == history(parts)


def stop_after(step: int, patch: pytest.MonkeyPatch) -> None:
    """Let SIGTERM arrive in a training step."""
    original = TrainingTask.train_step

    def interrupted(self: TrainingTask, batch: Any) -> None:
        if self.finished_steps + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, batch)

    patch.setattr(TrainingTask, "train_step", interrupted)


def test_alignment_that_is_off_decides_nothing() -> None:
    """A training that was begun when the defaults were the published ones is the same run."""
    off = {"finding_sides": False, "finding_scores": False}  # idle, too, where nothing is told
    settings = small_settings().replaced(model=off)
    idle, published = (settings.replaced(training={"alignment": each}) for each in ({}, PUBLISHED_ALIGNMENT))
    assert trainer.what_decides(idle) == trainer.what_decides(published) == published
    on = published.replaced(training={"alignment": {"lab": "lesions"}})
    assert trainer.what_decides(on) == on


def test_resume_with_a_smaller_chunk_of_crops_goes_on(
    cohort: Path, tmp_path: Path, report_settings: ReportSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after running out of memory. The model tells the chunk of the last part."""
    settings = report_settings.replaced(model={"lesion_branch": "crop", "crop_size_px": 32, "crop_width": 2})
    with monkeypatch.context() as patch:
        stop_after(4, patch)
        with pytest.raises(SystemExit):
            train(cohort, tmp_path, settings)
    smaller = settings.replaced(model={"crop_chunk": 1})
    begun_after: list[int] = []
    original = TrainingTask.train_step

    def counted(self: TrainingTask, batch: Any) -> None:
        begun_after.append(self.finished_steps)
        original(self, batch)

    monkeypatch.setattr(TrainingTask, "train_step", counted)
    model = train(cohort, tmp_path, smaller)
    (identity,) = (tmp_path / "work").glob("*/fingerprint.json")
    assert begun_after == [4, 5, 6, 7, 8]
    assert json.loads((model / "run.json").read_text())["work_folder"] == identity.parent.name
    assert load_model(model, torch.device("cpu"), D2RNET).settings.model.crop_chunk == 1


def test_a_model_from_before_the_width_could_be_set_has_the_width_of_then(
    cohort: Path, tmp_path: Path, report_settings: ReportSettings
) -> None:
    """64, which is not today's default: its weights are of other shapes."""
    wide = report_settings.replaced(model={"backbone_width": 64}, training={"epochs": 1})
    model = train(cohort, tmp_path, wide)
    config = yaml.safe_load((model / "config.yaml").read_text())
    del config["model"]["backbone_width"]
    (model / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    assert load_model(model, torch.device("cpu"), D2RNET).settings.model.backbone_width == 64


def test_resume_with_every_module_on_is_bit_identical(
    cohort: Path, tmp_path: Path, report_settings: ReportSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = report_settings.replaced(**EVERYTHING)
    whole = train(cohort, tmp_path / "whole", settings)
    with monkeypatch.context() as patch:
        stop_after(5, patch)
        with pytest.raises(SystemExit):
            train(cohort, tmp_path / "parts", settings)
    parts = train(cohort, tmp_path / "parts", settings)
    assert same_weights(whole, parts) and history(whole) == history(parts)
    assert history(whole)[-1]["local_alignment_loss"] > 0 and "global_boundary" in history(whole)[-1]
    assert history(whole)[-1]["sentence_box_loss"] > 0
    assert ["self_critical_reward" in row for row in history(whole)] == [False, True, True]
    assert (
        "| rewarded | F1 of the findings that a report names, from epoch 2 on; its score is"
        in (whole / "model_card.md").read_text()
    )
    assert history(whole)[-1]["pointer_loss"] > 0 and 0 < history(whole)[-1]["pointer_share"] < 1
    kept = load_file(whole / "model.safetensors")
    assert not any("text_encoder" in name or "alignment" in name for name in kept)
    reports = write_reports(cohort, whole, tmp_path / "test.jsonl")
    assert [record["id"] for record in reports] == [f"test{number}" for number in range(5)]
    for module in (trainer, generate):
        monkeypatch.setattr(module, "resolve_device", lambda name: GPU if name == "cuda" else torch.device(name))
    with pretend_gpu():  # nothing is left behind on the CPU: what is on the GPU and what is not may not meet
        with monkeypatch.context() as patch:
            stop_after(5, patch)
            with pytest.raises(SystemExit):
                train(cohort, tmp_path / "gpu", settings, device="cuda")
        on_gpu = train(cohort, tmp_path / "gpu", settings, device="cuda")
        assert write_reports(cohort, on_gpu, tmp_path / "gpu.jsonl", device="cuda") == reports
    assert same_weights(whole, on_gpu) and history(whole) == history(on_gpu)


class ReachedError(Exception):
    """The images are there, and the training would begin."""


def test_trainings_share_images_and_those_of_equal_crops_share_crops(
    cohort: Path, tmp_path: Path, report_settings: ReportSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise ReachedError

    monkeypatch.setattr(trainer, "run_processes", stop)
    build_vocabulary(annotation=cohort / "annotation.json", output=tmp_path, settings=report_settings.text)
    crops = {"lesion_branch": "crop", "crop_size_px": 32, "crop_width": 2}
    for number, model in enumerate(({}, crops, crops | {"lesion_class": False}, crops | {"crop_margin": 1.5})):
        with pytest.raises(ReachedError):
            train_report_model(
                annotation=cohort / "annotation.json",
                vocabulary=tmp_path / "vocabulary.json",
                image_root=cohort,
                work=tmp_path / "work" / str(number),
                image_cache=tmp_path / "images",
                output=tmp_path / "model",
                device="cpu",
                settings=training_settings(report_settings.replaced(model=model)),
            )
        assert (tmp_path / "work" / str(number)).is_dir() and not [*(tmp_path / "work").rglob("*.u8")]
    found = sorted(path.name for path in (tmp_path / "images").glob("*/*.u8"))
    assert found == ["crops.u8", "crops.u8", *["done.u8"] * 3, "pixels.u8"], "the margin alone makes other crops"


def write_reports(cohort: Path, model: Path, output: Path, device: str = "cpu") -> list[dict[str, Any]]:
    """Write the reports of the test split."""
    generate_reports(
        annotation=cohort / "annotation.json",
        image_root=cohort,
        model=model,
        shard=1,
        shards=1,
        output=output,
        device=device,
        settings=small_settings().generation,
    )
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_two_processes_go_on_where_one_was_stopped(
    cohort: Path, tmp_path: Path, report_settings: ReportSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 entries in batches of 2: in the last batch of an epoch one of two processes has no entry."""
    settings = report_settings.replaced(**EVERYTHING).replaced(
        # Nothing random differs between processes, and a step so small that rounding is not blown up by Adam.
        model={"dropout": 0.0, "patch_dropout": 0.0, "lesion_class_dropout": 0.0},
        training={"learning_rate": 1e-6, "backbone_learning_rate": 0.0},
    )
    whole = train(cohort, tmp_path / "whole", settings)
    with monkeypatch.context() as patch:
        stop_after(4, patch)
        with pytest.raises(SystemExit):
            train(cohort, tmp_path / "parts", settings)
    parts = train(cohort, tmp_path / "parts", settings, processes=2)
    assert json.loads((parts / "run.json").read_text())["processes"] == 2
    for one, two in zip(history(whole), history(parts), strict=True):
        assert one.keys() == two.keys()
        assert two == pytest.approx(one, rel=1e-3, abs=1e-4)


def test_damaged_checkpoint_is_named(cohort: Path, tmp_path: Path, report_settings: ReportSettings) -> None:
    train(cohort, tmp_path, report_settings.replaced(**{"training": {"epochs": 1}}))
    (last,) = (tmp_path / "work").glob("*/last.pt")
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"last\.pt: not a readable PyTorch file"):
        train(cohort, tmp_path, report_settings.replaced(**{"training": {"epochs": 1}}))


@pytest.mark.parametrize("change", ["lacks best", "another model", "lacks model"])
def test_checkpoint_of_another_version_is_named(
    cohort: Path, tmp_path: Path, report_settings: ReportSettings, change: str
) -> None:
    """The fingerprint is of settings and inputs; after an update the same work folder may hold another state."""
    short = report_settings.replaced(**{"training": {"epochs": 1}})
    train(cohort, tmp_path, short)
    (last,) = (tmp_path / "work").glob("*/last.pt")
    state = torch.load(last, weights_only=True)
    if change.startswith("lacks "):
        del state[change.removeprefix("lacks ")]
    else:
        state["model"] = {f"module.{name}": tensor for name, tensor in state["model"].items()}
    torch.save(state, last)
    with pytest.raises(CheckpointError, match=r"last\.pt: does not fit this version of the program \((Key|Runtime)Error"):
        train(cohort, tmp_path, short)


def test_finished_run_is_not_trained_again(
    cohort: Path, tmp_path: Path, report_settings: ReportSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_file(train(cohort, tmp_path, report_settings) / "model.safetensors")

    def fail(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(TrainingTask, "train_step", fail)
    again = report_settings.replaced(**{"generation": {"beam_size": 9}})
    second = load_file(train(cohort, tmp_path, again) / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("change", [{"learning_rate": 1e-4}, {"seed": 2}])
def test_other_settings_start_afresh(
    cohort: Path, tmp_path: Path, report_settings: ReportSettings, change: dict[str, Any]
) -> None:
    short = report_settings.replaced(**{"training": {"epochs": 1}})
    train(cohort, tmp_path, short)
    train(cohort, tmp_path, short.replaced(**{"training": change}))
    assert len(list((tmp_path / "work").glob("*/fingerprint.json"))) == 2


def test_another_radiograph_starts_afresh(cohort: Path, tmp_path: Path, report_settings: ReportSettings) -> None:
    """annotation.json is the same; the finished model of the old images was handed out again."""
    short = report_settings.replaced(**{"training": {"epochs": 1}})
    train(cohort, tmp_path, short)
    image = cohort / "train_0.png"
    pixels = cv2.imread(str(image), cv2.IMREAD_GRAYSCALE)
    assert cv2.imwrite(str(image), pixels // 2)
    for _ in range(2):
        train(cohort, tmp_path, short)
        assert len(list((tmp_path / "work").glob("*/fingerprint.json"))) == 2


def test_training_starts_from_weights_of_r2gen(cohort: Path, tmp_path: Path, report_settings: ReportSettings) -> None:
    """The file is an input of the work folder, and is not needed to use the model."""
    settings = report_settings.replaced(training={"epochs": 1, "learning_rate": 1e-9})
    random = load_file(train(cohort, tmp_path / "random", settings) / "model.safetensors")
    path = tmp_path / "r2gen.pth"
    started = settings.replaced(model={"weights": str(path), "d_ff": 16})
    for seed in (1, 2):
        weights = random_weights(d_model=16, num_words=11, seed=seed)
        torch.save(weights, path)
        model = train(cohort, tmp_path / "started", started)
    assert len(list((tmp_path / "started" / "work").glob("*/fingerprint.json"))) == 2
    path.unlink()
    loaded = load_model(model, torch.device("cpu"), D2RNET).model.state_dict()
    name = "transformer.encoder.0.attention.query.weight"
    expected = weights["model.encoder.layers.0.self_attn.linears.0.weight"]
    assert torch.allclose(loaded[name], expected, atol=1e-5)
    assert not torch.allclose(random[name], expected, atol=1e-2)


def test_training_starts_from_a_vision_transformer_that_is_not_needed_again(
    cohort: Path, tmp_path: Path, report_settings: ReportSettings
) -> None:
    reference = write_transformer(tmp_path / "vit", "vit")
    settings = report_settings.replaced(
        model={"backbone": "vision_transformer", "backbone_weights": str(tmp_path / "vit")},
        training={"epochs": 1, "learning_rate": 1e-9, "backbone_learning_rate": 0.0},
    )
    model = train(cohort, tmp_path, settings)
    assert "backbone_model.safetensors" in json.loads((model / "run.json").read_text())["inputs"]
    shutil.rmtree(tmp_path / "vit")
    loaded = load_model(model, torch.device("cpu"), D2RNET).model.state_dict()
    own = {key: value for key, value in reference.state_dict().items() if not key.startswith("pooler.")}
    assert all(torch.equal(loaded[f"extractor.backbone.network.{key}"], value) for key, value in own.items())
    assert len(write_reports(cohort, model, tmp_path / "test.jsonl")) == 5


@pytest.mark.parametrize("changes", [{}, {"backbone_depth": 50, "stride_in_1x1": True}])
def test_training_starts_from_a_detector_that_is_not_needed_again(
    cohort: Path, tmp_path: Path, report_settings: ReportSettings, changes: dict[str, Any]
) -> None:
    network, path = write_detector(tmp_path / "detector", **changes)
    backbone = f"resnet{changes.get('backbone_depth', 18)}"
    settings = report_settings.replaced(
        model={"backbone_weights": "detector", "backbone": backbone, "backbone_width": 16},
        training={"epochs": 1, "backbone_learning_rate": 0.0, "weight_decay": 0.0},
    )
    with pytest.raises(ConfigError, match="no --detector was given"):
        train(cohort, tmp_path, settings)
    model = train(cohort, tmp_path, settings, detector=path)
    shutil.rmtree(tmp_path / "detector")
    block = load_model(model, torch.device("cpu"), D2RNET).model.extractor.backbone.layer2[0]
    assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))  # ResNet-18 strides there anyhow
    loaded = load_file(model / "model.safetensors")
    expected = network.backbone.bottom_up.res2[0].conv1.weight
    assert torch.allclose(loaded["extractor.backbone.layer1.0.conv1.weight"], expected, atol=1e-6)


def test_overfits_the_training_studies(cohort: Path, tmp_path: Path, report_settings: ReportSettings) -> None:
    content = json.loads((cohort / "annotation.json").read_text())
    content["train"] = content["train"][:4]
    content["val"] = [entry | {"split": "val", "id": f"v{entry['id']}"} for entry in content["train"]]
    (cohort / "annotation.json").write_text(json.dumps(content))
    settings = report_settings.replaced(
        model={"d_model": 32, "d_ff": 64, "dropout": 0.0, "patch_dropout": 0.0},
        training={"epochs": 40, "batch_size": 4, "learning_rate": 5e-3, "validate_every_epochs": 40},
    )
    rows = history(train(cohort, tmp_path, settings))
    assert rows[-1]["train_loss"] < 0.1 < rows[0]["train_loss"]
    assert rows[-1]["val_bleu_4"] == pytest.approx(1.0, abs=1e-6)


def test_loss_that_is_not_finite_stops_with_advice(cohort: Path, tmp_path: Path, report_settings: ReportSettings) -> None:
    settings = report_settings.replaced(**{"training": {"learning_rate": 1e30, "warmup_fraction": 0.0, "gradient_clip": 1e30}})
    with pytest.raises(D2RNetError, match=r"the loss is (nan|inf).*learning_rate"):
        train(cohort, tmp_path, settings)


def test_gpu_where_there_is_none(cohort: Path, tmp_path: Path, report_settings: ReportSettings) -> None:
    with pytest.raises(ConfigError, match=r"runtime\.device"):
        train(cohort, tmp_path, report_settings, device=f"cuda:{torch.cuda.device_count()}")


def test_the_log_begins_with_the_device(
    cohort: Path, tmp_path: Path, report_settings: ReportSettings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="d2rnet"), pytest.raises(ConfigError, match=r"expected 1 to .*batch_size"):
        train(cohort, tmp_path, report_settings, processes=99)
    (first, *_) = (record.getMessage() for record in caplog.records if record.name.endswith(".trainer"))
    assert first == "training on cpu, 99 process(es)"


def test_vocabulary_of_another_protocol(cohort: Path, tmp_path: Path, report_settings: ReportSettings) -> None:
    build_vocabulary(annotation=cohort / "annotation.json", output=tmp_path, settings=report_settings.text)
    with pytest.raises(ConfigError, match=r"built with protocol 'r2gen', but cxr\.report\.text\.protocol is 'faithful'"):
        train_report_model(
            annotation=cohort / "annotation.json",
            vocabulary=tmp_path / "vocabulary.json",
            image_root=cohort,
            work=tmp_path / "work",
            output=tmp_path / "model",
            device="cpu",
            settings=training_settings(report_settings.replaced(text={"protocol": "faithful"})),
        )


def test_reports_without_words_are_counted_and_an_empty_split_refused(
    cohort: Path, tmp_path: Path, report_settings: ReportSettings
) -> None:
    content = json.loads((cohort / "annotation.json").read_text())
    content["train"][0]["report"] = "___."
    (cohort / "annotation.json").write_text(json.dumps(content))
    short = report_settings.replaced(**{"training": {"epochs": 1}})
    run = json.loads((train(cohort, tmp_path / "a", short) / "run.json").read_text())
    assert run["counts"]["train"] == 4 and run["counts"]["train_without_words"] == 1
    content["val"] = []
    (cohort / "annotation.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="split 'val'"):
        train(cohort, tmp_path / "b", short)


def test_padding_costs_nothing() -> None:
    logits = torch.zeros(2, 2, 5)
    logits[0, 0, 4] = math.log(4.0)  # p = 1/2
    logits[:, 1, 0] = -9.0
    token_ids = torch.tensor([[BOS_ID, 4, PAD_ID], [BOS_ID, 3, PAD_ID]])
    total, count = token_loss(logits, token_ids)
    assert float(total) == pytest.approx(math.log(2) + math.log(5)) and int(count) == 2


def test_learning_rate_by_hand() -> None:
    def at(step: int) -> float:
        return learning_rate(step, total_steps=11, warmup_fraction=0.2, peak=1.0, final=0.1)

    # Two warm-up steps, then half a cosine over steps 2 to 10.
    assert [at(step) for step in (0, 1, 2, 6, 10)] == pytest.approx([1 / 3, 2 / 3, 1.0, 0.55, 0.1])


@pytest.mark.parametrize(
    ("selection", "row", "expected"),
    [
        ("bleu_4", {"val_bleu_4": 0.3, "val_loss": 9.0}, True),
        ("bleu_4", {"val_bleu_4": 0.1, "val_loss": 0.1}, False),
        ("bleu_4", {"val_bleu_4": 0.2, "val_loss": 0.9}, True),
        ("loss", {"val_loss": 0.9}, True),
        ("loss", {"val_loss": 1.1}, False),
        ("reward", {"val_reward": 0.6, "val_loss": 9.0}, True),
        ("reward", {"val_reward": 0.5, "val_loss": 1.1}, False),
    ],
)
def test_selection(selection: str, row: dict[str, float], expected: bool) -> None:
    assert is_better(row, {"val_bleu_4": 0.2, "val_reward": 0.5, "val_loss": 1.0}, selection=selection) is expected
