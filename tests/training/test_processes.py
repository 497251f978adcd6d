"""Training in several processes: two make the step that one makes; errors and stops reach the caller."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_gpu import GPU, pretend_gpu
from process_samples import fail, save_when_told, talk, wait_for_ever
from report_samples import NUM_TOKENS, PUBLISHED_ALIGNMENT, SMALL_MODEL, make_batch
from torch.nn.parallel import DistributedDataParallel

from d2rnet.cxr.report_model.alignment import Alignment
from d2rnet.cxr.report_model.dataset import ChestBatch, collate
from d2rnet.cxr.report_model.lesion_loss import LesionLoss
from d2rnet.cxr.report_model.model import D2RNet
from d2rnet.cxr.report_model.pointer import Pointer
from d2rnet.cxr.report_model.report_findings import report_classes
from d2rnet.cxr.report_model.settings import D2RNetModelSettings, D2RNetTrainingSettings
from d2rnet.cxr.report_model.side_words import SideWords
from d2rnet.errors import ConfigError, D2RNetError
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from d2rnet.report.training_task import report_task
from d2rnet.training import collectives
from d2rnet.training import processes as processes_module
from d2rnet.training.batches import EpochBatches
from d2rnet.training.collectives import GlobalBatchNorm, first_row, gather_rows, num_processes, process_rank
from d2rnet.training.processes import COLLECTIVE_TIMEOUT, ProcessError, check_processes, run_processes

CPU = torch.device("cpu")
WORDS = ("cardiomegaly", "pneumothorax", *"abcdefghijk", "left", "bilateral", ".")
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS), (0, 0, 0, 0, *[5] * 16), "r2gen", "findings", 1)
LERA = {"lesion_branch": "crop", "crop_size_px": 32, "crop_width": 2, "lesion_enhancement": "lera"}
# Model, alignment, boxes of each entry; two processes get the entries 0, 1 and 2, or 0 and none.
BALANCED = {"weight_by": "gradient_ratio", "centring": True, "word_projection": "separate", "projection_bias": False}
QUEUE = {"targets": "soft", "queue_length": 4}
FINDINGS = {"sentence_box": True, "same_findings": "left_out"}
CASES: list[tuple[dict[str, Any], dict[str, Any], tuple[int, ...]]] = [
    ({}, {"lab": "lesions", "gab": "patches"}, (2, 1, 3)),
    (LERA, {"lab": "lesions", "gab": "mean"}, (0, 0, 3)),  # the first process has no box
    (LERA, {"lab": "lesions_or_image", "gab": "patches", "targets": "soft"}, (2, 0, 1)),
    (LERA, {"lab": "lesions", "gab": "patches"}, (2,)),  # the second process has no entry
    (LERA, {}, (0, 0)),
    ({}, {"lab": "lesions", "gab": "patches"} | BALANCED, (2, 1, 3)),
    (LERA | {"crop_statistics": "box"}, {"lab": "lesions_or_image", "gab": "mean", "targets": "soft"} | BALANCED, (0, 2, 3)),
    (LERA, {"lab": "lesions", "gab": "patches"} | BALANCED, (2,)),
    ({}, FINDINGS | {"lab": "lesions", "gab": "patches", "targets": "soft", "likeness": "words_and_findings"}, (2, 1, 3)),
    ({}, FINDINGS | {"gab": "mean"} | BALANCED, (0, 2, 3)),
    ({}, QUEUE | {"lab": "lesions", "gab": "patches", "likeness": "words_and_findings"}, (2, 1, 3)),
    ({}, QUEUE | {"lab": "lesions", "gab": "mean", "centring": True, "queue_length": 2}, (2, 1, 3)),  # one has to go
    ({}, QUEUE | {"gab": "patches", "centring": True}, (2,)),
    ({}, {"pointer_weight": 0.5}, (0, 2, 3)),
    ({"findings": "taught"}, {}, (0, 2, 3)),
    ({"findings": "told"}, {"pointer_weight": 0.5}, (0, 2, 3)),
    ({"findings": "told"}, {}, (2,)),
    ({}, {"side_weight": 3.0}, (0, 2, 3)),
    ({}, {"side_weight": 3.0}, (2,)),
    (LERA, {"pointer_weight": 0.5, "gab": "mean"}, (2,)),
    (LERA | {"crop_chunk": 2}, {"lab": "lesions", "gab": "mean"} | BALANCED, (0, 1, 3)),  # one process has more than a chunk
]


class Entries:
    """Stands for a data set of three entries: a task asks for its length only."""

    def __len__(self) -> int:
        return 3


def gradients(model: dict[str, Any], aligned: dict[str, Any], lesions: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Gradients and buffers after the losses of this process's part of a batch, averaged over processes."""
    torch.manual_seed(4)
    settings = D2RNetModelSettings.read(SMALL_MODEL | model | {"dropout": 0.0, "patch_dropout": 0.0})
    network = D2RNet(settings, num_tokens=NUM_TOKENS, num_categories=len(CATEGORY_NAMES))
    asked = {name: value for name, value in aligned.items() if name not in ("pointer_weight", "side_weight")}
    training = D2RNetTrainingSettings().replaced(alignment=PUBLISHED_ALIGNMENT | {"embed_dim": 8, "text_heads": 2} | asked)
    alignment = Alignment(training.alignment, settings, VOCABULARY, max_tokens=5) if asked else None
    weight = aligned.get("pointer_weight")
    pointer = Pointer(weight, VOCABULARY, lesion_branch=settings.lesion_branch) if weight else None
    batch = make_batch(lesions=lesions)
    named = torch.tensor([CATEGORY_NAMES.index("Cardiomegaly") + 1, CATEGORY_NAMES.index("Pneumothorax") + 1])
    batch.category_ids = named[batch.category_ids % 2] * batch.lesion_mask
    batch.token_ids[-1, 1:5] = torch.tensor([4, 19, 5, 17])  # sentences that name either, and a side
    classes = report_classes(batch.token_ids, VOCABULARY).numpy()
    lesion_loss = LesionLoss(network.findings, classes, weight=2.0, dropout=0.0) if network.findings else None
    beyond = aligned.get("side_weight", 1.0) - 1
    side_words = SideWords(VOCABULARY, weight=beyond) if beyond else None
    losses = {"further": alignment, "looking": pointer, "encoded_loss": lesion_loss, "some_tokens": side_words}
    task = report_task(network, Entries(), training, device=CPU, **losses)
    if training.alignment.queue_length:  # a step whose reports are in the queue at the next one
        task.loss(part_of(batch)).backward()
        task.optimizer.zero_grad()
        task.objective.after_step()
        batch.token_ids[:, 2] = 6
    task.loss(part_of(batch)).backward()
    task.objective.after_step()  # what is watched, too
    own = task.losses.module if isinstance(task.losses, DistributedDataParallel) else task.losses
    found = {f"buffer {name}": value.float() for name, value in own.named_buffers()}
    for name, parameter in own.named_parameters():
        found[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return found | {name: torch.tensor(value) for name, value in task.loss_sums.items()}


def part_of(batch: ChestBatch) -> ChestBatch:
    """Cut a batch as EpochBatches does; boxes and tokens are padded to the longest of the part alone."""
    chosen = torch.tensor_split(torch.arange(len(batch)), num_processes())[process_rank()]
    if not len(chosen):
        return collate([], size_px=32, crop_size_px=32)
    part = ChestBatch(**{name: getattr(batch, name)[chosen] for name in batch.__dataclass_fields__})
    most, longest = int(part.lesion_mask.sum(dim=1).max()), int((part.token_ids != 0).sum(dim=1).max())
    for name in (
        "boxes_xyxy",
        "positions",
        "lesion_view",
        "category_ids",
        "scores",
        "crops",
        "crop_insides",
        "lesion_mask",
        "lesion_sides",
    ):
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
    run_processes(write_gradients, tmp_path, processes=2, device=CPU)
    for number, case in enumerate(CASES):
        single, shared = gradients(*case), torch.load(tmp_path / f"{number}.pt")
        assert (
            single.keys() == shared.keys()
            and min(float(single.get(name, 1.0)) for name in ("sentence_box", "pointer", "side_words")) > 0
        )
        scale = max(float(value.abs().max()) for name, value in single.items() if not name.startswith("buffer"))
        for name, value in single.items():
            bound = 2e-5 * (1 if name.startswith("buffer") else max(scale, 1.0))
            assert torch.allclose(value, shared[name], rtol=1e-3, atol=bound), (number, name)


def test_batch_norm_alone_is_torch_s() -> None:
    ours, theirs = GlobalBatchNorm(3), torch.nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 5, 5) + 3
    assert torch.equal(ours(x), theirs(x)) and torch.equal(ours.running_var, theirs.running_var)


def test_batch_norm_on_gpus_is_torch_s_own_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its statistics are float32 whatever the batch is; those of an empty batch have its type, and have to be so, too."""
    norm, seen = GlobalBatchNorm(3), []

    def noted(x: torch.Tensor, *others: Any) -> torch.Tensor:
        seen.append((len(x), x.dtype))
        own = (norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps, norm.momentum)
        assert all(given is expected for given, expected in zip(others, (*own, None, 2), strict=True))
        return x

    assert norm.state_dict().keys() == torch.nn.BatchNorm2d(3).state_dict().keys()
    monkeypatch.setattr(collectives, "num_processes", lambda: 2)
    monkeypatch.setattr(collectives, "sum_over_processes", lambda values: values)
    monkeypatch.setattr(collectives.SyncBatchNorm, "apply", noted)
    with pretend_gpu():
        for rows, kind in ((2, torch.bfloat16), (0, torch.bfloat16), (0, torch.float32)):
            assert norm(torch.zeros(rows, 3, 4, 4, dtype=kind).to(GPU)).dtype == kind
    assert seen == [(2, torch.bfloat16), (0, torch.float32), (0, torch.float32)]
    norm(torch.zeros(2, 3, 4, 4))
    assert len(seen) == 3, "on a CPU torch's own does not work"
    assert norm.num_batches_tracked == 4


def test_parts_of_an_epoch_are_the_batches_of_one_process() -> None:
    def batches(rank: int = 0, processes: int = 1) -> list[list[int]]:
        return list(EpochBatches(9, batch_size=4, seed=1, epoch=0, rank=rank, processes=processes))

    first, second = batches(0, 2), batches(1, 2)
    assert [one + other for one, other in zip(first, second, strict=True)] == batches()
    assert [len(part) for part in first] == [2, 2, 1] and [len(part) for part in second] == [2, 2, 0]


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("error", D2RNetError, "^loss is not finite$"),
        ("unforeseen", KeyError, "no such layer"),
        ("odd", ProcessError, "^LateError: layer: too late$"),
        pytest.param(  # test_kills.py kills a process of each trainer
            "kill",
            ProcessError,
            r"process 1 \(of 0 to 1\) ended with SIGKILL.*The last checkpoint is kept: run again",
            marks=pytest.mark.slow,
        ),
        ("silent", ProcessError, r"process 1 \(of 0 to 1\) ended with exit code 7"),
    ],
)
def test_a_process_that_fails_ends_all(kind: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run_processes(fail, kind, processes=2, device=CPU)
    assert not multiprocessing.active_children()


def test_the_first_process_speaks_for_all_and_none_collects_all_objects_of_the_libraries_as_it_leaves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with caplog.at_level(logging.INFO, logger="d2rnet"):
        assert run_processes(talk, tmp_path, processes=2, device=CPU) == "0 sees GPUs ''"
    lines = sorted(record.getMessage() for record in caplog.records if record.name == "d2rnet.samples")
    assert lines == ["loss is high", "process 1: loss is high", "step 1"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert all(int((tmp_path / rank).read_text()) > 1000 for rank in "01"), "objects that are no longer looked at"


def stop_when_ready(folder: Path, number: int) -> None:
    """Send this process a signal as soon as both test processes are at work."""

    def wait() -> None:
        while len(list(folder.glob("ready_*"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=wait, daemon=True).start()


@pytest.mark.parametrize(
    "number",
    [signal.SIGUSR1, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],  # test_kills.py sends SIGTERM to both trainers
)
def test_a_signal_reaches_all_and_the_last_one_may_save(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stop_when_ready(tmp_path, number)
    with pytest.raises(SystemExit) as stopped:
        run_processes(save_when_told, tmp_path, processes=2, device=CPU)
    assert stopped.value.code == 143
    assert (tmp_path / "saved").read_text() == number.name
    assert signal.getsignal(number) == before


def test_a_signal_to_processes_that_do_not_listen_yet_is_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processes_module, "GRACE_SECONDS", 0.1)
    stop_when_ready(tmp_path, signal.SIGUSR1)
    with pytest.raises(SystemExit) as stopped:
        run_processes(wait_for_ever, tmp_path, processes=2, device=CPU)
    assert stopped.value.code == 143
    assert "SIGUSR1: stopping; give the same command again to go on" in caplog.messages
    assert not multiprocessing.active_children()


def test_processes_wait_for_a_long_validation_on_gpus_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects go through the CPU, in the same group; a group of torch's own would give up after 30 minutes."""
    asked: list[Any] = []
    monkeypatch.setattr(processes_module.torch.cuda, "set_device", asked.append)
    monkeypatch.setattr(processes_module.dist, "TCPStore", lambda *_, **__: "store")
    monkeypatch.setattr(processes_module.dist, "init_process_group", lambda name, **options: asked.append((name, options)))
    job = processes_module._Job(fail, (), 2, torch.device("cuda"), 1, None, 0, 0)
    processes_module._join_group(1, job)
    options = {"store": "store", "rank": 1, "world_size": 2, "timeout": COLLECTIVE_TIMEOUT}
    assert asked == [1, ("cpu:gloo,cuda:nccl", options)]
    assert COLLECTIVE_TIMEOUT.total_seconds() >= 3 * 3600


def test_number_of_processes_is_checked() -> None:
    check_processes(4, CPU)
    with pytest.raises(ConfigError, match="--processes 0: expected at least 1"):
        check_processes(0, CPU)
    with pytest.raises(ConfigError, match=r"expected cuda, each process takes a GPU of its own"):
        check_processes(2, torch.device("cuda:1"))
    too_many = 1 + max(1, torch.cuda.device_count())
    with pytest.raises(ConfigError, match=r"this machine shows torch \d+ GPU\(s\); each process needs one"):
        check_processes(too_many, torch.device("cuda"))


PARENT_THAT_IS_KILLED = """
import multiprocessing, os, signal, time
from d2rnet.training.processes import _die_with

def work(parent):
    _die_with(parent)
    print("alive", flush=True)
    time.sleep(60)

signal.signal(signal.SIGINT, signal.SIG_IGN)
context = multiprocessing.get_context("fork")
late = context.Process(target=work, args=(os.getpid() + 1,))  # its parent is another by now
late.start()
late.join()
print(late.exitcode, flush=True)
context.Process(target=work, args=(os.getpid(),)).start()
time.sleep(60)
"""


def test_a_process_dies_with_its_parent_even_if_interrupts_are_ignored() -> None:
    command = [sys.executable, "-c", PARENT_THAT_IS_KILLED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert [parent.stdout.readline() for _ in range(2)] == ["143\n", "alive\n"]
        parent.kill()
        assert parent.communicate(timeout=20) == ("", None)  # the pipe closes when the child is dead, too
