"""The training loop: from the beginning, or from the last checkpoint, to the end.

Reads and writes: the work folder (see :mod:`d2rnet.training.record`).
"""

import logging
from pathlib import Path

from d2rnet.files.torch_files import load_torch, resuming_from
from d2rnet.runs.code_parts import note_code
from d2rnet.training.collectives import process_rank
from d2rnet.training.record import LAST, IsBetter, TrainingRecord, Validate, stop_requests
from d2rnet.training.task import TrainingTask

log = logging.getLogger(__name__)


def fit(folder: Path, task: TrainingTask, *, validate: Validate, is_better: IsBetter, checkpoint_minutes: float) -> None:
    """Train in this process, which may be one of several.

    Args:
        folder: work folder of the run.
        task: at its beginning; resumed here where the folder holds a checkpoint.
        validate: scores of the validation split; every process calls it.
        is_better: whether a row of the history is better than the best one so far.
        checkpoint_minutes: minutes between checkpoints.

    Raises:
        D2RNetError: a loss is not finite.
        CheckpointError: a damaged checkpoint, or one of another version.
        SystemExit: 143 after SIGTERM or SIGUSR1, once the state is saved.
    """
    with stop_requests() as stop:
        record = TrainingRecord(
            folder, task, validate=validate, is_better=is_better, stop=stop, checkpoint_minutes=checkpoint_minutes
        )
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
