"""The sub-commands 'd2rnet export ...': results and models for other tools."""

from d2rnet.cli.options import (
    ANNOTATION,
    CT_REPORT_MODEL,
    DETECTOR,
    DEVICE,
    OUTPUT,
    REPORT_MODEL,
    STRUCTURES,
    Command,
    Option,
)

GENERATED = Option("generated", "test.jsonl of generate-reports or generate-ct-reports", "input")
SPLIT = Option("split", "train, val, test or all", "text", "test")

EXPORT_COMMANDS: dict[str, Command] = {
    "export radeval": Command(
        "Write references and generated reports as RadEval takes them, radiographs or CT: reports.json and reports.csv.",
        "d2rnet.export.radeval:export_radeval",
        "",
        (
            GENERATED,
            Option(
                "annotation",
                "annotation.json or ct_annotation.json: texts as people write them, references of the hospital",
                "input",
                optional=True,
            ),
            OUTPUT,
        ),
    ),
    "export label-studio": Command(
        "Write pseudo boxes as pre-annotations of Label Studio: tasks.json and its labelling interface, labels.xml.",
        "d2rnet.export.label_studio:export_label_studio",
        "",
        (
            ANNOTATION,
            SPLIT,
            Option("generated", "test.jsonl of generate-reports, to show findings beside the image", "input", optional=True),
            Option("address", "what Label Studio finds image_path behind", "text", "/data/local-files/?d="),
            Option("least-score", "least score of a box that is handed on, 0 to 1", "float", 0.5),
            OUTPUT,
        ),
    ),
    "export coco": Command(
        "Write pseudo boxes as a COCO data set in original pixels: labels.json and results.json.",
        "d2rnet.export.coco:export_coco",
        "",
        (ANNOTATION, SPLIT, OUTPUT),
    ),
    "export rexrank": Command(
        "Answer a test set of the ReXrank leaderboard: read the images of its JSON, write the same with predictions.",
        "d2rnet.export.rexrank:export_rexrank",
        "",
        (
            Option("input_json", "JSON of a test set, study -> images and sections", "input", positional=True),
            Option("output_json", "JSON to write; studies that it holds already are not read again", positional=True),
            Option("img_root", "folder that image paths in it are relative to", "input", positional=True),
            Option("all-views", "read all images of a study together, in place of its key_image_path", "flag"),
            DETECTOR,
            REPORT_MODEL,
            DEVICE,
        ),
    ),
    "export hub": Command(
        "Make a folder ready for upload to a model hub: weights, configurations, a card; d2rnet.load_models loads it.",
        "d2rnet.export.hub:export_hub",
        "",
        (
            Option("modality", "what the models read: cxr or ct", "text", "cxr"),
            DETECTOR,
            REPORT_MODEL,
            STRUCTURES,
            CT_REPORT_MODEL,
            Option("cards", "pages to join, such as those of summarize; default: model_card.md of each model", "inputs", ()),
            Option(
                "scores",
                "metrics.json of their evaluations, for the model-index of the card; none: it is left out",
                "inputs",
                (),
            ),
            Option(
                "dataset",
                "name of the data that they were tested on; default: the demo cohort's, of its models",
                "text",
                optional=True,
            ),
            Option("license", "of the weights, as the hub spells it: apache-2.0, cc-by-nc-4.0, other", "text", "other"),
            OUTPUT,
        ),
    ),
}
