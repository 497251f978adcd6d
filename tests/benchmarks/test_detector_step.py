"""benchmarks/detector_step.py compares like with like: both loops train on the same number of views, with pseudo boxes."""

import importlib
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn


@pytest.fixture
def arms() -> ModuleType:
    return importlib.import_module("detector_arms")


@pytest.mark.parametrize(("stage", "views"), [("burn-in", 4), ("mutual learning", 6)])
def test_both_loops_see_the_same_views(arms: ModuleType, tmp_path: Path, stage: str, views: int) -> None:
    settings = arms.detector_settings("tiny", "off")
    coco = arms.draw_images(tmp_path, settings.model.longest_px)
    for name in (arms.OURS, arms.STOCK):
        arm = arms.Arm(name, stage, settings, coco, torch.device("cpu"), 1)
        seen: Counter[str] = Counter()

        def note(_: nn.Module, inputs: tuple[list[dict]], seen: Counter[str] = seen) -> None:
            seen["views"] += len(inputs[0])
            seen["pseudo boxes"] += sum(len(view["instances"]) for view in inputs[0][4:])

        (arm.trainer.student if name == arms.OURS else arm.trainer.model).register_forward_pre_hook(note)
        wall, processor = arm.step()
        assert wall > 0 and processor > 0
        assert seen["views"] == views
        assert (0 < seen["pseudo boxes"] <= 2 * arms.BOXES_PER_IMAGE) == (stage == "mutual learning")
