"""Training on two processes: the same figures as on one, and what happens when one of them ends."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from detector_samples import RUNTIME

from d2rnet.cxr.boxes.records import Record, load_records
from d2rnet.cxr.detector import trainer, validation
from d2rnet.cxr.detector.checkpoint import load_weights
from d2rnet.cxr.detector.config import build_cfg
from d2rnet.cxr.detector.dataset_mapper import IterationDataset
from d2rnet.cxr.detector.predict import detect
from d2rnet.cxr.detector.pseudo_labels import teacher_detections
from d2rnet.cxr.detector.registration import build_network
from d2rnet.cxr.detector.settings import TrainDetectorSettings
from d2rnet.cxr.detector.streams import ImageStore
from d2rnet.cxr.detector.training_images import TrainingImages, compact
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import read_jsonl
from d2rnet.runs.settings import LoaderRuntime
from d2rnet.training.collectives import gather_objects, process_rank
from d2rnet.training.processes import run_processes


@pytest.fixture
def settings(settings: TrainDetectorSettings) -> TrainDetectorSettings:
    """Without batch statistics, with images of many sizes; SGD, since Adam turns rounding of tiny gradients into steps."""
    settings = settings.replaced(model={"norm": "GN", "backbone_width": 32, "train_shortest_px": [40, 72]})
    settings = settings.replaced(
        training={
            "optimizer": "sgd",
            "base_lr": 0.01,
            "unsupervised_weight": 2.0,
            "burn_in_iters": 1,
            "padding": "iteration",
        }
    )
    return settings


def run(splits: dict[str, Path], folder: Path, settings: TrainDetectorSettings, processes: int, **runtime: int) -> Path:
    output = folder / f"out{processes}"
    arguments = {**splits, "work": folder / "work", "output": output, "device": "cpu", "processes": processes}
    trainer.train_detector(**arguments, settings=settings, runtime=RUNTIME.replaced(validate_every_iters=3, **runtime))
    return output


def drawn_by_each_process(records: Sequence[Record], settings: TrainDetectorSettings) -> list[tuple[int, list[int]]]:
    """Body of a process: score on records; return on how many images each process drew boxes, and of which it scored any."""
    torch.manual_seed(0)
    counts = []

    def counted(*arguments: Any) -> Iterator[list[dict[str, Any]]]:
        for results in detect(*arguments):
            counts.append(len(results))
            yield results

    def scored(_: Sequence[Record], boxes: list[dict[str, Any]]) -> dict[str, Any]:
        return {"images": sorted({box["image_id"] for box in boxes})}

    validation.detect = counted  # type: ignore[assignment]  # of this process alone
    validation.coco_scores = scored  # type: ignore[assignment]
    cfg = build_cfg(settings)
    scores = validation.score_on(records, cfg, settings.prediction, LoaderRuntime(), build_network(cfg))
    return gather_objects((len(counts), scores["images"]))


def test_every_process_draws_on_its_share_of_the_validation_images(
    splits: dict[str, Path], settings: TrainDetectorSettings
) -> None:
    records = compact(load_records(splits["labelled_test"]))
    settings = settings.replaced(prediction={"batch_images": 1, "score_floor": 0.001})
    done = run_processes(drawn_by_each_process, records, settings, processes=2, device=torch.device("cpu"))
    images = [record.image_id for record in records]
    assert done == [(3, images), (3, images)]


def history(folder: Path) -> list[dict]:
    lines = list(read_jsonl(folder / "metrics.jsonl"))
    for line in lines:
        line.pop("seconds_per_iteration", None)
    return lines


def threshold_between(splits: dict[str, Path], settings: TrainDetectorSettings, weights: Path) -> float:
    """A score that only one of the two unlabelled images of the first iteration of mutual learning exceeds."""
    labelled, unlabelled = load_records(splits["labelled_train"]), load_records(splits["unlabelled"])
    dataset = IterationDataset(labelled, unlabelled, ImageStore([], 0), settings.model, settings.training)
    network = build_network(build_cfg(settings)).eval()
    load_weights(weights, network)
    best = [image.scores.max().item() for image in teacher_detections(network, dataset[1].unlabelled_weak)]
    assert abs(best[0] - best[1]) > 1e-5
    return sum(best) / 2


def test_two_processes_give_the_figures_of_one(
    splits: dict[str, Path], tmp_path: Path, settings: TrainDetectorSettings
) -> None:
    """Also where one process alone has pseudo boxes, and with thresholds that adapt."""
    burn_in = run(splits, tmp_path / "burn_in", settings, 1) / "burn_in.pth"
    settings = settings.replaced(
        training={
            "total_iters": 3,
            "pseudo_score_threshold": threshold_between(splits, settings, burn_in),
            "pseudo_threshold": "adaptive",
            "adaptive_threshold_range": [0.0, 1.0],
        }
    )
    one = run(splits, tmp_path / "one", settings, 1)
    two = run(splits, tmp_path / "two", settings, 2, loader_workers=1)
    figures = history(one)
    assert any("validation_ema_teacher_AP50" in line for line in figures)
    assert next(line["unlabelled_trained_on"] for line in figures if "unlabelled_trained_on" in line) == 0.5
    for ours, theirs in zip(history(two), figures, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():  # kinks of the network turn rounding of the weights into more in the gradient
            assert ours[name] == pytest.approx(value, rel=1e-2 if name == "gradient_norm" else 1e-5, abs=1e-6), name
    for name in ("model_final.pth", "student_final.pth", "burn_in.pth"):
        ours, theirs = (torch.load(folder / name, weights_only=True)["model"] for folder in (two, one))
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")


def train_and_compare(job: trainer.Job) -> None:
    """Body of a process: train, compare networks with the other process, then fail in one of the two."""
    done, _ = trainer.run(job)
    digests = []
    for network in (done.student, done.ema_teacher.model):
        state = b"".join(value.numpy().tobytes() for value in network.state_dict().values())
        digests.append(hashlib.sha256(state).hexdigest())
    of_all = gather_objects(tuple(digests))
    if process_rank() == 1:
        raise DatasetError(f"{len(of_all)} processes, {len(set(of_all))} different states")


def test_all_processes_hold_the_same_networks_and_the_error_of_one_is_the_error_of_the_run(
    splits: dict[str, Path], tmp_path: Path, settings: TrainDetectorSettings
) -> None:
    """With batch normalisation, whose statistics are those of a process's own images."""
    settings = settings.replaced(model={"norm": "BN"})
    streams = (compact(load_records(splits[name])) for name in ("labelled_train", "unlabelled", "labelled_val"))
    images = TrainingImages(*streams)
    job = trainer.Job(tmp_path, tmp_path, images, build_cfg(settings), settings, RUNTIME, torch.device("cpu"))
    with pytest.raises(DatasetError, match=r"^2 processes, 1 different states$"):
        run_processes(train_and_compare, job, processes=2, device=torch.device("cpu"))


@pytest.mark.parametrize(("changes", "processes", "text"), [
    ({"labelled_batch": 6, "unlabelled_batch": 4}, 4, r"labelled_batch: 6 images are not divisible by 4 \(4 process"),
    ({"labelled_batch": 8, "unlabelled_batch": 6, "accumulation_steps": 2}, 2, r"unlabelled_batch: 6 .* by 4 \(2 process"),
])  # fmt: skip
def test_batches_that_cannot_be_shared(
    settings: TrainDetectorSettings, changes: dict[str, Any], processes: int, text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        trainer.check_batches(processes, settings.training.replaced(**changes))


def test_supervised_training_shares_labelled_images_only(settings: TrainDetectorSettings) -> None:
    trainer.check_batches(2, settings.training.replaced(supervised_only=True, unlabelled_batch=3))
