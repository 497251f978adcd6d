"""Training in several processes: two make the step that one makes; errors and stops reach the caller."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from process_samples import fail
from report_samples import NUM_TOKENS, SMALL_MODEL, make_batch

from d2rnet.cxr.report_model.alignment import Alignment
from d2rnet.cxr.report_model.dataset import Batch, collate
from d2rnet.cxr.report_model.model import ReportModel
from d2rnet.errors import ConfigError, D2RNetError
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.processes import check_processes, run_in_processes
from d2rnet.report.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from d2rnet.report.training_task import ReportTask
from d2rnet.settings import complete
from d2rnet.training.batches import EpochBatches
from d2rnet.training.collectives import GlobalBatchNorm, first_row, gather_rows, num_processes, process_rank

VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *"abcdefghijklmno", "."), (0, 0, 0, 0, *[5] * 16), "r2gen", "findings", 1)
LERA = {"lesion_branch": "crop", "crop_size_px": 32, "crop_width": 2, "lesion_enhancement": "lera"}
# Model, alignment, boxes of each entry; two processes get the entries 0, 1 and 2, or 0 and none.
CASES: list[tuple[dict[str, Any], dict[str, Any], tuple[int, ...]]] = [
    ({}, {"local": "lesions", "global": "patches"}, (2, 1, 3)),
    (LERA, {"local": "lesions", "global": "mean"}, (0, 0, 3)),  # the first process has no box
    (LERA, {"local": "lesions_or_image", "global": "patches", "targets": "soft"}, (2, 0, 1)),
    (LERA, {"local": "lesions", "global": "patches"}, (2,)),  # the second process has no entry
    (LERA, {}, (0, 0)),
]


class Entries:
    """Stands for a data set of three entries: a task asks for its length only."""

    def __len__(self) -> int:
        return 3


def gradients(model: dict[str, Any], aligned: dict[str, Any], lesions: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Gradients and buffers after one step on this process's part of a batch, averaged as DDP does."""
    torch.manual_seed(4)
    settings = complete(SMALL_MODEL | model | {"dropout": 0.0, "patch_dropout": 0.0}, "report.model")
    network = ReportModel(settings, num_tokens=NUM_TOKENS, num_categories=len(CATEGORY_NAMES))
    training = complete({"alignment": {"embed_dim": 8, "text_heads": 2} | aligned}, "report.training")
    alignment = Alignment(training["alignment"], settings, VOCABULARY) if aligned else None
    task = ReportTask(network, Entries(), training, alignment).train()
    task.training_step(part_of(make_batch(lesions=lesions)), 0).backward()
    found = {f"buffer {name}": value.float() for name, value in task.named_buffers()}
    for name, parameter in task.named_parameters():
        total = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if num_processes() > 1:
            dist.all_reduce(total)
        found[name] = total / num_processes()
    return found | {name: torch.tensor(value) for name, value in task.loss_sums.items()}


def part_of(batch: Batch) -> Batch:
    """Cut a batch as EpochBatches does; boxes and tokens are padded to the longest of the part alone."""
    chosen = torch.tensor_split(torch.arange(len(batch)), num_processes())[process_rank()]
    if not len(chosen):
        return collate([], size_px=32, crop_size_px=32)
    part = Batch(**{name: getattr(batch, name)[chosen] for name in batch.__dataclass_fields__})
    most, longest = int(part.lesion_mask.sum(dim=1).max()), int((part.token_ids != 0).sum(dim=1).max())
    for name in ("boxes_xyxy", "positions", "lesion_view", "category_ids", "scores", "crops", "lesion_mask"):
        setattr(part, name, getattr(part, name)[:, :most])
    part.token_ids = part.token_ids[:, :longest]
    return part


def write_gradients(folder: Path) -> None:
    """Run the cases in a training process; the first process keeps the results."""
    torch.set_num_threads(1)
    assert first_row(2 - process_rank(), torch.device("cpu")) == 2 * process_rank()
    assert gather_rows(torch.full((1 + process_rank(),), process_rank())).tolist() == [0, 1, 1]
    for number, case in enumerate(CASES):
        found = gradients(*case)
        if process_rank() == 0:
            torch.save(found, folder / f"{number}.pt")


def test_two_processes_make_the_step_of_one(tmp_path: Path) -> None:
    run_in_processes(write_gradients, tmp_path, processes=2)
    for number, case in enumerate(CASES):
        single, shared = gradients(*case), torch.load(tmp_path / f"{number}.pt")
        assert single.keys() == shared.keys()
        scale = max(float(value.abs().max()) for name, value in single.items() if not name.startswith("buffer"))
        for name, value in single.items():
            bound = 2e-5 * (1 if name.startswith("buffer") else max(scale, 1.0))
            assert torch.allclose(value, shared[name], rtol=1e-3, atol=bound), (number, name)


def test_batch_norm_alone_is_torch_s() -> None:
    ours, theirs = GlobalBatchNorm(3), torch.nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 5, 5) + 3
    assert torch.equal(ours(x), theirs(x)) and torch.equal(ours.running_var, theirs.running_var)


def test_parts_of_an_epoch_are_the_batches_of_one_process() -> None:
    def batches(rank: int = 0, processes: int = 1) -> list[list[int]]:
        return list(EpochBatches(9, batch_size=4, seed=1, epoch=0, rank=rank, processes=processes))

    first, second = batches(0, 2), batches(1, 2)
    assert [one + other for one, other in zip(first, second, strict=True)] == batches()
    assert [len(part) for part in first] == [2, 2, 1] and [len(part) for part in second] == [2, 2, 0]


@pytest.mark.parametrize(
    ("kind", "message"), [("error", "loss is not finite"), ("kill", "process 1 was killed .exit code -9")]
)
def test_a_process_that_fails_ends_all(kind: str, message: str) -> None:
    with pytest.raises(D2RNetError, match=message):
        run_in_processes(fail, kind, processes=2)


def test_number_of_processes_is_checked() -> None:
    cpu = torch.device("cpu")
    check_processes(4, cpu, batch_size=4)
    for processes in (0, 5):
        with pytest.raises(ConfigError, match=r"expected 1 to report\.training\.batch_size \(4\)"):
            check_processes(processes, cpu, batch_size=4)
    with pytest.raises(ConfigError, match="a GPU of its own"):
        check_processes(2, torch.device("cuda:1"), batch_size=4)
    with pytest.raises(ConfigError, match=r"shows torch \d+ GPU"):
        check_processes(99, torch.device("cuda"), batch_size=100)
