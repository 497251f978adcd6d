"""Command line: one sub-command per Snakemake rule, plus a few for people. Nothing else in the package parses arguments.

A sub-command parses, validates its settings against the schema and calls one function with explicit keyword arguments. The
function's module is imported only then, so that ``--help`` is quick and the data stage runs without torch.

Exit codes: 0 done; 2 bad input or configuration (message, no traceback); 3 some inputs of several are bad, the others are
done; 1 anything unexpected (traceback).
"""

import argparse
import errno
import importlib
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import d2rnet
from d2rnet.errors import D2RNetError
from d2rnet.settings import parse_settings, section_lines

log = logging.getLogger("d2rnet")


@dataclass(frozen=True)
class Option:
    """One command-line option; positional ones are given without their name.

    ``kind`` is path, paths, int, float, text, or flag (no value; true if given).
    """

    flag: str
    help: str
    kind: str = "path"
    default: Any = None
    positional: bool = False
    optional: bool = False

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add this option to a parser; options without a default are required unless they are marked optional."""
        types: dict[str, Any] = {"path": Path, "paths": Path, "int": int, "float": float, "text": str}
        if self.kind == "flag":
            parser.add_argument(f"--{self.flag}", action="store_true", help=self.help)
            return
        nargs = "+" if self.kind == "paths" else None
        if self.positional:
            parser.add_argument(self.flag, type=types[self.kind], nargs=nargs, help=self.help)
            return
        shown = f"{self.help} (default {self.default})" if self.default else self.help
        parser.add_argument(
            f"--{self.flag}",
            type=types[self.kind],
            nargs=nargs,
            required=self.default is None and not self.optional,
            default=self.default,
            help=shown,
            metavar={"path": "PATH", "paths": "PATH", "int": "N", "float": "X", "text": "TEXT"}[self.kind],
        )


@dataclass(frozen=True)
class Command:
    """One sub-command: what it does, the ``module:function`` that does it, its settings section and its options."""

    summary: str
    target: str
    section: str
    options: tuple[Option, ...]


WORKERS = Option("workers", "processes working in parallel", "int", 1)
DEVICE = Option("device", "auto, cpu, cuda or cuda:N; auto takes a GPU if there is one", "text", "auto")
PROCESSES = Option("processes", "processes that share each batch; with GPUs one a GPU", "int", 1)
SHARD = Option("shard", "which shard to do, 1..N", "int", 1)
SHARDS = Option("shards", "number of shards N", "int", 1)
OUTPUT = Option("output", "folder for the results")
QUARANTINE = Option("quarantine", "quarantine.jsonl of verify-inputs: images to leave out")
UNLABELLED = Option("unlabelled", "COCO json of the report source's images (resources/unlabelled.json)")
ANNOTATION = Option("annotation", "annotation.json of build-annotation")
IMAGE_ROOT = Option("image-root", "folder that image_path in annotation.json is relative to")
WORK = Option("work", "folder for checkpoints and other state needed to resume")

COMMANDS: dict[str, Command] = {
    "make-demo-cohort": Command(
        "Draw the synthetic demo cohort: VinDr-CXR and MIMIC-CXR-JPG layouts, boxes, readers, reports.",
        "d2rnet.data.demo:make_demo_cohort",
        "data.demo",
        (OUTPUT, WORKERS),
    ),
    "verify-inputs": Command(
        "Check every configured root, table, count and image header before anything costly runs.",
        "d2rnet.data.verify:verify_inputs",
        "data",
        (OUTPUT, WORKERS),
    ),
    "convert-labelled": Command(
        "Convert the labelled source to COCO json (train, val, test) and 8-bit PNG.",
        "d2rnet.data.convert_labelled:convert_labelled",
        "data",
        (QUARANTINE, OUTPUT, WORKERS),
    ),
    "convert-unlabelled": Command(
        "Convert the report source (and extra unlabelled images) to COCO json, 8-bit PNG and reports.jsonl.",
        "d2rnet.data.convert_unlabelled:convert_unlabelled",
        "data",
        (QUARANTINE, OUTPUT, WORKERS),
    ),
    "train-detector": Command(
        "Train the Unbiased Teacher v2 detector on labelled and unlabelled images; resumes by itself.",
        "d2rnet.detector.trainer:train_detector",
        "detector",
        (
            Option("labelled-train", "COCO json to train on"),
            Option("labelled-val", "COCO json of the validation split, for selection only"),
            Option("labelled-test", "COCO json of the test split; only its ids are read, to prove that none is trained on"),
            UNLABELLED,
            WORK,
            OUTPUT,
            DEVICE,
            PROCESSES,
        ),
    ),
    "evaluate-detector": Command(
        "Score student and EMA teacher on the labelled test split (AP, FROC, AUROC with intervals, figures).",
        "d2rnet.evaluation.detection:evaluate_detector",
        "detector",
        (
            Option("labelled-test", "COCO json of the test split"),
            Option("model", "folder of train-detector: both networks' weights, config.yaml and metrics.jsonl"),
            OUTPUT,
            DEVICE,
        ),
    ),
    "predict-boxes-shard": Command(
        "Draw pseudo boxes with the EMA teacher on one shard of the report source's images.",
        "d2rnet.detector.predict:predict_boxes",
        "detector.prediction",
        (
            UNLABELLED,
            Option("model", "folder of train-detector"),
            SHARD,
            SHARDS,
            Option("output", "COCO results json to write"),
            DEVICE,
        ),
    ),
    "predict-boxes": Command(
        "Join the shards of predict-boxes-shard into one COCO results file; overlapping or unknown images are an error.",
        "d2rnet.detector.results:gather_boxes",
        "",
        (
            UNLABELLED,
            Option("shards", "COCO results json of every shard", "paths"),
            Option("output", "COCO results json to write"),
        ),
    ),
    "calibrate-thresholds": Command(
        "Choose a score threshold a class for a wanted precision, on the labelled validation split.",
        "d2rnet.evaluation.threshold_calibration:calibrate_thresholds",
        "detector",
        (
            Option("labelled-val", "COCO json of the validation split; images of another split are an error"),
            Option("model", "folder of train-detector"),
            OUTPUT,
            DEVICE,
        ),
    ),
    "build-annotation": Command(
        "Filter pseudo boxes by score and join them with reports into annotation.json (original pixels).",
        "d2rnet.annotation.build:build_annotation",
        "annotation",
        (
            UNLABELLED,
            Option("reports", "reports.jsonl of convert-unlabelled"),
            Option("predictions", "COCO results json of every shard", "paths"),
            Option("thresholds", "thresholds.json of calibrate-thresholds, for 'thresholds: calibrated'", optional=True),
            OUTPUT,
        ),
    ),
    "build-vocabulary": Command(
        "Build the vocabulary from the training reports.",
        "d2rnet.report.vocabulary:build_vocabulary",
        "report.text",
        (ANNOTATION, OUTPUT),
    ),
    "train-report-model": Command(
        "Train D2R-Net on annotation.json; resumes by itself.",
        "d2rnet.report.trainer:train_report_model",
        "report",
        (
            ANNOTATION,
            Option("vocabulary", "vocabulary.json"),
            IMAGE_ROOT,
            WORK,
            OUTPUT,
            DEVICE,
            PROCESSES,
        ),
    ),
    "generate-reports-shard": Command(
        "Write the findings of one shard of the test split by beam search.",
        "d2rnet.report.generate:generate_reports",
        "report.generation",
        (
            ANNOTATION,
            IMAGE_ROOT,
            Option("model", "folder of train-report-model"),
            SHARD,
            SHARDS,
            Option("output", "JSON lines file to write"),
            DEVICE,
        ),
    ),
    "generate-reports": Command(
        "Join the shards of generate-reports-shard into one file, in the order of annotation.json.",
        "d2rnet.report.generate:gather_reports",
        "",
        (
            ANNOTATION,
            Option("shards", "JSON lines file of every shard", "paths"),
            Option("output", "JSON lines file to write"),
        ),
    ),
    "retrieve-reports": Command(
        "Answer each generated report's images with the report of the most similar training images: a baseline.",
        "d2rnet.evaluation.baselines:retrieve_reports",
        "evaluation",
        (
            Option("generated", "test.jsonl of generate-reports; names the entries"),
            ANNOTATION,
            IMAGE_ROOT,
            Option("model", "folder of train-report-model; gives image features and text protocol"),
            Option("output", "JSON lines file to write"),
            WORKERS,
            DEVICE,
        ),
    ),
    "evaluate-reports": Command(
        "Score generated reports (BLEU 1-4, METEOR, ROUGE-L, CIDEr, lesion F1) with intervals, beside baselines.",
        "d2rnet.evaluation.captioning:evaluate_reports",
        "evaluation",
        (
            Option("generated", "test.jsonl of generate-reports"),
            ANNOTATION,
            Option("model", "folder of train-report-model; its text protocol names the scores"),
            Option("nearest", "test.jsonl of retrieve-reports, to stand beside the scores", "paths", ()),
            OUTPUT,
        ),
    ),
    "compare": Command(
        "Compare the reports of two runs: paired bootstrap over studies of every score; show where they differ most.",
        "d2rnet.gallery.comparison:compare_and_show",
        "evaluation",
        (
            Option("run_a", "folder of a run, or a JSON lines file of reports", positional=True),
            Option("run_b", "folder of the other run, or a JSON lines file of reports", positional=True),
            Option("studies", "same: both must hold the same entries; common: compare those that both hold", "text", "same"),
            Option("annotation", "annotation.json of both runs, for boxes in the gallery", optional=True),
            Option("image-root", "folder that its image_path is relative to, for radiographs in the gallery", optional=True),
            Option("gallery-studies", "entries in the gallery, those that differ most; 0: no gallery", "int", 50),
            Option("gallery-metric", "score whose difference is meant, such as bleu_4 or cider", "text", "rouge_l"),
            Option("output", "folder for comparison.json, comparison.md and gallery/", "path", Path("results/compare")),
            WORKERS,
        ),
    ),
    "oracle-annotation": Command(
        "Put the lesions that the demo cohort drew in place of the pseudo boxes: what a perfect detector would give.",
        "d2rnet.annotation.oracle:oracle_annotation",
    "render-gallery": Command(
        "Show radiographs with boxes, and generated beside reference findings, on one static page.",
        "d2rnet.gallery.render:render_gallery",
        "evaluation.gallery",
        (
            Option("generated", "test.jsonl of generate-reports"),
            ANNOTATION,
            Option("scores", "folder of evaluate-reports: metrics.json and per_report.jsonl"),
            IMAGE_ROOT,
            Option("output", "folder of index.html"),
            WORKERS,
        ),
    ),
        "",
        (ANNOTATION, Option("truth", "truth.jsonl of make-demo-cohort"), OUTPUT),
    ),
    "ablation": Command(
        "Score the cells of an ablation (arms by seeds) on the same studies, with intervals, beside baselines.",
        "d2rnet.evaluation.ablation:ablation",
        "evaluation",
        (
            Option("cells", "folders <arm>/seed_<n> with reports.jsonl and metrics.jsonl", "paths"),
            ANNOTATION,
            Option("design", "YAML file of the arms"),
            Option("nearest", "test.jsonl of retrieve-reports, to stand beside the arms", "paths", ()),
            Option("truth", "truth.jsonl of make-demo-cohort, for grounding", "paths", ()),
            Option("oracle", "annotation.json of the arms with oracle boxes", "paths", ()),
            OUTPUT,
        ),
    ),
    "summarize": Command(
        "Put all figures of a run in one table: terminal, Markdown and JSON.",
        "d2rnet.evaluation.summary:summarize",
        "",
        (
            Option("detector-metrics", "metrics.json of evaluate-detector"),
            Option("report-metrics", "metrics.json of evaluate-reports"),
            Option("counts", "counts.json files of the earlier rules", "paths"),
            OUTPUT,
        ),
    ),
    "read": Command(
        "Read radiographs with trained models: findings, boxes, pictures and pages.",
        "d2rnet.reading.batch:read_paths",
        "",
        (
            Option("path", "DICOM, PNG or JPG files, and folders of them", "paths", positional=True),
            Option("detector", "folder of train-detector", "path", Path("results/train_detector")),
            Option("report-model", "folder of train-report-model", "path", Path("results/train_report_model")),
            Option("output", "folder to write to", "path", Path("readings")),
            DEVICE,
            Option("configfile", "configuration of the run, if the models lie without its run records", "paths", ()),
            Option("score-threshold", "least score of a box, 0 to 1 (default: those of the run)", "float", optional=True),
            Option("study", "all images are views of one study: boxes in each, findings of all together", "flag"),
            Option("coco", "write a COCO data set too: coco/data/, labels.json, results.json", "flag"),
            Option("json", "show JSON lines instead of text", "flag"),
        ),
    ),
    "import-r2gen": Command(
        "Take the decoder out of a checkpoint of R2Gen or of D2R-Net's released code; no pickled code is run.",
        "d2rnet.report.r2gen_import:import_r2gen",
        "",
        (
            Option("checkpoint", "PyTorch file with the state dict", positional=True),
            Option("out", "folder to write"),
            Option("num-heads", "attention heads of the model", "int", 8),
            Option("memory-heads", "attention heads of its relational memory", "int", 8),
        ),
    ),
    "doctor": Command(
        "Say what this machine has: Python, torch, CUDA, detectron2 and its origin, codecs, Java, disk.",
        "d2rnet.doctor:doctor",
        "",
        (),
    ),
}  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """Build the argument parser from the table of commands."""
    parser = argparse.ArgumentParser(
        prog="d2rnet",
        description="Chest radiographs: from box annotations to written reports. Research software, not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"d2rnet {d2rnet.__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        epilog = None
        if command.section:
            lines = "\n".join(f"  {line}" for line in section_lines(command.section))
            epilog = f"settings ({command.section} in config.yaml):\n{lines}"
        sub = subparsers.add_parser(
            name,
            help=command.summary,
            description=command.summary,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for option in command.options:
            option.add_to(sub)
        if command.section:
            sub.add_argument(
                "--settings", metavar="JSON|FILE", help="settings as a JSON object or a YAML file; rest: defaults"
            )
            sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting; may be repeated")
        sub.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads (default: the libraries' own)")
        sub.add_argument("--log", type=Path, metavar="FILE", help="write the log here too")
        sub.add_argument("--verbose", action="store_true", help="log debugging details")
        sub.add_argument("--quiet", action="store_true", help="log warnings and errors only")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one sub-command; return the exit code."""
    args = build_parser().parse_args(arguments)
    command = COMMANDS[args.command]
    set_up_logging(args.log, verbose=args.verbose, quiet=args.quiet)
    try:
        set_threads(args.threads)
        keywords = {option.flag.replace("-", "_"): getattr(args, option.flag.replace("-", "_")) for option in command.options}
        if command.section:
            keywords["settings"] = parse_settings(args.settings, args.set, command.section)
        module, function = command.target.split(":")
        result = getattr(importlib.import_module(module), function)(**keywords)
    except (D2RNetError, FileNotFoundError) as error:
        log.error("%s: %s", args.command, error)
        return 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT):
            log.exception("%s: unexpected error", args.command)
            return 1
        log.error("%s: %s. No half-written file was left; free space or mend access, then run again.", args.command, error)
        return 2
    except Exception:
        log.exception("%s: unexpected error", args.command)
        return 1
    return result if isinstance(result, int) else 0


def set_threads(threads: int) -> None:
    """Limit the threads of numerical libraries; must run before they are imported. 0 leaves their number alone.

    A waiting OpenMP thread spins for a moment, then sleeps. Measured on 2 cores, a training step of the demo's report
    model: on a quiet machine 0.17 s so, 0.35 s with threads that sleep at once; beside two busy processes 0.4 s so, up to
    3.5 s with threads that spin on.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    if threads > 0:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
            os.environ[name] = str(threads)


def set_up_logging(log_file: Path | None, *, verbose: bool = False, quiet: bool = False) -> None:
    """Send the log to standard error and, if given, to a file as well."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log_file, mode="w", encoding="utf-8"))
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers, force=True
    )
    logging.getLogger("d2rnet").setLevel(level)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.DEBUG if verbose else logging.ERROR)
