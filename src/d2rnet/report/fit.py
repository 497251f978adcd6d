"""The training loop of a report model, validated by loss or by written reports."""

from pathlib import Path
from typing import cast

from d2rnet.report.interface import ReportModel
from d2rnet.report.rewards import Reward
from d2rnet.report.settings import ReportRuntime, ReportTrainingSettings
from d2rnet.report.text.report_tokens import ReportTokens
from d2rnet.report.validation import is_better, validate_model
from d2rnet.training.collectives import num_processes, process_rank
from d2rnet.training.fit import fit
from d2rnet.training.task import Entries, TrainingTask, make_loader


def fit_reports(
    folder: Path,
    task: TrainingTask,
    validation: Entries,
    vocabulary: ReportTokens,
    runtime: ReportRuntime,
    reward: Reward | None = None,
) -> None:
    """Train in this process, which may be one of several.

    Args:
        folder: work folder of the run.
        task: at its beginning; resumed here where the folder holds a checkpoint.
        validation: the validation split.
        vocabulary: token <-> id.
        runtime: loader processes, minutes between checkpoints.
        reward: of self-critical training, which greedy reports of the validation split are scored by, too.

    Raises:
        D2RNetError: a loss is not finite.
        CheckpointError: a damaged checkpoint, or one of another version.
        SystemExit: 143 after SIGTERM or SIGUSR1, once the state is saved.
    """
    settings = cast(ReportTrainingSettings, task.settings)
    model = cast(ReportModel, task.model)
    order = list(range(len(validation)))
    batches = [order[start : start + settings.batch_size] for start in order[:: settings.batch_size]]

    def validate() -> dict[str, float]:
        own = batches[process_rank() :: num_processes()]
        loader = make_loader(validation, own, validation.collate, workers=runtime.loader_workers)
        return validate_model(
            model,
            (batch.to(task.device) for batch in loader),
            vocabulary=vocabulary,
            max_tokens=settings.max_report_tokens,
            write_reports=settings.selection == "bleu_4",
            reward=reward,
        )

    def better(row: dict[str, float], best: dict[str, float]) -> bool:
        return is_better(row, best, selection=settings.selection)

    fit(folder, task, validate=validate, is_better=better, checkpoint_minutes=runtime.checkpoint_minutes)
