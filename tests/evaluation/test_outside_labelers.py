"""CheXbert and RadGraph: not run without weights or package; run through the packages' own calls where both are there."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from d2rnet.errors import ToolError
from d2rnet.evaluation.outside_labelers import outside_scores
from d2rnet.evaluation.settings import ScoreSettings

REFERENCES, HYPOTHESES = ["cardiomegaly", "maybe edema", "clear"], ["cardiomegaly", "edema", "cardiomegaly"]


@pytest.fixture
def chexbert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for f1chexbert with its interface: 14 labels of '' (blank), 1, 0 or -1."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    inner = ModuleType("f1chexbert.f1chexbert")

    class Labeler:
        def __init__(self) -> None:
            assert (Path(inner.CACHE_DIR) / "chexbert.pth").read_text() == "weights"

        def get_label(self, text: str, mode: str) -> list[Any]:
            assert mode == "classification"
            row: list[Any] = [""] * 14
            if "cardiomegaly" in text:
                row[1] = 1
            if "edema" in text:
                row[4] = -1 if "maybe" in text else 1
            row[13] = 0
            return row

    inner.F1CheXbert = Labeler
    outer = ModuleType("f1chexbert")
    monkeypatch.setitem(sys.modules, "f1chexbert", outer)
    monkeypatch.setitem(sys.modules, "f1chexbert.f1chexbert", inner)
    weights = tmp_path / "any_name.pth"
    weights.write_text("weights")
    return weights


def test_without_weights_nothing_runs() -> None:
    scores, notes = outside_scores(REFERENCES, HYPOTHESES, ScoreSettings())
    assert scores == {}
    assert notes == {
        "chexbert": "not run: evaluation.chexbert_weights is null",
        "radgraph": "not run: evaluation.radgraph_weights is null",
    }


def test_without_the_package_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(sys.modules, "f1chexbert", None)
    scores, notes = outside_scores(REFERENCES, HYPOTHESES, ScoreSettings(chexbert_weights=str(tmp_path)))
    assert scores == {}
    assert notes["chexbert"].startswith("not run: the package f1chexbert does not import")
    assert "pip install f1chexbert" in notes["chexbert"]


def test_missing_weights_are_named_with_their_setting(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"evaluation\.radgraph_weights: .*absent: no such file"):
        outside_scores(REFERENCES, HYPOTHESES, ScoreSettings(radgraph_weights=str(tmp_path / "absent")))


def test_chexbert_by_hand(chexbert: Path) -> None:
    """Truth: cardiomegaly; edema (doubted). Claimed: cardiomegaly; edema; cardiomegaly."""
    scores, notes = outside_scores(REFERENCES, HYPOTHESES, ScoreSettings(chexbert_weights=str(chexbert)))
    assert scores == {
        "chexbert14_micro_f1_uncertain_positive": pytest.approx(2 * 2 / (2 + 3)),
        "chexbert14_macro_f1_uncertain_positive": pytest.approx((2 / 3 + 1) / 2),
        "chexbert14_micro_f1_uncertain_negative": pytest.approx(2 * 1 / (1 + 3)),
        "chexbert14_macro_f1_uncertain_negative": pytest.approx(2 / 3),
    }
    assert set(notes) == {"radgraph"}


def test_a_labeler_that_fails_says_what_it_wants(chexbert: Path) -> None:
    def broken(*_: Any) -> None:
        raise OSError("bert-base-uncased is not cached")

    sys.modules["f1chexbert.f1chexbert"].F1CheXbert.__init__ = broken
    with pytest.raises(ToolError, match=r"f1chexbert: OSError: bert-base-uncased is not cached.*chexbert_weights"):
        outside_scores(REFERENCES, HYPOTHESES, ScoreSettings(chexbert_weights=str(chexbert)))


def test_radgraph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    module, seen = ModuleType("radgraph"), {}

    def make(**options: Any) -> Any:
        seen.update(options)
        return lambda refs, hyps: ((0.5, 0.4, 0.25), [], [], []) if (refs, hyps) == (REFERENCES, HYPOTHESES) else None

    module.F1RadGraph = make
    monkeypatch.setitem(sys.modules, "radgraph", module)
    with pytest.raises(FileNotFoundError, match=r"holds no radgraph-xl/weights\.th"):
        outside_scores(REFERENCES, HYPOTHESES, ScoreSettings(radgraph_weights=str(tmp_path)))
    (tmp_path / "radgraph-xl").mkdir()
    (tmp_path / "radgraph-xl" / "weights.th").touch()
    scores, _ = outside_scores(REFERENCES, HYPOTHESES, ScoreSettings(radgraph_weights=str(tmp_path)))
    assert scores == {"radgraph_xl_f1_simple": 0.5, "radgraph_xl_f1_partial": 0.4, "radgraph_xl_f1_complete": 0.25}
    assert seen == {"reward_level": "all", "model_type": "radgraph-xl", "model_cache_dir": str(tmp_path)}
