"""Do reports of radiographs beat a look-up by the lesions of their boxes?

After ``make demo``: answers every test entry with the training report that names the classes of the entry's boxes (or the
nearest set of classes, by Jaccard index; of several the medoid), and scores lesion F1 beside the generated reports and the
classes of the boxes themselves. The training reports are known by the classes that they name.

Usage: python benchmarks/lesion_lookup.py [RESULTS, default results/cxr]
"""

import sys
from pathlib import Path

import numpy as np

from d2rnet.ct.evaluation.label_sets import ReportStore
from d2rnet.ct.evaluation.settings import LabelSetSettings
from d2rnet.evaluation.caption_scores import single_spaced
from d2rnet.evaluation.clinical import LESIONS, precision_recall_f1
from d2rnet.evaluation.labeller import Named
from d2rnet.figures.tables import markdown_table
from d2rnet.files.documents import read_jsonl
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.annotation_file import load_annotation
from d2rnet.report.text.protocols import clean_report

CONVENTION = "lesion22_uncertain_positive"
THRESHOLDS = (0.5, 0.6, 0.7, 0.8)  # of the boxes' scores; the demo's annotation keeps 0.5 and more


def named(texts: list[str]) -> Named:
    """Return (N, 22) classes that texts name."""
    return LESIONS.matrices(texts)[CONVENTION]


def row(label: str, truth: Named, said: Named) -> list[str]:
    """Return a row of the table: F1, precision, recall over all cells."""
    scores = precision_recall_f1(int((truth & said).sum()), int(truth.sum()), int(said.sum()))
    return [label, *("-" if scores[key] is None else f"{scores[key]:.3f}" for key in ("f1", "precision", "recall"))]


def main(results: Path) -> None:
    """Print the table."""
    splits = load_annotation(results / "build_annotation" / "annotation.json")
    lines = list(read_jsonl(results / "generate_reports" / "test.jsonl"))
    by_id = {entry["id"]: entry for entry in splits["test"]}
    entries = [by_id[line["id"]] for line in lines]
    truth = named([line["reference"] for line in lines])
    texts = [single_spaced(clean_report(entry["report"], "r2gen")) for entry in splits["train"]]
    store = ReportStore(texts, named(texts), candidates=LabelSetSettings().medoid_candidates)
    rows = [row("generated reports", truth, named([line["hypothesis"] for line in lines]))]
    for least in THRESHOLDS:
        scored = [list(zip(entry["labels"], entry["scores"], strict=True)) for entry in entries]
        wanted = np.array(
            [[any(label == name and score >= least for label, score in boxes) for name in CATEGORY_NAMES] for boxes in scored]
        )
        rows.append(row(f"classes of boxes of score {least} and more", truth, wanted))
        answers = [texts[store.answer(one)] for one in wanted]
        rows.append(row(f"training report that names them, {least}", truth, named(answers)))
    print("\n".join(markdown_table([f"answer, n {len(lines)}", "lesion F1, micro", "precision", "recall"], rows)))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("results/cxr"))
