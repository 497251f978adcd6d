"""Hooks by themselves."""

from pathlib import Path
from types import SimpleNamespace

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from d2rnet.cxr.detector.hooks import MetricsHook
from d2rnet.cxr.detector.settings import DetectorTrainingSettings


def iterate(folder: Path, start: int, stop: int) -> None:
    """Iterations ``start`` to ``stop`` - 1 of a run whose only figure is the number of the iteration."""
    hook = MetricsHook(folder, every=1)
    training = DetectorTrainingSettings()
    hook.trainer = SimpleNamespace(start_iter=start, max_iter=100, training=training, box_counts={}, image_counts={})
    hook.before_train()
    for iteration in range(start, stop):
        hook.trainer.iter, hook.trainer.metrics = iteration, {"total_loss": float(iteration)}
        hook.after_step()
    hook.after_train()


def test_tensorboard_keeps_the_figures_up_to_the_checkpoint_and_no_others(tmp_path: Path) -> None:
    iterate(tmp_path, 0, 4)
    iterate(tmp_path, 2, 3)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("total_loss")
    assert [(event.step, event.value) for event in events] == [(1, 0.0), (2, 1.0), (3, 2.0)]
