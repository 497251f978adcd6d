"""Batches: two views of one geometry, the same whatever the worker or the start."""

import resource
import subprocess
from pathlib import Path

import pytest
import torch

from d2rnet.cxr.boxes.records import load_records
from d2rnet.cxr.detector.dataset_mapper import Batch, IterationDataset, TwoViewMapper, batch_loader
from d2rnet.cxr.detector.settings import TrainDetectorSettings
from d2rnet.cxr.detector.streams import ImageStore


@pytest.fixture
def dataset(splits: dict[str, Path], settings: TrainDetectorSettings) -> IterationDataset:
    labelled, unlabelled = load_records(splits["labelled_train"]), load_records(splits["unlabelled"])
    settings = settings.replaced(training={"horizontal_flip": True})
    store = ImageStore([labelled, unlabelled], 10)
    return IterationDataset(labelled, unlabelled, store, settings.model, settings.training)


def flat(batch: Batch) -> list[torch.Tensor]:
    tensors = [view["image"] for views in batch for view in views]
    return tensors + [view["instances"].gt_boxes.tensor for view in batch.labelled]


def test_burn_in_has_no_unlabelled_views(dataset: IterationDataset) -> None:
    assert [len(views) for views in dataset[1]] == [4, 0, 0]
    assert [len(views) for views in dataset[2]] == [4, 2, 2]


def test_both_views_share_the_geometry_but_not_the_pixels(dataset: IterationDataset) -> None:
    for iteration in range(2, 6):
        batch = dataset[iteration]
        pairs = [batch.labelled[0:2], batch.labelled[2:4], *map(list, zip(*batch[1:], strict=True))]
        for weak, strong in pairs:
            assert weak["image_id"] == strong["image_id"]
            assert weak["image"].shape == strong["image"].shape
            assert weak["image"].dtype == torch.uint8
            if "instances" in weak:
                assert torch.equal(weak["instances"].gt_boxes.tensor, strong["instances"].gt_boxes.tensor)
                assert torch.equal(weak["instances"].gt_classes, strong["instances"].gt_classes)
    assert not all(torch.equal(*(view["image"] for view in pair)) for pair in pairs)


@pytest.fixture
def resizing(splits: dict[str, Path], settings: TrainDetectorSettings) -> IterationDataset:
    """Draws sizes and flips; the strong view changes no pixel."""
    settings = settings.replaced(training={"strong": {"jitter_probability": 0.0, "blur_probability": 0.0, "erasing": False}})
    settings = settings.replaced(training={"horizontal_flip": True, "labelled_batch": 4})
    training = settings.training.model_copy(update={"burn_in_iters": 0})  # refused in a run
    settings = settings.replaced(model={"train_shortest_px": [40, 60]})
    labelled, unlabelled = load_records(splits["labelled_train"]), load_records(splits["unlabelled"])
    return IterationDataset(labelled, unlabelled, ImageStore([], 0), settings.model, training)


def test_without_photometry_both_views_are_the_same_image(resizing: IterationDataset) -> None:
    batch = resizing[0]
    pairs = [*zip(batch.labelled[::2], batch.labelled[1::2], strict=True), *zip(*batch[1:], strict=True)]
    assert all(torch.equal(weak["image"], strong["image"]) for weak, strong in pairs)
    assert len({weak["image"].shape for weak, _ in pairs}) > 1


def test_boxes_lie_on_the_lesions_of_their_view(resizing: IterationDataset) -> None:
    """The drawn lesions are 100 grey levels brighter than the noise around 90 and fill three quarters of their box."""
    checked = 0
    for iteration in range(4):
        for view in resizing[iteration].labelled:
            for x1, y1, x2, y2 in view["instances"].gt_boxes.tensor.round().int().tolist():
                assert view["image"][0, y1:y2, x1:x2].float().mean() > 150
                checked += 1
    assert checked > 20


def test_randomness_belongs_to_stream_iteration_and_place(splits: dict[str, Path], settings: TrainDetectorSettings) -> None:
    mapper = TwoViewMapper(ImageStore([], 0), settings.model, settings.training)
    record = load_records(splits["unlabelled"])[0]

    def number(stream: int, iteration: int, place: int) -> float:
        return mapper.draw(record, stream, iteration, place).rng.random()

    assert number(0, 1, 2) == number(0, 1, 2)
    assert len({number(0, 1, 2), number(1, 1, 2), number(0, 2, 2), number(0, 1, 3)}) == 4


def test_strong_views_alone(splits: dict[str, Path], settings: TrainDetectorSettings) -> None:
    settings = settings.replaced(training={"labelled_views": "strong"})
    records = load_records(splits["labelled_train"])
    assert len(IterationDataset(records, [], ImageStore([], 0), settings.model, settings.training)[0].labelled) == 2


def test_an_iteration_does_not_depend_on_those_before(dataset: IterationDataset) -> None:
    for iteration in (0, 3):
        first, again = flat(dataset[iteration]), flat(dataset[iteration])
        assert all(map(torch.equal, first, again))


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_starts_anywhere_and_workers_change_nothing(dataset: IterationDataset, workers: int) -> None:
    loaded = list(batch_loader(dataset, 2, 4, workers))
    assert len(loaded) == 2
    for batch, iteration in zip(loaded, (2, 3), strict=True):
        assert all(map(torch.equal, flat(batch), flat(dataset[iteration])))


def test_an_image_does_not_depend_on_the_others_of_its_batch(splits: dict[str, Path], settings: TrainDetectorSettings) -> None:
    """A larger unlabelled batch leaves the labelled views as they are."""
    labelled, unlabelled = load_records(splits["labelled_train"]), load_records(splits["unlabelled"])
    store = ImageStore([labelled, unlabelled], 10)

    def batch(size: int) -> Batch:
        training = settings.training.replaced(unlabelled_batch=size)
        return IterationDataset(labelled, unlabelled, store, settings.model, training)[2]

    small, large = batch(2), batch(3)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(small.labelled, large.labelled, strict=True))
    assert all(
        torch.equal(a["image"], b["image"]) and a["sampling_seed"] == b["sampling_seed"]
        for a, b in zip(small.unlabelled_strong, large.unlabelled_strong[:2], strict=True)
    )


@pytest.mark.parametrize("padding", ["pass", "iteration"])
def test_processes_and_micro_batches_share_the_images_of_an_iteration(
    splits: dict[str, Path], settings: TrainDetectorSettings, padding: str
) -> None:
    """Whoever gets an image, its views are the same; both views of an image stay together."""
    changes = {"labelled_batch": 4, "unlabelled_batch": 4, "accumulation_steps": 2, "padding": padding}
    settings = settings.replaced(model={"train_shortest_px": [40, 72]}, training=changes)
    labelled, unlabelled = load_records(splits["labelled_train"]), load_records(splits["unlabelled"])

    def batch(rank: int, processes: int, **changes: int) -> Batch:
        training = settings.training.replaced(**changes)
        store = ImageStore([], 0)
        made = IterationDataset(labelled, unlabelled, store, settings.model, training, rank=rank, processes=processes)
        return made[3]

    whole = batch(0, 1, accumulation_steps=1)
    shares = [batch(rank, 2) for rank in range(2)]
    for views, *parts in zip(whole, *shares, strict=True):
        dealt = {view["sampling_seed"]: view for part in parts for view in part}
        assert len(dealt) == sum(map(len, parts)) == len(views)
        for view in views:
            assert torch.equal(dealt[view["sampling_seed"]]["image"], view["image"])
            assert dealt[view["sampling_seed"]].get("batch_hw") == view.get("batch_hw")
    assert ("batch_hw" in whole.labelled[0]) == (padding == "iteration")
    for share in shares:
        assert [view["place"] for view in share.labelled[::2]] == [view["place"] for view in share.labelled[1::2]]
        assert [view["place"] for view in share.unlabelled_weak] == [view["place"] for view in share.unlabelled_strong]
        small, large = share.cut(2)
        areas = [[view["image"].numel() for view in part.unlabelled_weak] for part in (small, large)]
        wide = [{view["image"].shape[2] > view["image"].shape[1] for view in part.unlabelled_weak} for part in (small, large)]
        assert max(areas[0]) <= min(areas[1]) or wide[0] != wide[1]


def test_workers_outlive_a_stop_signal_to_the_whole_job(dataset: IterationDataset) -> None:
    batches = iter(batch_loader(dataset, 0, 12, 1))  # more than a worker prepares in advance
    next(batches)
    worker = str(batches._workers[0].pid)
    for name in ("-USR1", "-TERM"):
        subprocess.run(["kill", name, worker], check=True)
    assert sum(1 for _ in batches) == 11


def test_paper_sized_batches_on_their_way_may_be_many_open_files(dataset: IterationDataset) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = min(4096, limits[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
    try:
        batch_loader(dataset, 0, 1, 1)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= least
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
