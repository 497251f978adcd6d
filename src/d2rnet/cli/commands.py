"""The sub-commands: one a Snakemake rule, plus a few for people. What each does, and which options it takes.

A command names the function that does it as ``module:function``; it is imported only when the command runs, so that ``--help``
is quick and the data stage runs without torch.
"""

import argparse
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d2rnet.settings import Section


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
    """One sub-command.

    Attributes:
        summary: what it does.
        target: the ``module:function`` that does it.
        section: ``module:class`` of the settings that it reads; "" for none.
        options: its options.
        runtime: ``module:class`` of what it reads of section ``runtime``, an option per key; "" for none.
    """

    summary: str
    target: str
    section: str
    options: tuple[Option, ...]
    runtime: str = ""

    def settings_class(self) -> "type[Section] | None":
        """Import the section of its settings; None where it reads none."""
        return _load(self.section)

    def runtime_class(self) -> "type[Section] | None":
        """Import the section of its runtime options; None where it has none."""
        return _load(self.runtime)


def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute) if name else None


WORKERS = Option("workers", "processes working in parallel", "int", 1)
DEVICE = Option("device", "auto, cpu, cuda or cuda:N; auto takes a GPU if there is one", "text", "auto")
PROCESSES = Option("processes", "processes that share each batch; with GPUs one a GPU", "int", 1)
SHARD = Option("shard", "which shard to do, 1..N", "int", 1)
SHARDS = Option("shards", "number of shards N", "int", 1)
OUTPUT = Option("output", "folder for the results")
QUARANTINE = Option("quarantine", "quarantine.jsonl of verify-inputs: images to leave out")
CONVERTED = Option("shards", "JSON lines file of every shard of convert-images-shard", "paths")
UNLABELLED = Option("unlabelled", "COCO json of the report source's images (resources/cxr/unlabelled.json)")
ANNOTATION = Option("annotation", "annotation.json of build-annotation")
IMAGE_ROOT = Option("image-root", "folder that image_path in annotation.json is relative to")
WORK = Option("work", "folder for checkpoints and other state needed to resume")
JSON = Option("json", "show a JSON document instead of text", "flag")

COMMANDS: dict[str, Command] = {
    "make-demo-cohort": Command(
        "Draw the synthetic demo cohort: VinDr-CXR and MIMIC-CXR-JPG layouts, boxes, readers, reports.",
        "d2rnet.cxr.demo.cohort:make_demo_cohort",
        "d2rnet.cxr.demo.settings:DemoSettings",
        (OUTPUT, WORKERS),
    ),
    "verify-inputs": Command(
        "Check every configured root, table, count and image header before anything costly runs.",
        "d2rnet.cxr.conversion.verify:verify_inputs",
        "d2rnet.cxr.conversion.settings:DataSettings",
        (OUTPUT, WORKERS),
    ),
    "convert-images-shard": Command(
        "Convert one shard of a list of radiographs to 8-bit PNG; goes on where it was interrupted.",
        "d2rnet.cxr.conversion.image_shards:convert_images_shard",
        "d2rnet.cxr.conversion.settings:ConversionSettings",
        (
            Option("images", "labelled_images.jsonl or unlabelled_images.jsonl of verify-inputs"),
            Option("folder", "folder that file_name in the list is relative to"),
            SHARD,
            SHARDS,
            Option("output", "JSON lines file to write, with what came of each image"),
            WORKERS,
        ),
    ),
    "convert-labelled": Command(
        "Convert the tables of the labelled source to COCO json (train, val, test).",
        "d2rnet.cxr.conversion.convert_labelled:convert_labelled",
        "d2rnet.cxr.conversion.settings:LabelledConversionSettings",
        (QUARANTINE, CONVERTED, OUTPUT),
    ),
    "convert-unlabelled": Command(
        "Convert the tables of the report source (and extra unlabelled images) to COCO json and reports.jsonl.",
        "d2rnet.cxr.conversion.convert_unlabelled:convert_unlabelled",
        "d2rnet.cxr.conversion.settings:DataSettings",
        (QUARANTINE, CONVERTED, OUTPUT),
    ),
    "train-detector": Command(
        "Train the Unbiased Teacher v2 detector on labelled and unlabelled images; resumes by itself.",
        "d2rnet.cxr.detector.trainer:train_detector",
        "d2rnet.cxr.detector.settings:TrainDetectorSettings",
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
        "d2rnet.cxr.detector.settings:DetectorRuntime",
    ),
    "evaluate-detector": Command(
        "Score student and EMA teacher on the labelled test split (AP, FROC, AUROC with intervals, figures).",
        "d2rnet.cxr.detector.evaluate:evaluate_detector",
        "d2rnet.cxr.detector.settings:EvaluateDetectorSettings",
        (
            Option("labelled-test", "COCO json of the test split"),
            Option("model", "folder of train-detector: both networks' weights, config.yaml and metrics.jsonl"),
            OUTPUT,
            DEVICE,
        ),
        "d2rnet.runs.settings:LoaderRuntime",
    ),
    "predict-boxes-shard": Command(
        "Draw pseudo boxes with the EMA teacher on one shard of the report source's images.",
        "d2rnet.cxr.detector.predict:predict_boxes",
        "d2rnet.cxr.detector.settings:PredictionSettings",
        (
            UNLABELLED,
            Option("model", "folder of train-detector"),
            SHARD,
            SHARDS,
            Option("output", "COCO results json to write"),
            DEVICE,
        ),
        "d2rnet.runs.settings:LoaderRuntime",
    ),
    "predict-boxes": Command(
        "Join the shards of predict-boxes-shard into one COCO results file; overlapping or unknown images are an error.",
        "d2rnet.cxr.detector.results:gather_boxes",
        "",
        (
            UNLABELLED,
            Option("shards", "COCO results json of every shard", "paths"),
            Option("output", "COCO results json to write"),
        ),
    ),
    "calibrate-thresholds": Command(
        "Choose a score threshold a class for a wanted precision, on the labelled validation split.",
        "d2rnet.cxr.detector.calibrate:calibrate_thresholds",
        "d2rnet.cxr.detector.settings:CalibrateThresholdsSettings",
        (
            Option("labelled-val", "COCO json of the validation split; images of another split are an error"),
            Option("model", "folder of train-detector"),
            OUTPUT,
            DEVICE,
        ),
        "d2rnet.runs.settings:LoaderRuntime",
    ),
    "build-annotation": Command(
        "Filter pseudo boxes by score and join them with reports into annotation.json (original pixels).",
        "d2rnet.cxr.annotation.build:build_annotation",
        "d2rnet.cxr.annotation.settings:AnnotationSettings",
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
        "d2rnet.report.text.vocabulary:build_vocabulary",
        "d2rnet.report.settings:TextSettings",
        (ANNOTATION, OUTPUT),
    ),
    "train-report-model": Command(
        "Train D2R-Net on annotation.json; resumes by itself.",
        "d2rnet.cxr.report_model.trainer:train_report_model",
        "d2rnet.cxr.report_model.settings:TrainReportModelSettings",
        (
            ANNOTATION,
            Option("vocabulary", "vocabulary.json"),
            IMAGE_ROOT,
            WORK,
            OUTPUT,
            DEVICE,
            PROCESSES,
        ),
        "d2rnet.report.settings:ReportRuntime",
    ),
    "generate-reports-shard": Command(
        "Write the findings of one shard of the test split by beam search.",
        "d2rnet.cxr.report_model.generate:generate_reports",
        "d2rnet.report.settings:GenerationSettings",
        (
            ANNOTATION,
            IMAGE_ROOT,
            Option("model", "folder of train-report-model"),
            SHARD,
            SHARDS,
            Option("output", "JSON lines file to write"),
            DEVICE,
        ),
        "d2rnet.runs.settings:LoaderRuntime",
    ),
    "generate-reports": Command(
        "Join the shards of generate-reports-shard into one file, in the order of annotation.json.",
        "d2rnet.cxr.report_model.generate:gather_reports",
        "",
        (
            ANNOTATION,
            Option("shards", "JSON lines file of every shard", "paths"),
            Option("output", "JSON lines file to write"),
        ),
    ),
    "retrieve-reports": Command(
        "Answer each generated report's images with the report of the most similar training images: a baseline.",
        "d2rnet.cxr.report_model.retrieval:retrieve_reports",
        "d2rnet.evaluation.settings:RetrievalSettings",
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
        "d2rnet.evaluation.settings:NoBoxSettings",
        (
            Option("generated", "test.jsonl of generate-reports"),
            ANNOTATION,
            Option("model", "folder of train-report-model; its text protocol names the scores"),
            Option("nearest", "test.jsonl of retrieve-reports, to stand beside the scores", "paths", ()),
            OUTPUT,
        ),
        "d2rnet.evaluation.settings:MeteorRuntime",
    ),
    "render-gallery": Command(
        "Show radiographs with boxes, and generated beside reference findings, on one static page.",
        "d2rnet.gallery.render:render_gallery",
        "d2rnet.gallery.settings:PageSettings",
        (
            Option("generated", "test.jsonl of generate-reports"),
            ANNOTATION,
            Option("scores", "folder of evaluate-reports: metrics.json and per_report.jsonl"),
            IMAGE_ROOT,
            Option("true-boxes", "true boxes to draw: truth.jsonl of the demo cohort or a COCO json", optional=True),
            Option("output", "folder of index.html"),
            WORKERS,
        ),
    ),
    "compare": Command(
        "Compare the reports of two runs: paired bootstrap over studies of every score; show where they differ most.",
        "d2rnet.gallery.comparison:compare_and_show",
        "d2rnet.gallery.settings:CompareSettings",
        (
            Option("run_a", "folder of a run, or a JSON lines file of reports", positional=True),
            Option("run_b", "folder of the other run, or a JSON lines file of reports", positional=True),
            Option("studies", "same: both must hold the same entries; common: compare those that both hold", "text", "same"),
            Option("annotation", "annotation.json of both runs; default: what their records name", optional=True),
            Option("image-root", "folder that image_path is relative to; default: likewise", optional=True),
            Option("gallery-studies", "entries in the gallery, those that differ most; 0: no gallery", "int", 50),
            Option("gallery-metric", "score whose difference is meant, such as bleu_4 or cider", "text", "rouge_l"),
            Option("output", "folder for comparison.json, comparison.md and gallery/", "path", Path("results/cxr/compare")),
            WORKERS,
        ),
        "d2rnet.evaluation.settings:MeteorRuntime",
    ),
    "oracle-annotation": Command(
        "Put the lesions that the demo cohort drew in place of the pseudo boxes: what a perfect detector would give.",
        "d2rnet.cxr.annotation.oracle:oracle_annotation",
        "",
        (ANNOTATION, Option("truth", "truth.jsonl of make-demo-cohort"), OUTPUT),
    ),
    "ablation": Command(
        "Score the cells of an ablation (arms by seeds) on the same studies, with intervals, beside baselines.",
        "d2rnet.cxr.ablation:ablation",
        "d2rnet.evaluation.settings:ScoreSettings",
        (
            Option("cells", "folders <arm>/seed_<n> with reports.jsonl and metrics.jsonl", "paths"),
            ANNOTATION,
            Option("design", "YAML file of the arms"),
            Option("nearest", "test.jsonl of retrieve-reports, to stand beside the arms", "paths", ()),
            Option("truth", "truth.jsonl of make-demo-cohort, for grounding", "paths", ()),
            Option("oracle", "annotation.json of the arms with oracle boxes", "paths", ()),
            OUTPUT,
        ),
        "d2rnet.evaluation.settings:MeteorRuntime",
    ),
    "draw-figures": Command(
        "Draw curves of both trainings, pseudo-box statistics and sample readings of a run; lay out its tables.",
        "d2rnet.cxr.summary.run_figures:draw_figures",
        "",
        (
            Option("detector-history", "metrics.jsonl of train-detector"),
            Option("report-model", "folder of train-report-model"),
            ANNOTATION,
            Option("generated", "test.jsonl of generate-reports"),
            IMAGE_ROOT,
            Option("summary", "summary.json of summarize"),
            Option("samples", "readings to draw, the first of the test split; 24 at most", "int", 6),
            OUTPUT,
        ),
    ),
    "summarize": Command(
        "Put all figures of a run in one table (terminal, Markdown, JSON), and scores into model cards.",
        "d2rnet.cxr.summary.summary:summarize",
        "",
        (
            Option("detector-metrics", "metrics.json of evaluate-detector"),
            Option("report-metrics", "metrics.json of evaluate-reports"),
            Option("counts", "counts.json files of the earlier rules", "paths"),
            Option("models", "folders of train-detector and train-report-model, for model cards with scores", "paths", ()),
            OUTPUT,
        ),
    ),
    "read": Command(
        "Read radiographs with trained models: findings, boxes, pictures and pages.",
        "d2rnet.reading.batch:read_paths",
        "",
        (
            Option("path", "DICOM, PNG or JPG files, and folders of them", "paths", positional=True),
            Option("detector", "folder of train-detector", "path", Path("results/cxr/train_detector")),
            Option("report-model", "folder of train-report-model", "path", Path("results/cxr/train_report_model")),
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
        "d2rnet.report.decoder.r2gen_import:import_r2gen",
        "",
        (
            Option("checkpoint", "PyTorch file with the state dict", positional=True),
            Option("out", "folder to write"),
            Option("num-heads", "attention heads of the model", "int", 8),
            Option("memory-heads", "attention heads of its relational memory", "int", 8),
        ),
    ),
    "clean": Command(
        "List what a run may lose (work folders, caches, joined shards), or delete it; nothing that is in use or unknown.",
        "d2rnet.cli.clean:clean",
        "",
        (
            Option("run", "folder of the run, which holds work/ and results/", default=Path()),
            Option("kinds", "stale, finished, caches, shards, with commas between them", "text", "stale,caches,shards"),
            Option("delete", "delete; without it nothing is changed", "flag"),
            JSON,
        ),
    ),
    "doctor": Command(
        "Say what this machine has (Python, torch, CUDA, detectron2 and its origin, codecs, Java, disk), or how a run stands.",
        "d2rnet.cli.doctor:doctor",
        "",
        (
            Option("run", "folder of a run: say what is complete, what resumes from where and what to type", optional=True),
            JSON,
        ),
    ),
    "migrate-config": Command(
        "Write a configuration of an earlier version in today's keys, its comments kept.",
        "d2rnet.cli.migrate:migrate_config",
        "",
        (
            Option("file", "YAML file for --configfile of Snakemake; stays as it is", positional=True),
            Option("output", "file to write (default: <name>.new.yaml beside it)", optional=True),
        ),
    ),
    "completion": Command(
        "Print a script that makes a shell complete sub-commands, options and files.",
        "d2rnet.cli.completion:completion",
        "",
        (Option("shell", "bash, zsh or fish", "text", positional=True),),
    ),
}  # fmt: skip

# What people call; every other sub-command belongs to the rule of its name.
FOR_PEOPLE = frozenset({"clean", "compare", "completion", "doctor", "import-r2gen", "migrate-config", "read"})
