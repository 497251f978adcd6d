"""Write every table that shows metrics of reports, for a small made-up run. Usage: ``python every_table.py FOLDER``."""

import sys
from pathlib import Path

import gallery_samples as samples
import numpy as np

from d2rnet.cxr.ablation import LAYOUT
from d2rnet.cxr.summary.run_tables import read_summary, write_tables
from d2rnet.cxr.summary.summary import summarize
from d2rnet.evaluation.ablation_arm import Arm
from d2rnet.evaluation.ablation_table import as_markdown, make_document
from d2rnet.evaluation.caption_scores import Scorer
from d2rnet.evaluation.captioning import evaluate_reports
from d2rnet.evaluation.settings import NoBoxSettings
from d2rnet.evaluation.systems import score_system
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import write_json
from d2rnet.gallery.comparison import compare_and_show
from d2rnet.gallery.render import render_gallery
from d2rnet.gallery.settings import CompareSettings, PageSettings
from d2rnet.report.text.vocabulary import count_vocabulary

COUNT = 8


def main(folder: Path) -> None:
    """Evaluate, summarize, show and compare."""
    run = samples.write_run(folder, COUNT)
    lines = samples.generated_lines(COUNT)
    entries = [samples.entry(line["id"]) for line in lines]
    write_json(run["annotation"], {"train": [samples.entry("t", split="train")], "val": [], "test": entries})
    count_vocabulary(["x"], protocol="r2gen", section="findings", min_token_count=1).save(folder / "model" / "vocabulary.json")
    evaluate_reports(
        generated=run["generated"],
        annotation=run["annotation"],
        model=folder / "model",
        output=run["scores"],
        settings=NoBoxSettings(meteor=False, bootstrap_samples=20),
    )
    render_gallery(**run, output=folder / "gallery", settings=PageSettings())
    _summarize(folder, run["scores"] / "metrics.json")
    compare_and_show(
        run_a=run["generated"],
        run_b=run["generated"],
        studies="same",
        annotation=None,
        image_root=None,
        gallery_studies=0,
        gallery_metric="rouge_l",
        output=folder / "compare",
        workers=1,
        settings=CompareSettings(meteor=False, bootstrap_samples=20),
    )
    arm = Arm("an arm")
    texts = ([line[key] for line in lines] for key in ("reference", "hypothesis"))
    arm.add(score_system(Scorer(None), *texts, what="an arm"), np.ones((COUNT, 3)), LAYOUT.metrics)
    document = make_document({"arm": arm}, LAYOUT, reference="arm", protocol={}, facts={}, notes={})
    write_text(folder / "ablation.md", as_markdown(document, LAYOUT))


def _summarize(folder: Path, metrics: Path) -> None:
    network = {key: {} for key in ("boxes_per_class", "per_class_AP50", "per_class_AP", "per_class_voc_AP40")}
    detector = {name: {**network, "AP50": 0.5, "AP40": 0.5} for name in ("ema_teacher", "student")}
    write_json(folder / "detector.json", {"protocol": {}, **detector})
    boxes = dict.fromkeys(("predicted", "kept", "below_threshold", "on_images_without_report", "above_max_boxes"), 0)
    counts = {"boxes": {**boxes, "below_threshold_by_class": {}, "kept_by_class": {}}}
    write_json(folder / "build_annotation" / "counts.json", counts)
    summarize(
        detector_metrics=folder / "detector.json",
        report_metrics=metrics,
        counts=[folder / "build_annotation" / "counts.json"],
        models=[],
        output=folder / "summary",
    )
    write_tables(folder / "pages", read_summary(folder / "summary" / "summary.json"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
