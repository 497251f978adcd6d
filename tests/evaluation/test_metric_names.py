"""The table of metrics: what is in it stands everywhere; four files add one, as docs/how-to/add-a-metric.md says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import gallery_samples as samples
import pytest

from d2rnet.evaluation.metric_names import METRICS, Group, Metric, Shown, shown_in
from d2rnet.files.documents import read_json, read_jsonl


def test_every_metric_is_documented(repository):
    page = (repository / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    assert [key for key in METRICS if f"`{key}`" not in page] == []


def test_names_are_told_apart():
    assert len({metric.heading for metric in METRICS.values()}) == len(METRICS)
    assert [metric.key for metric in shown_in(Shown.ABLATION) if metric.group is Group.LESIONS] == [
        "lesion22_uncertain_positive_micro_f1",
        "lesion_side_micro_f1",
    ]


@pytest.mark.parametrize(
    ("value", "options", "text"),
    [(0.12345, {}, "0.12"), (None, {}, "-"), (0.12345, {"more_digits": 1, "sign": "+"}, "+0.123")],
)
def test_values_as_shown(value, options, text):
    metric = Metric("x", "X", Group.WORDS, digits=2, lower_is_better=True)
    assert metric.text(value, **options) == text
    assert metric.heading == "X (less is better)"


@pytest.fixture(scope="module")
def grown(tmp_path_factory, repository) -> Path:
    """A copy of the package with one metric more, added by the blocks of the page that says how."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(repository / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__"))
    page = (repository / "docs" / "how-to" / "add-a-metric.md").read_text(encoding="utf-8")
    module, test, imported, line, documented = re.findall(r"```\w+\n(.*?)```", page, flags=re.DOTALL)
    (copy / "src" / "d2rnet" / "evaluation" / "word_f1.py").write_text(module)
    (copy / "test_word_f1.py").write_text(test)
    table = copy / "src" / "d2rnet" / "evaluation" / "metric_names.py"
    text = table.read_text(encoding="utf-8")
    last_import = "from numpy.typing import NDArray\n"
    first_lesion = next(row for row in text.splitlines() if "Group.LESIONS" in row and "Metric(" in row)
    assert text.count(last_import) == text.count(first_lesion) == 1
    table.write_text(text.replace(last_import, f"{last_import}\n{imported}").replace(first_lesion, f"{line}{first_lesion}"))
    assert "`word_f1`" in documented
    return copy


def run_in(copy: Path, *arguments: str) -> None:
    here = Path(__file__).parent
    path = os.pathsep.join(map(str, (copy / "src", here.parent / "gallery")))
    done = subprocess.run(
        [sys.executable, *arguments], cwd=copy, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_of_the_page_passes_its_own_test(grown):
    run_in(grown, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_word_f1.py")


def test_an_added_metric_stands_in_every_table(grown, tmp_path):
    run_in(grown, str(Path(__file__).with_name("every_table.py")), str(tmp_path))
    metrics = read_json(tmp_path / "scores" / "metrics.json")
    value = metrics["scores"]["word_f1"]
    assert 0.5 < value < 1 and 0 < metrics["shuffled"]["word_f1"] < value
    low, high = metrics["intervals"]["word_f1"]
    assert low <= value <= high
    assert "word_f1" in metrics["against"]["most_frequent_report"]
    pairs = [line["word_f1"] for line in read_jsonl(tmp_path / "scores" / "per_report.jsonl")]
    assert sum(pairs) / len(pairs) == pytest.approx(value, abs=1e-6)
    shown = f"{value:.3f}"
    assert re.search(rf"\| word F1 +\| {shown} \[", (tmp_path / "summary" / "summary.md").read_text())
    assert f'<th scope="row">word F1</th><td>{shown} [' in (tmp_path / "pages" / "report_scores.html").read_text()
    data, _ = samples.read_page(tmp_path / "gallery")
    assert data["meta"]["names"]["word_f1"] == "word F1"
    assert ["word_f1", "word F1", [[value, [low, high]]]] in data["meta"]["corpus"]
    assert data["index"]["scores"]["word_f1"][0] == pytest.approx(pairs, abs=1e-4)
    compared = (tmp_path / "compare" / "comparison.md").read_text()
    assert re.search(rf"\| word F1 +\| {value:.4f} \| {value:.4f} \| \+0\.0000 ", compared)
    assert re.search(rf"\| word F1 .*\n.*\n\| an arm .*\| {shown} \[", (tmp_path / "ablation.md").read_text())
