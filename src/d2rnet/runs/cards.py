"""Model and data cards: one page beside trained weights or converted data, written from the run record in the same folder.

Facts come from ``run.json`` and the weight files; what only people can know is left to be filled in. After Mitchell et al.,
Model Cards for Model Reporting, FAT* 2019, and Gebru et al., Datasheets for Datasets, CACM 2021.

Reads: run.json, hashes of weight files. Writes: model_card.md or data_card.md.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2rnet.files.atomic import write_text
from d2rnet.files.documents import read_json
from d2rnet.files.hashes import sha256_file

TO_FILL = "**to be filled in by you**"


@dataclass(frozen=True)
class _Kind:
    """What is the same for every card of a command.

    Attributes:
        file: name of the card.
        title: its heading.
        what: what lies beside it.
        weights: files whose hashes are listed, where they exist.
        sections: settings to be listed.
        metrics: where it is measured.
        limitations: sentences.
        to_fill: what only people can know.
    """

    file: str
    title: str
    what: str
    weights: tuple[str, ...]
    sections: tuple[str, ...]
    metrics: str
    limitations: tuple[str, ...]
    to_fill: tuple[str, ...]


_MODEL_TO_FILL = (
    "Owner and contact",
    "Licence of the weights, as the use agreements of the training data allow",
    "Population: hospitals, years, devices, age and sex of the patients",
    "Known failures by patient group, view or device",
    "Ethical approval",
)
_DATA_TO_FILL = (
    "Owner and contact",
    "Licence and use agreement of the source, and who may see the files",
    "Population: hospitals, years, devices, age and sex of the patients",
    "How the files were de-identified, burnt-in text included",
    "Ethical approval",
)
_MODEL_VERSIONS = ("python", "torch", "detectron2", "sal-detectron2", "lightning")
_DATA_VERSIONS = ("python", "numpy", "pydicom", "opencv-python-headless", "ensemble-boxes")
_MODEL_USE = (
    "Research on chest radiographs of adults, in views that the training data holds. Not a medical device: nothing that it "
    "writes may guide the care of a patient. Not meant for other body parts or modalities, nor for children."
)
_SCORED_CARDS = "`summarize` writes this card again with the scores of the test split, in `results/cxr/summarize/`"
ORIGIN_KEY = "origin"  # of a converter's run record: a line on the source and its terms
_KINDS = {
    "train-detector": _Kind(
        "model_card.md",
        "Model card: lesion detector",
        "Faster R-CNN for the 22 local labels of VinDr-CXR, trained on labelled and unlabelled radiographs by Unbiased "
        "Teacher v2 (Liu, Ma and Kira, CVPR 2022). `model_final.pth` is the EMA teacher, `student_final.pth` the student, "
        "`burn_in.pth` what both began as.",
        ("model_final.pth", "student_final.pth", "burn_in.pth"),
        ("model", "training"),
        "`results/cxr/evaluate_detector/metrics.json` (AP, FROC, AUROC with intervals, by class and by size of box). "
        f"{_SCORED_CARDS}",
        (
            "Scores are not probabilities; the reliability figure of evaluate_detector shows how far off they are.",
            "Classes with few training boxes are found badly; `resources/cxr/labelled/data_card.md` has the counts.",
            "Boxes of public sources carry the labelling habits of their readers.",
        ),
        _MODEL_TO_FILL,
    ),
    "train-report-model": _Kind(
        "model_card.md",
        "Model card: report model",
        "D2R-Net (Tang et al., J Imaging Inform Med 2025): writes the findings of a chest radiograph from the image and the "
        "boxes of the lesion detector. `model.safetensors`, `vocabulary.json` and `config.yaml` belong together.",
        ("model.safetensors",),
        ("text", "model", "training"),
        "`results/cxr/evaluate_reports/metrics.json` (BLEU, METEOR, ROUGE-L, CIDEr, lesion F1 with intervals, beside baselines). "
        f"{_SCORED_CARDS}",
        (
            "It writes fluent sentences whether they are true or not, and compares with earlier studies that it has not seen.",
            "It was trained on the boxes of one detector; other boxes shift what it writes.",
            "Its texts repeat phrases of the training reports, and may repeat what identifies a patient if those do.",
        ),
        _MODEL_TO_FILL,
    ),
    "import-r2gen": _Kind(
        "model_card.md",
        "Model card: imported report decoder",
        "The decoder of a checkpoint of R2Gen (Chen et al., EMNLP 2020) or of D2R-Net's released code, trained elsewhere: "
        "`decoder.safetensors` and `config.yaml`. `backbone.safetensors`, where it exists, is the image network.",
        ("decoder.safetensors", "backbone.safetensors"),
        (),
        "Nowhere in this workflow; scores that its authors published hold for their image network, vocabulary and test split",
        (
            "It writes fluent sentences whether they are true or not, and compares with earlier studies that it has not seen.",
            "Vocabulary and preprocessing are not in the checkpoint; with others than those of its training, words are wrong.",
            "Weights may repeat what identifies a patient if the training reports do.",
        ),
        ("Who trained it, on which data, with which vocabulary, preprocessing and image network", *_MODEL_TO_FILL),
    ),
    "convert-labelled": _Kind(
        "data_card.md",
        "Data card: labelled radiographs",
        "Chest radiographs as 8-bit PNG with boxes of 22 classes in COCO files, made from the source named below.",
        (),
        ("labelled", "conversion"),
        "`counts.json` beside this card; `resources/cxr/verify_inputs/summary.json` for the source as it came",
        (
            "Boxes of several readers were fused as the settings say; where readers disagree, that is a choice.",
            "`val` is a part of the source's training images. The test split is used once, for the final scores.",
            "Text that is burnt into images is still there; of the headers nothing but geometry was kept.",
        ),
        _DATA_TO_FILL,
    ),
    "convert-unlabelled": _Kind(
        "data_card.md",
        "Data card: radiographs with reports",
        "Chest radiographs as 8-bit PNG and one section of their reports, made from the sources named below: "
        "`unlabelled.json`, `unlabelled_images/` and `reports.jsonl` in the folder above.",
        (),
        ("reports", "extra_unlabelled", "conversion"),
        "`counts.json` beside this card; `resources/cxr/verify_inputs/summary.json` for the sources as they came",
        (
            "Reports are kept as written; they name earlier studies and facts that the image does not show.",
            "Splits are those of the source, or seeded; no patient is in two.",
            "Text that is burnt into images is still there; of the headers nothing but geometry and view was kept.",
        ),
        _DATA_TO_FILL,
    ),
}


def write_card(folder: Path, *, output: Path | None = None, scores: Sequence[str] = (), sources: Sequence[str] = ()) -> Path:
    """Write the card of the results in a folder, from the ``run.json`` that lies there.

    Args:
        folder: of train-detector, train-report-model, import-r2gen, convert-labelled or convert-unlabelled.
        output: file to write; None: ``model_card.md`` or ``data_card.md`` in ``folder``.
        scores: Markdown lines on scores, in place of where to find them.
        sources: Markdown lines on the training data, before its counts.

    Returns:
        The card.
    """
    record = read_json(folder / "run.json")
    kind = _KINDS[record["command"]]
    is_model = kind.file == "model_card.md"
    settings = {name: record["settings"][name] for name in kind.sections} if kind.sections else record["settings"]
    use = _MODEL_USE if is_model else "Training and evaluation of the models of this workflow, under the terms of the source."
    counts = {name: value for name, value in record["counts"].items() if name != "splits"}
    sections = {
        "Facts of the run": _table(("fact", "value"), [*_facts(record), *_weights(folder, kind.weights)]),
        "Data" if kind.sections else "Tensors": [
            *(sources or ([record[ORIGIN_KEY]] if ORIGIN_KEY in record else [])),
            "",
            *_table(("count", "value"), _flat(counts)),
            *_by_split(record["counts"].get("splits", {})),
        ],
        "Intended use": [use],
        "Limitations": [f"- {sentence}" for sentence in kind.limitations],
        "Scores": scores or [f"{kind.metrics}."],
        "Known to people only": [f"- {item}: {TO_FILL}" for item in kind.to_fill],
        "Settings": _table(("setting", "value"), _flat(settings)),
    }
    lines = [f"# {kind.title}", "", kind.what]
    for heading, content in sections.items():
        lines += ["", f"## {heading}", "", *content]
    target = output or folder / kind.file
    write_text(target, re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n")
    return target


def _facts(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    code, machine = record["code"], record["hardware"]
    changed = ", with changes that are in no commit" if code["dirty"] else ""
    yield "finished (UTC)", record["finished_utc"]
    yield "code", f"d2rnet {code['d2rnet']}, commit {code['commit'] or 'unknown'}{changed}"
    gpus = f", GPUs: {', '.join(machine['gpus'])}" if machine["gpus"] else ""
    yield "hardware", f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB{gpus}"
    for key in ("device", "processes", "iterations"):
        if key in record:
            yield key, record[key]
    if "selected" in record:
        chosen = (f"{name} {value:.4g}" for name, value in record["selected"].items() if name.startswith("val"))
        yield (
            "weights are those after",
            f"epoch {record['selected']['epoch']}, the best on validation data: {', '.join(chosen)}",
        )
    yield from ((f"seed: {name}", seed) for name, seed in record["seeds"].items())
    for name, file in record["inputs"].items():
        what = "SHA-256 of the sizes" if name == "images" else "SHA-256"
        yield f"input: {name}", f"{Path(file['file']).name}, {what} {file['sha256'][:16]}"
    for name in _MODEL_VERSIONS if _KINDS[record["command"]].weights else _DATA_VERSIONS:
        if name in record["versions"]:
            yield f"version: {name}", record["versions"][name]


def _weights(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        if (folder / name).is_file():
            yield f"weights: {name}", f"SHA-256 {sha256_file(folder / name)}"


def _by_split(splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lay out counts by split: a row a count, a column a split."""
    if not splits:
        return []
    columns = [dict(_flat(counts)) for counts in splits.values()]
    rows = [f"| {name} | {' | '.join(str(column.get(name, '')) for column in columns)} |" for name in columns[0]]
    return ["", f"| count | {' | '.join(splits)} |", "|---" * (len(columns) + 1) + "|", *rows]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted name and value of everything in nested dictionaries."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _table(header: Sequence[str], rows: Iterable[tuple[str, Any]]) -> list[str]:
    cells = [(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)) for name, value in rows]
    lines = [f"| {' | '.join(header)} |", "|---|---|"]
    return lines + [f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in cells]
