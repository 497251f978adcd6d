"""What RadEval is given: the same texts in both files, none lost or moved; its BLEU of them is ours."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ct_evaluation_samples import EFFUSION, NORMAL
from ct_evaluation_samples import entry as ct_entry
from export_samples import REPORTS, write_run

from d2rnet.cli import main
from d2rnet.errors import DatasetError
from d2rnet.evaluation.caption_scores import Scorer
from d2rnet.export.radeval import export_radeval
from d2rnet.files.documents import write_jsonl
from d2rnet.report.annotation_file import write_annotation


def lists_of(folder: Path) -> tuple[list[str], list[str], list[str]]:
    document = json.loads((folder / "reports.json").read_text(encoding="utf-8"))
    assert list(document) == ["ids", "references", "hypotheses"]
    return document["ids"], document["references"], document["hypotheses"]


def test_texts_of_the_protocol_are_those_of_the_scores(tmp_path):
    _, generated = write_run(tmp_path)
    assert main(["export", "radeval", "--generated", str(generated), "--output", str(tmp_path / "out")]) == 0
    assert lists_of(tmp_path / "out") == (
        ["a", "b"],
        [REPORTS[0]["reference"], "none"],
        [REPORTS[0]["hypothesis"], ""],
    )


def test_csv_as_pandas_reads_it_holds_the_same_texts(tmp_path):
    annotation, generated = write_run(tmp_path)
    export_radeval(generated=generated, annotation=annotation, output=tmp_path)
    table = pd.read_csv(tmp_path / "reports.csv", keep_default_na=False, dtype=str)
    ids, references, hypotheses = lists_of(tmp_path)
    assert (table["id"].tolist(), table["reference"].tolist(), table["hypothesis"].tolist()) == (ids, references, hypotheses)
    assert hypotheses[1] == "" and '"No" pneumothorax' in references[0], "the case shows nothing"
    with (tmp_path / "reports.csv").open(encoding="utf-8", newline="") as stream:
        assert next(csv.reader(stream)) == ["id", "reference", "hypothesis"]


def test_with_the_annotation_texts_are_as_people_write_them(tmp_path):
    annotation, generated = write_run(tmp_path)
    export_radeval(generated=generated, annotation=annotation, output=tmp_path)
    _, references, hypotheses = lists_of(tmp_path)
    assert references[0] == 'FINDINGS: Small left effusion, heart 5.5 cm. "No" pneumothorax.'
    assert hypotheses[0] == "Small left effusion. No pneumothorax."


def test_reports_of_ct_go_the_same_way(tmp_path):
    write_annotation(tmp_path / "ct.json", {"test": [ct_entry("v1", f"{EFFUSION} {NORMAL}")]})
    line = {"id": "v1", "reference": "there is effusion .", "hypothesis": "no effusion .", "sentences": []}
    write_jsonl(tmp_path / "test.jsonl", [line])
    export_radeval(generated=tmp_path / "test.jsonl", annotation=tmp_path / "ct.json", output=tmp_path)
    assert lists_of(tmp_path) == (["v1"], [f"{EFFUSION} {NORMAL}"], ["No effusion."])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "test.jsonl: holds no report"),
        ([{"id": "a", "reference": "x"}], "got hypothesis None"),
        ([REPORTS[0], REPORTS[0]], "'a' a second time"),
        ([{**REPORTS[0], "id": "z"}], "got id 'z'; expected an id of annotation.json"),
    ],
)
def test_what_is_no_test_jsonl_is_refused(tmp_path, lines, message):
    annotation, generated = write_run(tmp_path)
    write_jsonl(generated, lines)
    with pytest.raises(DatasetError, match=message):
        export_radeval(generated=generated, annotation=annotation, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_annotation_of_another_kind_is_refused(tmp_path):
    _, generated = write_run(tmp_path)
    (tmp_path / "r.json").write_text('{"test": [{"id": "a"}]}')
    with pytest.raises(DatasetError, match=r"test\[0\] \(a\): report: expected a text"):
        export_radeval(generated=generated, annotation=tmp_path / "r.json", output=tmp_path / "out")


@pytest.mark.filterwarnings("ignore")
def test_radeval_itself_reads_them_and_its_bleu_is_ours(tmp_path):
    radeval = pytest.importorskip("radeval", reason="RadEval is not installed; it brings several GB (transformers, medspacy)")
    rng = np.random.default_rng(3)
    words = ["no", "left", "right", "effusion", "pneumothorax", "heart", "size", "normal", "lungs", "clear", ".", ","]
    references = [rng.choice(words, 30) for _ in range(9)]
    written = [np.where(rng.random(30) < 0.15, "the", reference)[: 30 - number] for number, reference in enumerate(references)]
    pairs = [(" ".join(reference), " ".join(text)) for reference, text in zip(references, written, strict=True)]
    lines = [{"id": str(i), "reference": reference, "hypothesis": text} for i, (reference, text) in enumerate(pairs)]
    write_jsonl(tmp_path / "test.jsonl", lines)
    export_radeval(generated=tmp_path / "test.jsonl", annotation=None, output=tmp_path)
    _, references, hypotheses = lists_of(tmp_path)
    theirs = radeval.RadEval(metrics=["bleu"], show_progress=False, detailed=True)(refs=references, hyps=hypotheses)
    ours = Scorer(None).score(references, hypotheses, what="reports").corpus
    assert 0.2 < theirs["bleu"] == pytest.approx(ours["bleu_4"], abs=1e-4)
    assert theirs["bleu_1"] == pytest.approx(ours["bleu_1"], abs=1e-4)
