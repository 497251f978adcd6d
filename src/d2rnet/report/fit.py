"""The training loop: from the beginning, or from the last checkpoint, to the end.

Reads and writes: the work folder (see :mod:`d2rnet.report.training_record`).
"""

import logging
from pathlib import Path

from d2rnet.files.torch_files import load_torch, resuming_from
from d2rnet.report.interface import Entries
from d2rnet.report.settings import ReportRuntime
from d2rnet.report.text.vocabulary import Vocabulary
from d2rnet.report.training_record import LAST, TrainingRecord, stop_requests
from d2rnet.report.training_task import TrainingTask, make_loader
from d2rnet.report.validation import validate_model
from d2rnet.runs.code_parts import note_code
from d2rnet.training.collectives import num_processes, process_rank

log = logging.getLogger(__name__)


def fit(folder: Path, task: TrainingTask, validation: Entries, vocabulary: Vocabulary, runtime: ReportRuntime) -> None:
    """Train in this process, which may be one of several.

    Args:
        folder: work folder of the run.
        task: at its beginning; resumed here where the folder holds a checkpoint.
        validation: the validation split.
        vocabulary: token <-> id.
        runtime: loader processes, minutes between checkpoints.

    Raises:
        D2RNetError: a loss is not finite.
        CheckpointError: a damaged checkpoint, or one of another version.
        SystemExit: 143 after SIGTERM or SIGUSR1, once the state is saved.
    """
    settings = task.settings
    order = list(range(len(validation)))
    batches = [order[start : start + settings.batch_size] for start in order[:: settings.batch_size]]

    def validate() -> dict[str, float]:
        own = batches[process_rank() :: num_processes()]
        loader = make_loader(validation, own, validation.collate, workers=runtime.loader_workers)
        return validate_model(
            task.model,
            (batch.to(task.device) for batch in loader),
            vocabulary=vocabulary,
            max_tokens=settings.max_report_tokens,
            write_reports=settings.selection == "bleu_4",
        )

    with stop_requests() as stop:
        record = TrainingRecord(folder, task, validate=validate, stop=stop, checkpoint_minutes=runtime.checkpoint_minutes)
        if (folder / LAST).is_file():
            state = load_torch(folder / LAST)
            with resuming_from(folder / LAST):
                task.resume(state)
                record.resume(state)
            log.info("resuming at step %d of %d", task.finished_steps, task.total_steps)
        if process_rank() == 0:
            note_code(folder, task.finished_steps, "step")
        record.begin()
        while task.finished_steps < task.total_steps:
            for batch in task.batches():
                task.train_step(batch)
                record.after_step()
            record.finish_epoch()
            record.save()
        record.history.close()
