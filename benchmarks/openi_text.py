"""Real report text through vocabulary, training and scoring: the language model alone on the findings of Open-i.

Every entry has the same blank image and no box, so all that can be learnt is how reports are written. Studies are split by id
(70 / 10 / 20 %). Many reports are word for word alike; held-out ones that the training split holds too are left out, so that
perplexity is that of new texts. Perplexity is exp(mean negative log-likelihood a token), <unk> and end token counted; beside
it that of a unigram model (add-one smoothing) with the same vocabulary.

Usage: python benchmarks/openi_text.py FOLDER [--run DIR] [--epochs 8] [--set KEY=VALUE ...]
FOLDER holds NLMCXR_reports.tgz or the folder ecgen-radiology.
"""

import argparse
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from d2rnet.cli.given_settings import given_settings
from d2rnet.cxr.report_model.dataset import ReportDataset, image_sources
from d2rnet.cxr.report_model.front_end import D2RNET, categories_of
from d2rnet.cxr.report_model.generate import generate_reports
from d2rnet.cxr.report_model.image_cache import DirectImages
from d2rnet.cxr.report_model.settings import ReportSettings, TrainReportModelSettings
from d2rnet.cxr.report_model.trainer import train_report_model
from d2rnet.cxr.sources.openi_reports import read_reports
from d2rnet.cxr.sources.settings import ReportSourceSettings
from d2rnet.evaluation.captioning import evaluate_reports
from d2rnet.evaluation.settings import NoBoxSettings
from d2rnet.figures.tables import markdown_table
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import read_json, read_jsonl, write_json
from d2rnet.files.problems import Problems
from d2rnet.files.splits import three_way_split
from d2rnet.report.annotation_file import SPLITS, load_annotation, write_annotation
from d2rnet.report.generation import gather_reports
from d2rnet.report.model_files import load_model
from d2rnet.report.text.protocols import clean_report
from d2rnet.report.text.vocabulary import UNK_ID, Vocabulary, build_vocabulary, load_vocabulary
from d2rnet.report.validation import validate_model
from d2rnet.runs.provenance import code_version, hardware
from d2rnet.settings import merge
from d2rnet.training.task import make_loader

BLANK = "blank.png"
OVERLAY: dict[str, Any] = {
    "model": {
        "lesion_branch": "none",
        "backbone_width": 64,
        "backbone_weights": None,
        "input_size_px": 32,
        "d_model": 128,
        "d_ff": 256,
    },
    "training": {"pointer_weight": 0.0, "selection": "loss", "validate_every_epochs": 1, "learning_rate": 1.0e-3},
    "generation": {"beam_size": 3},
}


def write_entries(folder_of_reports: Path, folder: Path, *, protocol: str) -> Counter[str]:
    """Write annotation.json and the blank image; return what was kept and left out."""
    reports, unreadable = read_reports(ReportSourceSettings(report_root=str(folder_of_reports)), Problems())
    findings = {name: report.sections["findings"] for name, report in reports.items() if report.sections.get("findings")}
    counts = Counter({"reports": len(reports), "unreadable": len(unreadable), "with findings": len(findings)})
    split_of = three_way_split(findings, seed=1)
    known = {clean_report(text, protocol) for name, text in findings.items() if split_of[name] == "train"}
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for name, text in findings.items():
        split = split_of[name]
        cleaned = clean_report(text, protocol)
        if not cleaned:
            counts["nothing left after cleaning"] += 1
        elif split != "train" and cleaned in known:
            counts[f"{split}, word for word in train"] += 1
        else:
            counts[split] += 1
            splits[split].append(
                {
                    "id": name,
                    "study_id": name,
                    "subject_id": name,
                    "image_path": [BLANK],
                    "split": split,
                    "report": text,
                    "height": 32,
                    "width": 32,
                    "boxes": [],
                    "scores": [],
                    "labels": [],
                }
            )
    write_annotation(folder / "annotation.json", splits)
    cv2.imwrite(str(folder / BLANK), np.full((32, 32), 128, dtype=np.uint8))
    return counts


def unigram_perplexity(vocabulary: Vocabulary, training: Sequence[str], held_out: Sequence[str], *, max_tokens: int) -> float:
    """Perplexity of held-out texts under the token frequencies of the training texts, with add-one smoothing."""
    training_ids, held_out_ids = (
        np.concatenate([vocabulary.encode(text, max_tokens=max_tokens)[1:] for text in texts])
        for texts in (training, held_out)
    )
    counts = np.bincount(training_ids, minlength=len(vocabulary)) + 1
    return float(np.exp(-np.log(counts / counts.sum())[held_out_ids].mean()))


def trained_perplexity(folder: Path, settings: ReportSettings) -> float:
    """Perplexity of the chosen epoch on the test split, which chose nothing."""
    loaded = load_model(folder / "model", torch.device("cpu"), D2RNET)
    entries = load_annotation(folder / "annotation.json")["test"]
    size_px = settings.model.input_size_px
    size = settings.training.batch_size
    max_tokens = settings.training.max_report_tokens
    dataset = ReportDataset(
        entries,
        DirectImages(image_sources(entries, folder), size_px=size_px),
        vocabulary=loaded.vocabulary,
        categories=categories_of(loaded),
        size_px=size_px,
        max_tokens=max_tokens,
    )
    order = list(range(len(entries)))
    batches = [order[start : start + size] for start in order[::size]]
    loader = make_loader(dataset, batches, dataset.collate, workers=0)
    scores = validate_model(loaded.model, loader, vocabulary=loaded.vocabulary, max_tokens=max_tokens, write_reports=False)
    return math.exp(scores["val_loss"])


def run(folder: Path, settings: ReportSettings) -> None:
    """Vocabulary, training, reports and scores in ``folder``; a stopped run goes on."""
    annotation = folder / "annotation.json"
    model = folder / "model"
    build_vocabulary(annotation=annotation, output=folder, settings=settings.text)
    train_report_model(
        annotation=annotation,
        vocabulary=folder / "vocabulary.json",
        image_root=folder,
        work=folder / "work",
        output=model,
        device="auto",
        settings=TrainReportModelSettings(text=settings.text, model=settings.model, training=settings.training),
    )
    shard = folder / "shard.jsonl"
    generate_reports(
        annotation=annotation,
        image_root=folder,
        model=model,
        shard=1,
        shards=1,
        output=shard,
        device="auto",
        settings=settings.generation,
    )
    gather_reports(annotation=annotation, shards=[shard], output=folder / "test.jsonl", settings=settings.generation)
    evaluate_reports(
        generated=folder / "test.jsonl",
        annotation=annotation,
        model=model,
        nearest=[],
        output=folder / "scores",
        settings=NoBoxSettings(),
    )


def report(folder: Path, settings: ReportSettings, counts: Counter[str], seconds: float) -> tuple[str, dict[str, Any]]:
    """Lay out what was learnt; return Markdown and the same as an object."""
    vocabulary = load_vocabulary(folder / "vocabulary.json")
    texts = {
        split: [entry["report"] for entry in entries] for split, entries in load_annotation(folder / "annotation.json").items()
    }
    history = list(read_jsonl(folder / "model" / "metrics.jsonl"))
    metrics = read_json(folder / "scores" / "metrics.json")
    document = {
        "counts": dict(counts),
        "tokens": len(vocabulary),
        "unknown_share": vocabulary.counts[UNK_ID] / sum(vocabulary.counts),
        "xxxx_counted": vocabulary.counts[vocabulary.ids["xxxx"]] if "xxxx" in vocabulary.ids else 0,
        "unigram_perplexity": unigram_perplexity(
            vocabulary, texts["train"], texts["val"], max_tokens=settings.training.max_report_tokens
        ),
        "test_perplexity": trained_perplexity(folder, settings),
        "test_unigram_perplexity": unigram_perplexity(
            vocabulary, texts["train"], texts["test"], max_tokens=settings.training.max_report_tokens
        ),
        "epochs": [
            {"epoch": line["epoch"], "train": math.exp(line["train_loss"]), "val": math.exp(line["val_loss"])}
            for line in history
        ],
        "scores": metrics["scores"],
        "report_written": next(read_jsonl(folder / "test.jsonl"))["hypothesis"],
        "facts": {"minutes": round(seconds / 60, 1), "machine": hardware()["processor"], "commit": code_version()["commit"]},
    }
    rows = [[str(row["epoch"]), f"{row['train']:.1f}", f"{row['val']:.1f}"] for row in document["epochs"]]
    lines = [
        f"{', '.join(f'{number} {name}' for name, number in counts.items())}.",
        f"Vocabulary: {document['tokens']} tokens; {100 * document['unknown_share']:.2f} % of the training tokens are <unk>; "
        f"'xxxx' occurs {document['xxxx_counted']} times.",
        f"Perplexity, test split: {document['test_perplexity']:.1f} (unigram {document['test_unigram_perplexity']:.1f}). "
        f"Validation split, which chooses the epoch (unigram {document['unigram_perplexity']:.1f}):",
        "",
        *markdown_table(["epoch", "perplexity, training (dropout on)", "perplexity, validation"], rows),
        "",
        f"Every report written: {document['report_written']}",
        "Scores: " + ", ".join(f"{key} {value:.3f}" for key, value in metrics["scores"].items() if value is not None) + ".",
        ", ".join(f"{key} {value}" for key, value in document["facts"].items()) + ".",
    ]
    return "\n".join(lines) + "\n", document


def main() -> None:
    """Write the entries, run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", type=Path, help="folder that holds NLMCXR_reports.tgz or ecgen-radiology")
    parser.add_argument("--run", type=Path, default=Path("openi_text"), help="folder to work in")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of section report")
    args = parser.parse_args()
    args.run.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    overlay = merge(OVERLAY, {"training": {"epochs": args.epochs}})
    settings = given_settings(ReportSettings, [], json.dumps(overlay), args.set)
    start = time.monotonic()
    counts = write_entries(args.reports, args.run, protocol=settings.text.protocol)
    run(args.run, settings)
    text, document = report(args.run, settings, counts, time.monotonic() - start)
    write_json(args.run / "openi_text.json", document)
    write_text(args.run / "openi_text.md", text)
    print(text, end="")


if __name__ == "__main__":
    main()
