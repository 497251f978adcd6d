"""verify_training: what both trainings need, tried before anything costly runs, by the code that they will run.

Builds both networks and loads the weights that they start from, compares batches with the number of processes and, where the
trainings run on this machine, asks it for the device, for room in /dev/shm and for open files.

Reads: weight files of the configuration. Writes: run.json.
"""

import logging
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from d2rnet.cxr.detector.checkpoint import load_pretrained
from d2rnet.cxr.detector.config import build_cfg
from d2rnet.cxr.detector.registration import build_network
from d2rnet.cxr.detector.settings import TrainDetectorSettings
from d2rnet.cxr.detector.trainer import check_batches, check_schedule
from d2rnet.cxr.report_model.alignment import pretrained_files
from d2rnet.cxr.report_model.backbone_weights import start_backbone
from d2rnet.cxr.report_model.backbones import transformer_facts
from d2rnet.cxr.report_model.model import D2RNet
from d2rnet.cxr.report_model.settings import DETECTOR, TrainReportModelSettings
from d2rnet.cxr.settings import TrainingsSettings
from d2rnet.errors import ConfigError, D2RNetError
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.decoder.r2gen_weights import start_from_r2gen
from d2rnet.report.training_files import check_report_batch
from d2rnet.runs.device import resolve_device
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.settings import LoaderRuntime
from d2rnet.training.processes import check_processes

log = logging.getLogger(__name__)
SHARED_MEMORY = Path("/dev/shm")
BATCHES_AHEAD = 4  # that each loader process of the detector keeps ready
TENSORS_PER_VIEW = 3  # image, boxes, classes
SOME_WORDS = 8  # size of a vocabulary that is not made yet; no weight file has the words


def verify_training(
    *, output: Path, device: str, processes: int, elsewhere: bool, settings: TrainingsSettings, runtime: LoaderRuntime
) -> None:
    """Try what both trainings need.

    Args:
        output: folder for run.json.
        device: auto, cpu, cuda or cuda:N.
        processes: of a training.
        elsewhere: the trainings run on another machine, so this one's GPUs and limits do not matter.
        settings: of both networks and trainings.
        runtime: how images are loaded.

    Raises:
        ConfigError: lists everything that would end a training.
    """
    machine = None if elsewhere else device
    problems = list(training_problems(settings, runtime, device=machine, processes=processes))
    if problems:
        listed = "\n  ".join(problems)
        raise ConfigError(f"{len(problems)} problem(s) that would end a training\n  {listed}")
    write_run_record(output / "run.json", command="verify-training", settings=settings)
    log.info(
        "verify-training: nothing wrong with what the trainings need: weights, batches%s", "" if elsewhere else ", machine"
    )


def training_problems(
    settings: TrainingsSettings, runtime: LoaderRuntime, *, device: str | None, processes: int
) -> Iterator[str]:
    """Yield what would end a training, each a message for people.

    Args:
        settings: of both networks and trainings.
        runtime: how images are loaded.
        device: as the trainings get it; None if they run on another machine.
        processes: of a training.
    """
    checks: list[Callable[[], None]] = [
        lambda: check_schedule(settings.detector.training),
        lambda: check_batches(processes, settings.detector.training),
        lambda: check_detector(settings.detector),
        lambda: check_report_batch(processes, settings.report.training),
        lambda: check_report_model(settings.report),
    ]
    if device is not None:
        checks.append(lambda: check_processes(processes, resolve_device(device)))
        checks.append(lambda: check_loaders(settings.detector, runtime, processes))
    for check in checks:
        try:
            check()
        except (D2RNetError, FileNotFoundError) as error:
            yield str(error)


def check_detector(settings: TrainDetectorSettings) -> None:
    """Build the detector on the CPU and start it from the weights of the configuration.

    Raises:
        ConfigError: settings that do not fit each other; the weights are missing or do not fit.
    """
    cfg = build_cfg(settings)
    cfg.MODEL.DEVICE = "cpu"
    network = build_network(cfg)
    if settings.model.weights:
        with _naming("cxr.detector.model.weights"):
            load_pretrained(Path(settings.model.weights), network)


def check_report_model(settings: TrainReportModelSettings) -> None:
    """Build the report model on the CPU and start it from the weights of the configuration.

    Raises:
        ConfigError: settings that do not fit each other; weights, or the folder of the text encoder, are missing or do not
            fit.
    """
    with _naming("cxr.report.model.backbone_weights"):
        config = transformer_facts(settings.model)
        model = D2RNet(settings.model, num_tokens=SOME_WORDS, num_categories=len(CATEGORY_NAMES), backbone_config=config)
        if settings.model.backbone_weights != DETECTOR:  # which is not trained yet
            start_backbone(model.extractor.backbone, settings.model, None)
    if settings.model.weights:
        with _naming("cxr.report.model.weights"):
            start_from_r2gen(model.transformer, Path(settings.model.weights), settings.model)
    with _naming("cxr.report.training.alignment.text_encoder_weights"):
        pretrained_files(settings.training.alignment)


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Put the key of a setting before a message that does not have it."""
    try:
        yield
    except (D2RNetError, FileNotFoundError) as error:
        text = str(error)
        raise ConfigError(text if key in text else f"{key}: {text}") from error


def check_loaders(settings: TrainDetectorSettings, runtime: LoaderRuntime, processes: int) -> None:
    """Compare what the detector's loader processes keep ready with what this machine lets them.

    Their tensors lie in shared memory, each an open file of the training process. An image is taken to be of the mean of the
    training sizes, the longer side at its limit.

    Raises:
        ConfigError: /dev/shm is too small, or too few files may be open.
    """
    training = settings.training
    model = settings.model
    images = training.labelled_batch * (2 if training.labelled_views == "weak_and_strong" else 1)
    images += 0 if training.supervised_only else 2 * training.unlabelled_batch
    ahead = runtime.loader_workers * BATCHES_AHEAD
    needed = (
        ahead * images * sum(model.train_shortest_px) // 2 * model.longest_px
    )  # bytes, a process takes its share of images
    free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else needed
    if needed > free:
        raise ConfigError(
            f"runtime.loader_workers: {runtime.loader_workers} of each process keep about {needed / 1e6:.0f} MB of batches in "
            f"{SHARED_MEMORY}, which has {free / 1e6:.0f} MB free; where it is full, a training ends with 'Bus error'. Lower "
            "the one or enlarge the other (docker run --shm-size)."
        )
    files = ahead * images * TENSORS_PER_VIEW // processes
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit != resource.RLIM_INFINITY and files > limit:
        raise ConfigError(
            f"runtime.loader_workers: {runtime.loader_workers} of a process keep about {files} tensors ready, each an open "
            f"file; the hard limit is {limit} ('ulimit -Hn'). Lower the one or raise the other."
        )
