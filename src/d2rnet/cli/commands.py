"""The sub-commands: one per Snakemake rule, plus a few for people. What each does, and which options it takes.

A command names the function that does it as ``module:function``; it is imported only when the command runs, so that ``--help``
is quick and the data stage runs without torch.
"""

from pathlib import Path

from d2rnet.cli.ct_commands import CT_COMMANDS
from d2rnet.cli.cxr_commands import CXR_COMMANDS
from d2rnet.cli.export_commands import EXPORT_COMMANDS
from d2rnet.cli.options import ANNOTATION, IMAGE_ROOT, JSON, OUTPUT, WORKERS, Command, Option

COMMANDS: dict[str, Command] = {
    **CXR_COMMANDS,
    **CT_COMMANDS,
    "build-vocabulary": Command(
        "Build the vocabulary from the training reports.",
        "d2rnet.report.text.vocabulary:build_vocabulary",
        "d2rnet.cxr.report_model.settings:D2RNetTextSettings",
        (ANNOTATION, OUTPUT),
    ),
    "evaluate-reports": Command(
        "Score generated reports (BLEU 1-4, METEOR, ROUGE-L, CIDEr, lesion F1) with intervals, beside baselines.",
        "d2rnet.evaluation.captioning:evaluate_reports",
        "d2rnet.evaluation.settings:NoBoxSettings",
        (
            Option("generated", "test.jsonl of generate-reports", "input"),
            ANNOTATION,
            Option("model", "folder of train-report-model; its text protocol names the scores", "input"),
            Option("nearest", "test.jsonl of retrieve-reports, to stand beside the scores", "inputs", ()),
            OUTPUT,
        ),
        "d2rnet.evaluation.settings:MeteorRuntime",
    ),
    "render-gallery": Command(
        "Show radiographs with boxes, and generated beside reference findings, on one static page.",
        "d2rnet.gallery.render:render_gallery",
        "d2rnet.gallery.settings:PageSettings",
        (
            Option("generated", "test.jsonl of generate-reports", "input"),
            ANNOTATION,
            Option("scores", "folder of evaluate-reports: metrics.json and per_report.jsonl", "input"),
            IMAGE_ROOT,
            Option("true-boxes", "true boxes to draw: truth.jsonl of the demo cohort or a COCO json", "input", optional=True),
            Option("output", "folder of index.html"),
            WORKERS,
        ),
    ),
    "compare": Command(
        "Compare the reports of two runs: paired bootstrap of every score, by study or patient; show where they differ most.",
        "d2rnet.gallery.comparison:compare_and_show",
        "d2rnet.gallery.settings:CompareSettings",
        (
            Option("run_a", "folder of a run, or a JSON lines file of reports", "input", positional=True),
            Option("run_b", "folder of the other run, or a JSON lines file of reports", "input", positional=True),
            Option("studies", "same: both must hold the same entries; common: compare those that both hold", "text", "same"),
            Option("modality", "what both are of: cxr, ct, or auto: as their records say, else cxr", "text", "auto"),
            Option("annotation", "annotation.json of both runs; default: what their records name", "input", optional=True),
            Option("image-root", "folder that image_path is relative to; default: likewise", "input", optional=True),
            Option("gallery-studies", "entries in the gallery, those that differ most; 0: no gallery", "int", 50),
            Option("gallery-metric", "score whose difference is meant, such as bleu_4 or cider", "text", "rouge_l"),
            Option("output", "folder for comparison.json, comparison.md and gallery/", "path", Path("results/cxr/compare")),
            WORKERS,
        ),
        "d2rnet.evaluation.settings:MeteorRuntime",
    ),
    **EXPORT_COMMANDS,
    "score-ct-labels": Command(
        "Score the 18 abnormalities read from chest CT reports against hand-labelled reports, per label and macro F1.",
        "d2rnet.ct.structures.label_check:score_ct_labels",
        "d2rnet.ct.structures.settings:StructureSettings",
        (
            Option("tables", "CSV files with columns report_text and the 18 abnormalities, such as CT-CLIP's", "inputs"),
            OUTPUT,
        ),
    ),
    "score-ct-regions": Command(
        "Compare the structures that chest CT reports are cut into with the regions of RadGenome-ChestCT.",
        "d2rnet.ct.structures.region_check:score_ct_regions",
        "d2rnet.ct.structures.settings:StructureSettings",
        (
            Option("regions", "region_report.csv files of RadGenome-ChestCT", "inputs"),
            Option("reports", "report tables of CT-RATE, to compare whole reports too", "inputs", ()),
            OUTPUT,
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
            Option(
                "configfile",
                "configuration of a run, files in their order: try what its trainings need, paths as seen from here",
                "inputs",
                (),
            ),
            JSON,
        ),
    ),
    "migrate-config": Command(
        "Write a configuration of an earlier version in today's keys, its comments kept.",
        "d2rnet.cli.migrate:migrate_config",
        "",
        (
            Option("file", "YAML file for --configfile of Snakemake; stays as it is", "input", positional=True),
            Option("output", "file to write (default: <name>.new.yaml beside it)", optional=True),
        ),
    ),
    "completion": Command(
        "Print a script that makes a shell complete sub-commands, options and files.",
        "d2rnet.cli.completion:completion",
        "",
        (Option("shell", "bash, zsh or fish", "text", positional=True),),
    ),
}

# First word of commands of two words, "export radeval" -> what they have in common.
GROUPS = {"export": "Hand results and models on to other tools, each in its own format."}

# Heading of 'd2rnet --help' -> its commands; of two words the first alone.
PURPOSES = {
    "look": ("read", "compare", "export", "render-gallery", "render-ct-gallery", "draw-figures", "draw-ct-figures"),
    "run (demo cohorts, data, annotation; housekeeping)": (
        *("make-demo-cohort", "convert-images-shard", "convert-labelled", "convert-unlabelled", "build-annotation"),
        *("oracle-annotation", "make-ct-demo-cohort", "convert-ct-shard", "convert-ct", "build-ct-annotation"),
        *("clean", "migrate-config", "completion"),
    ),
    "train (and what is trained on)": (
        *("train-detector", "calibrate-thresholds", "predict-boxes-shard", "predict-boxes", "fit-thresholds"),
        *("build-vocabulary", "train-report-model", "describe-reading", "train-structures", "extract-ct-features-shard"),
        *("extract-ct-features", "build-ct-vocabulary", "train-ct-report-model", "describe-ct-reading"),
    ),
    "score (reports written, baselines, tables)": (
        *("evaluate-detector", "generate-reports-shard", "generate-reports", "retrieve-reports", "evaluate-reports"),
        *("summarize", "ablation", "evaluate-structures", "generate-ct-reports-shard", "generate-ct-reports"),
        *("retrieve-ct-reports", "evaluate-ct-reports", "summarize-ct", "ct-ablation", "score-ct-labels", "score-ct-regions"),
    ),
    "check": ("doctor", "verify-inputs", "verify-training", "verify-ct-inputs", "verify-ct-training"),
}

# What people call; every other sub-command belongs to the rule of its name.
FOR_PEOPLE = frozenset(
    {"clean", "compare", "completion", "doctor", "migrate-config", "read", "score-ct-labels", "score-ct-regions"}
    | {"verify-training", "verify-ct-training", *EXPORT_COMMANDS}
)
