"""Labellers by others' weights: a failure at any moment is a note and no label; each text is read once. RadGraph likewise."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from d2rnet.errors import ToolError
from d2rnet.evaluation.outside_labeller import BATCH_TEXTS, OutsideLabeller
from d2rnet.evaluation.radgraph import radgraph_scores

REFERENCES = ["r one", "r two", "r three"]
HYPOTHESES = ["h one", "h two", "h three"]


def test_each_text_is_read_once_in_batches():
    calls = []

    def classify(texts):
        calls.append(list(texts))
        return np.array([[len(text)] for text in texts])

    labeller = OutsideLabeller("name", lambda: classify)
    texts = [f"{number:04}" * (number % 7 + 1) for number in range(2 * BATCH_TEXTS + 1)]
    assert labeller.read([*texts, texts[0]])[:, 0].tolist() == [len(text) for text in [*texts, texts[0]]]
    assert labeller.read(texts[:2]) is not None
    assert sorted(map(len, calls)) == [1, BATCH_TEXTS, BATCH_TEXTS]
    assert [len(text) for part in calls for text in part] == sorted(map(len, texts))
    assert labeller.runs and labeller.notes == {}


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (ToolError("no weights"), "not run: no weights"),
        (FileNotFoundError("x: no such file."), "not run: x: no such file."),
        (AttributeError("no attribute\n 'encode_plus'"), "not run: AttributeError: no attribute 'encode_plus'"),
        (RuntimeError(""), "not run: RuntimeError: "),
    ],
)
def test_what_does_not_open_says_why(error, note):
    def fails():
        raise error

    labeller = OutsideLabeller("name", fails)
    assert labeller.notes == {"name": note}
    assert not labeller.runs and labeller.read(["a"]) is None


def test_what_fails_while_it_reads_is_not_asked_again():
    calls = []

    def classify(texts):
        calls.append(texts)
        raise RuntimeError("CUDA out of memory")

    labeller = OutsideLabeller("name", lambda: classify)
    assert labeller.runs
    assert labeller.read(["a"]) is None and labeller.read(["a"]) is None
    assert len(calls) == 1 and not labeller.runs
    assert labeller.notes == {"name": "not run: RuntimeError: CUDA out of memory"}


def test_a_stop_asked_for_is_no_failure():
    def stopped():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        OutsideLabeller("name", stopped)


def radgraph_note(weights) -> str:
    scores, notes = radgraph_scores(weights, REFERENCES, HYPOTHESES)
    assert scores == {}
    return notes["radgraph"]


def test_radgraph_that_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert radgraph_note(None) == "not run: evaluation.radgraph_weights is null"
    assert "holds no radgraph-xl/weights.th or" in radgraph_note(str(tmp_path / "absent"))
    (tmp_path / "radgraph-xl").mkdir()
    (tmp_path / "radgraph-xl" / "weights.th").touch()
    monkeypatch.setitem(sys.modules, "radgraph", None)
    assert "Install it: pip install radgraph 'transformers<5'" in radgraph_note(str(tmp_path))
    module = ModuleType("radgraph")

    def make(**arguments):
        raise AttributeError("BertTokenizer has no attribute encode_plus")

    module.F1RadGraph = make
    monkeypatch.setitem(sys.modules, "radgraph", module)
    assert radgraph_note(str(tmp_path)) == "not run: AttributeError: BertTokenizer has no attribute encode_plus"


def test_radgraph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = {}
    module = ModuleType("radgraph")

    def make(**arguments):
        seen.update(arguments)
        return lambda refs, hyps: ([0.5, 0.4, 0.25], "by report", refs, hyps)

    module.F1RadGraph = make
    monkeypatch.setitem(sys.modules, "radgraph", module)
    (tmp_path / "radgraph-xl").mkdir()
    (tmp_path / "radgraph-xl" / "weights.th").touch()
    scores, notes = radgraph_scores(str(tmp_path), REFERENCES, HYPOTHESES)
    assert scores == {"radgraph_xl_f1_simple": 0.5, "radgraph_xl_f1_partial": 0.4, "radgraph_xl_f1_complete": 0.25}
    assert seen == {"reward_level": "all", "model_type": "radgraph-xl", "model_cache_dir": str(tmp_path)}
    assert notes == {}
