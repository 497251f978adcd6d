"""The language-model benchmark: repeated reports are held out of the held-out part, and perplexity is what its name says."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from d2rnet.report.annotation_file import load_annotation
from d2rnet.report.text.vocabulary import count_vocabulary

WORDS = ("effusion", "nodule", "scarring", "granuloma", "edema", "catheter")


@pytest.fixture(scope="module")
def benchmark(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("openi_text_benchmark", repository / "benchmarks" / "openi_text.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """Sixty reports: a third say the same, one has no findings."""
    folder = tmp_path / "ecgen-radiology"
    folder.mkdir()
    for number in range(60):
        word = WORDS[number % len(WORDS)]
        text = "Clear lungs." if number % 3 == 0 else f"XXXX {word} number {number} in the lung. No {word}."
        findings = f'<AbstractText Label="FINDINGS">{text}</AbstractText>' if number else ""
        content = f'<eCitation><uId id="CXR{number}"/><Abstract>{findings}</Abstract></eCitation>'
        (folder / f"{number}.xml").write_text(content)
    return tmp_path


def test_held_out_reports_are_new_texts(benchmark: ModuleType, reports: Path, tmp_path: Path) -> None:
    counts = benchmark.write_entries(reports, tmp_path, protocol="r2gen")
    splits = load_annotation(tmp_path / "annotation.json")
    texts = {split: [entry["report"] for entry in entries] for split, entries in splits.items()}
    assert "Clear lungs." in texts["train"]
    assert "Clear lungs." not in texts["val"] + texts["test"]
    assert (counts["reports"], counts["with findings"]) == (60, 59)
    left_out = counts["val, word for word in train"] + counts["test, word for word in train"]
    assert sum(map(len, texts.values())) == 59 - left_out
    assert left_out > 0


def test_unigram_perplexity_by_hand(benchmark: ModuleType) -> None:
    vocabulary = count_vocabulary(["a a b"], protocol="faithful", section="findings", min_token_count=1)
    found = benchmark.unigram_perplexity(vocabulary, ["a a b"], ["a c"], max_tokens=10)
    # Tokens: pad, bos, eos, unk, full stop, a, b. Training: a a b . eos; with one more of each: 12. Held out: a unk . eos.
    assert found == pytest.approx(float(np.exp(-np.log(np.array([3, 1, 2, 2]) / 12).mean())))


def test_table_of_a_run(
    benchmark: ModuleType, reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["model.d_model=16", "model.d_ff=16", "model.num_layers=1", "text.min_token_count=1", "training.batch_size=8"]
    arguments = ["openi_text.py", str(reports), "--run", str(tmp_path / "run"), "--epochs", "2", "--set", "model.num_heads=2"]
    arguments += [part for setting in [*small, "model.memory_heads=2"] for part in ("--set", setting)]
    monkeypatch.setattr(sys, "argv", arguments)
    benchmark.main()
    document = json.loads((tmp_path / "run" / "openi_text.json").read_text())
    history = [json.loads(line) for line in (tmp_path / "run" / "model" / "metrics.jsonl").read_text().splitlines()]
    assert [row["val"] for row in document["epochs"]] == [math.exp(line["val_loss"]) for line in history]
    assert 1 < document["test_perplexity"] < len(WORDS) * 20
    assert len(history) == 2
    assert document["xxxx_counted"] > 0
    assert f"{document['epochs'][1]['val']:.1f}" in capsys.readouterr().out
