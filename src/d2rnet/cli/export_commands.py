"""The sub-commands 'd2rnet export ...': results and models for other tools."""

from d2rnet.cli.options import ANNOTATION, OUTPUT, Command, Option

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
            OUTPUT,
        ),
    ),
    "export coco": Command(
        "Write pseudo boxes as a COCO data set in original pixels: labels.json and results.json.",
        "d2rnet.export.coco:export_coco",
        "",
        (ANNOTATION, SPLIT, OUTPUT),
    ),
}
