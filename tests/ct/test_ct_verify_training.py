"""What would end a training of chest CT is told before one begins."""

from pathlib import Path
from typing import Any

import pytest

from d2rnet.ct.settings import CtSettings
from d2rnet.ct.verify_training import training_problems, verify_ct_training
from d2rnet.errors import ConfigError
from d2rnet.files.documents import read_json


def problems(processes: int = 1, device: str | None = "cpu", **changes: Any) -> list[str]:
    chosen = CtSettings().replaced(**changes)
    return list(training_problems(chosen, device=device, processes=processes))


def test_what_is_shipped_can_be_trained(tmp_path: Path) -> None:
    verify_ct_training(output=tmp_path, device="cpu", processes=2, elsewhere=False, settings=CtSettings())
    assert read_json(tmp_path / "run.json")["command"] == "verify-ct-training"


def test_a_problem_ends_the_command_and_leaves_no_record(tmp_path: Path) -> None:
    chosen = CtSettings().replaced(report={"training": {"batch_size": 1}})
    with pytest.raises(
        ConfigError, match=r"1 problem\(s\) that would end a training\n  --processes 2: expected 1 to ct.report"
    ):
        verify_ct_training(output=tmp_path, device="cuda:99", processes=2, elsewhere=True, settings=chosen)
    assert not (tmp_path / "run.json").exists()


def test_everything_wrong_is_listed_at_once() -> None:
    found = problems(
        processes=2,
        device="cuda:99",
        structure_model={"training": {"batch_size": 1}, "text": {"weights": "/gone"}},
        report={"training": {"batch_size": 1}},
    )
    assert len(found) == 4
    assert found[0].startswith("--processes 2: expected 1 to ct.structure_model.training.batch_size (1)")
    assert found[1].startswith("--processes 2: expected 1 to ct.report.training.batch_size (1)")
    assert "/gone" in found[2] and "ct.structure_model.text.weights" in found[2] and "device 'cuda:99'" in found[3]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"structure_model": {"model": {"encoder": {"patch_zyx": [7, 8, 8]}}}}, "patch_zyx"),
        ({"structure_model": {"model": {"encoder": {"kind": "ct_vit", "layers": 1, "weights": "/gone.pt"}}}}, "/gone.pt"),
        ({"report": {"features": {"most_per_structure": 2}}}, "patches_per_structure: 4; the features hold 2"),
        ({"report": {"model": {"selection": "random"}}}, "'random' needs ct.report.features.patches random or all"),
        ({"report": {"model": {"d_model": 97}}}, "d_model"),
        ({"report": {"model": {"weights": "/gone.pth"}}}, "/gone.pth"),
    ],
    ids=["patches", "encoder weights", "too few patches", "selection", "heads", "R2Gen"],
)
def test_a_problem_is_told_with_its_setting(changes: dict[str, Any], words: str) -> None:
    (found,) = problems(device=None, **changes)
    assert words in found
