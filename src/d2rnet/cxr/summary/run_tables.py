"""Tables of a run as pages for a browser, from summary.json: all metrics, detection and reports per class, pseudo boxes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2rnet.cxr.summary.summary_rows import HEADER, with_interval
from d2rnet.errors import DatasetError
from d2rnet.evaluation.clinical import HEADLINE
from d2rnet.evaluation.metric_names import COMMONEST, LESION_SET, METRICS, NEAREST, NO_BOX, Group
from d2rnet.figures.summary_lines import number
from d2rnet.figures.tables import Table, html_page
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import read_json
from d2rnet.findings.classes import CATEGORY_NAMES

SUMMARY_KEYS = ("synthetic", "table", "detector", "reports", "counts")
SYSTEMS = {
    "scores": "generated",
    "shuffled": "shuffled references",
    COMMONEST: "commonest report",
    NEAREST: "report of the nearest image",
    LESION_SET: "report that names the classes of the boxes",
    NO_BOX: "model without boxes",
}
SYNTHETIC = "The cohort is synthetic: these numbers show that the machinery learns, never that it is good medicine."


def read_summary(path: Path) -> dict[str, Any]:
    """Read summary.json of summarize.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: a key is missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it is made by 'd2rnet summarize'.")
    content = read_json(path)
    missing = [key for key in SUMMARY_KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise DatasetError(f"{path}: lacks {', '.join(missing)}; expected summary.json of 'd2rnet summarize'. Run it again.")
    return content


def write_tables(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write summary.html, detector_classes.html, report_scores.html, report_classes.html and pseudo_box_counts.html."""
    notes = [SYNTHETIC] if summary["synthetic"] else []
    pages = {
        "summary": ("All metrics of the run", _metrics(summary["table"])),
        "detector_classes": ("Detection per class, labelled test split", _detector_classes(summary["detector"])),
        "report_scores": ("Scores of the reports beside their baselines", _report_scores(summary["reports"])),
        "report_classes": ("Lesions named in the reports, per class", _report_classes(summary["reports"])),
        "pseudo_box_counts": ("What became of the pseudo boxes", _pseudo_boxes(summary["counts"])),
    }
    for name, (title, table) in pages.items():
        write_text(folder / f"{name}.html", html_page(title, [table], notes))


def _metrics(rows: Sequence[Mapping[str, str]]) -> Table:
    return Table("", HEADER, [[row[column.replace(" ", "_")] for column in HEADER] for row in rows])


def _detector_classes(metrics: Mapping[str, Any]) -> Table:
    teacher = metrics["ema_teacher"]
    student = metrics["student"]
    boxes = teacher["boxes_per_class"]
    rows = [
        [
            name,
            str(boxes[name]),
            _ap50_with_interval(teacher, name),
            number(student["per_class_AP50"].get(name)),
            number(teacher["per_class_AP"].get(name)),
            number(teacher["per_class_voc_AP40"].get(name)),
        ]
        for name in sorted(CATEGORY_NAMES, key=lambda name: -boxes.get(name, 0))
        if boxes.get(name)
    ]
    header = ("class", "test boxes", "AP50, EMA teacher", "AP50, student", "AP, EMA teacher", "VOC AP40, EMA teacher")
    notes = "Brackets: 95 % interval over images. Classes without a test box are left out; read nothing into a handful."
    return Table(notes, header, rows)


def _ap50_with_interval(scores: Mapping[str, Any], name: str) -> str:
    interval = scores.get("per_class_AP50_intervals", {}).get(name)
    brackets = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    return f"{number(scores['per_class_AP50'].get(name))}{brackets}"


def _report_scores(metrics: Mapping[str, Any]) -> Table:
    systems = {key: name for key, name in SYSTEMS.items() if isinstance(metrics.get(key), dict)}
    rows = []
    for metric in METRICS.values():
        if metric.group is Group.WORDS:
            own, *others = (metrics[system].get(metric.key) for system in systems)
            rows.append([metric.heading, with_interval(metric, own, metrics), *map(metric.text, others)])
    protocol = ", ".join(f"{key} {value}" for key, value in metrics["protocol"].items())
    return Table(f"Brackets: 95 % interval over studies. {protocol}.", ("metric", *systems.values()), rows)


def _report_classes(metrics: Mapping[str, Any]) -> Table:
    by_class = metrics["clinical"][HEADLINE]["generated"]["per_class"]
    rows = [
        [name, str(row["true"]), str(row["claimed"]), *(number(row[key]) for key in ("precision", "recall", "f1"))]
        for name, row in sorted(by_class.items(), key=lambda item: -item[1]["true"])
    ]
    heading = "Classes that the generated report names, against those that the reference names; doubtful mentions included."
    return Table(heading, ("class", "in references", "in generated", "precision", "recall", "F1"), rows)


def _pseudo_boxes(counts: Mapping[str, Any]) -> Table:
    boxes = counts["build_annotation"]["boxes"]
    below = boxes["below_threshold_by_class"]
    kept = boxes["kept_by_class"]
    rows = [[name, f"{kept.get(name, 0):,}", f"{below.get(name, 0):,}"] for name in CATEGORY_NAMES]
    rows.sort(key=lambda row: -kept.get(row[0], 0))
    other_views = f"{boxes['on_other_views']:,} on images of other views, " if boxes.get("on_other_views") else ""
    heading = (
        f"{boxes['predicted']:,} predicted, {boxes['kept']:,} kept, {boxes['below_threshold']:,} below the threshold of their "
        f"class, {boxes['on_images_without_report']:,} on images without a report, {other_views}"
        f"{boxes['above_max_boxes']:,} above the most boxes per image."
    )
    return Table(heading, ("class", "kept", "below the threshold"), rows)
