"""The sub-commands of the chest radiograph wing, one per rule of its workflow, and 'd2rnet read'."""

from pathlib import Path

from d2rnet.cli.options import (
    ANNOTATION,
    CT_REPORT_MODEL,
    DETECTOR,
    DEVICE,
    IMAGE_ROOT,
    OUTPUT,
    PROCESSES,
    REPORT_MODEL,
    SHARD,
    SHARDS,
    STRUCTURES,
    WORK,
    WORKERS,
    Command,
    Option,
)

COUNTS = Option("counts", "counts.json of verify-inputs", "input")
CONVERTED = Option("shards", "JSON lines file of every shard of convert-images-shard", "inputs")
UNLABELLED = Option("unlabelled", "COCO json of the report source's images (resources/cxr/unlabelled.json)", "input")
REPORTS = Option("reports", "reports.jsonl of convert-unlabelled", "input")
PREDICTIONS = Option("predictions", "JSON lines of predict-boxes, or of each shard", "inputs")
THRESHOLDS = Option(
    "thresholds", "thresholds.json of calibrate-thresholds or fit-thresholds, by the settings", "input", optional=True
)

CXR_COMMANDS: dict[str, Command] = {
    "make-demo-cohort": Command(
        "Draw the synthetic demo cohort: VinDr-CXR and MIMIC-CXR-JPG layouts, boxes, readers, reports.",
        "d2rnet.cxr.demo.cohort:make_demo_cohort",
        "d2rnet.cxr.demo.settings:DemoSettings",
        (OUTPUT, WORKERS),
    ),
    "verify-training": Command(
        "Try what both trainings need before anything costly runs: weights, batches, device, shared memory.",
        "d2rnet.cxr.verify_training:verify_training",
        "d2rnet.cxr.settings:TrainingsSettings",
        (
            OUTPUT,
            DEVICE,
            PROCESSES,
            Option("elsewhere", "the trainings run on another machine: this one's GPUs and limits do not matter", "flag"),
        ),
        "d2rnet.runs.settings:LoaderRuntime",
    ),
    "verify-inputs": Command(
        "Check every configured root, table, count and image header before anything costly runs.",
        "d2rnet.cxr.conversion.verify:verify_inputs",
        "d2rnet.cxr.conversion.settings:DataSettings",
        (
            OUTPUT,
            WORKERS,
            Option(
                "kept-side", "side of the square that a later training keeps of each image, px; for the free disk", "int", 0
            ),
        ),
    ),
    "convert-images-shard": Command(
        "Convert one shard of a list of radiographs to 8-bit PNG; goes on where it was interrupted.",
        "d2rnet.cxr.conversion.image_shards:convert_images_shard",
        "d2rnet.cxr.conversion.settings:ImageConversionSettings",
        (
            Option("images", "labelled_images.jsonl or unlabelled_images.jsonl of verify-inputs", "input"),
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
        (
            Option("images", "labelled_images.jsonl of verify-inputs", "input"),
            Option("boxes", "labelled_boxes.jsonl of verify-inputs", "input"),
            COUNTS,
            CONVERTED,
            OUTPUT,
        ),
    ),
    "convert-unlabelled": Command(
        "Convert the tables of the report source (and extra unlabelled images) to COCO json and reports.jsonl.",
        "d2rnet.cxr.conversion.convert_unlabelled:convert_unlabelled",
        "d2rnet.cxr.conversion.settings:UnlabelledConversionSettings",
        (
            Option("images", "unlabelled_images.jsonl of verify-inputs", "input"),
            Option("reports", "reports.jsonl of verify-inputs", "input"),
            COUNTS,
            CONVERTED,
            OUTPUT,
        ),
    ),
    "train-detector": Command(
        "Train the Unbiased Teacher v2 detector on labelled and unlabelled images; resumes by itself.",
        "d2rnet.cxr.detector.trainer:train_detector",
        "d2rnet.cxr.detector.settings:TrainDetectorSettings",
        (
            Option("labelled-train", "COCO json to train on", "input"),
            Option("labelled-val", "COCO json of the validation split, for selection only", "input"),
            Option(
                "labelled-test",
                "COCO json of the test split; only its ids are read, to prove that it is not trained on",
                "input",
            ),
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
            Option("labelled-test", "COCO json of the test split", "input"),
            Option("model", "folder of train-detector: both networks' weights, config.yaml and metrics.jsonl", "input"),
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
            Option("model", "folder of train-detector", "input"),
            SHARD,
            SHARDS,
            Option("output", "JSON lines to write, a COCO result each"),
            Option("view", "look at images of this view alone, unknown for those that name none; may be repeated", "texts"),
            DEVICE,
        ),
        "d2rnet.runs.settings:LoaderRuntime",
    ),
    "predict-boxes": Command(
        "Join the shards of predict-boxes-shard; overlapping or unknown images are an error.",
        "d2rnet.cxr.detector.results:gather_boxes",
        "d2rnet.cxr.detector.settings:PredictionSettings",
        (
            UNLABELLED,
            Option("shards", "JSON lines of every shard", "inputs"),
            Option("output", "JSON lines to write; a COCO results list of the same name, .json, is written beside it"),
        ),
    ),
    "calibrate-thresholds": Command(
        "Choose a score threshold per class for a wanted precision, on the labelled validation split.",
        "d2rnet.cxr.detector.calibrate:calibrate_thresholds",
        "d2rnet.cxr.detector.settings:CalibrateThresholdsSettings",
        (
            Option("labelled-val", "COCO json of the validation split; images of another split are an error", "input"),
            Option("model", "folder of train-detector", "input"),
            OUTPUT,
            DEVICE,
        ),
        "d2rnet.runs.settings:LoaderRuntime",
    ),
    "fit-thresholds": Command(
        "Choose the score threshold per class with which boxes agree best with the training reports.",
        "d2rnet.cxr.annotation.fit_thresholds:fit_thresholds",
        "d2rnet.cxr.annotation.settings:AnnotationSettings",
        (
            UNLABELLED,
            REPORTS,
            PREDICTIONS,
            OUTPUT,
        ),
    ),
    "build-annotation": Command(
        "Filter pseudo boxes by score and join them with reports into annotation.json (original pixels).",
        "d2rnet.cxr.annotation.build:build_annotation",
        "d2rnet.cxr.annotation.settings:AnnotationSettings",
        (
            UNLABELLED,
            REPORTS,
            PREDICTIONS,
            THRESHOLDS,
            OUTPUT,
        ),
    ),
    "train-report-model": Command(
        "Train D2R-Net on annotation.json; resumes by itself.",
        "d2rnet.cxr.report_model.trainer:train_report_model",
        "d2rnet.cxr.report_model.settings:TrainReportModelSettings",
        (
            ANNOTATION,
            Option("vocabulary", "vocabulary.json", "input"),
            IMAGE_ROOT,
            Option(
                "detector",
                "model_final.pth of train-detector, if report.model.backbone_weights is detector",
                "input",
                optional=True,
            ),
            WORK,
            Option(
                "image-cache",
                "folder of decoded images and crops, which trainings may share; default: images in --work",
                optional=True,
            ),
            OUTPUT,
            DEVICE,
            PROCESSES,
        ),
        "d2rnet.report.settings:ReportRuntime",
    ),
    "generate-reports-shard": Command(
        "Write the findings of one shard of the test split by beam search.",
        "d2rnet.cxr.report_model.generate:generate_reports",
        "d2rnet.cxr.report_model.settings:D2RNetGenerationSettings",
        (
            ANNOTATION,
            IMAGE_ROOT,
            Option("model", "folder of train-report-model", "input"),
            SHARD,
            SHARDS,
            Option("output", "JSON lines file to write"),
            DEVICE,
        ),
        "d2rnet.runs.settings:LoaderRuntime",
    ),
    "generate-reports": Command(
        "Join the shards of generate-reports-shard into one file, in the order of annotation.json.",
        "d2rnet.report.generation:gather_reports",
        "d2rnet.cxr.report_model.settings:D2RNetGenerationSettings",
        (
            ANNOTATION,
            Option("shards", "JSON lines file of every shard", "inputs"),
            Option("output", "JSON lines file to write"),
        ),
    ),
    "retrieve-reports": Command(
        "Answer each generated report's images with the report of the most similar training images: a baseline.",
        "d2rnet.cxr.report_model.retrieval:retrieve_reports",
        "d2rnet.evaluation.settings:RetrievalSettings",
        (
            Option("generated", "test.jsonl of generate-reports; names the entries", "input"),
            ANNOTATION,
            IMAGE_ROOT,
            Option("model", "folder of train-report-model; gives image features and text protocol", "input"),
            Option("output", "JSON lines file to write"),
            WORKERS,
            DEVICE,
        ),
    ),
    "oracle-annotation": Command(
        "Put the lesions that the demo cohort drew in place of the pseudo boxes: what a perfect detector would give.",
        "d2rnet.cxr.annotation.oracle:oracle_annotation",
        "",
        (ANNOTATION, Option("truth", "truth.jsonl of make-demo-cohort", "input"), OUTPUT),
    ),
    "ablation": Command(
        "Score the cells of an ablation (arms by seeds) on the same studies, with intervals, beside baselines.",
        "d2rnet.cxr.ablation:ablation",
        "d2rnet.evaluation.settings:ScoreSettings",
        (
            Option("cells", "folders <arm>/seed_<n> with reports.jsonl and metrics.jsonl", "inputs"),
            ANNOTATION,
            Option("design", "YAML file of the arms", "input"),
            Option("nearest", "test.jsonl of retrieve-reports, to stand beside the arms", "inputs", ()),
            Option("truth", "truth.jsonl of make-demo-cohort, for grounding", "inputs", ()),
            Option("oracle", "annotation.json of the arms with oracle boxes", "inputs", ()),
            Option("sure", "annotation.json of the arms with sure boxes", "inputs", ()),
            OUTPUT,
        ),
        "d2rnet.evaluation.settings:MeteorRuntime",
    ),
    "draw-figures": Command(
        "Draw curves of both trainings, pseudo-box statistics and sample readings of a run; lay out its tables.",
        "d2rnet.cxr.summary.run_figures:draw_figures",
        "",
        (
            DETECTOR,
            Option("report-model", "folder of train-report-model", "input"),
            ANNOTATION,
            Option("generated", "test.jsonl of generate-reports", "input"),
            IMAGE_ROOT,
            Option("summary", "summary.json of summarize", "input"),
            Option("true-boxes", "true boxes to draw: truth.jsonl of the demo cohort or a COCO json", "input", optional=True),
            Option("samples", "readings to draw, the first of the test split; 24 at most", "int", 6),
            Option("shown-score", "least score of a box that is drawn whatever is written, 0 to 1", "float", 0.0),
            OUTPUT,
        ),
    ),
    "summarize": Command(
        "Put all metrics of a run in one table (terminal, Markdown, JSON), and scores into model cards.",
        "d2rnet.cxr.summary.summary:summarize",
        "",
        (
            Option("detector-metrics", "metrics.json of evaluate-detector", "input"),
            Option("report-metrics", "metrics.json of evaluate-reports", "input"),
            Option("counts", "counts.json files of the earlier rules", "inputs"),
            Option("models", "folders of train-detector and train-report-model, for model cards with scores", "inputs", ()),
            OUTPUT,
        ),
    ),
    "describe-reading": Command(
        "Write into a report model's folder what 'd2rnet read' needs beside the weights: reading.json.",
        "d2rnet.reading.cxr_settings:describe_reading",
        "",
        (
            Option("weights", "model_final.pth of train-detector", "input"),
            Option("report-model", "folder of train-report-model", "input"),
            Option("configfile", "configuration of the run: files laid over config.yaml in this order", "inputs", ()),
            THRESHOLDS,
            Option(
                "annotation", "annotation.json of the training, to learn the grey levels of its images", "input", optional=True
            ),
            Option("image-root", "folder that its image paths are relative to", "input", optional=True),
        ),
    ),
    "read": Command(
        "Read radiographs or chest CTs with trained models: findings, boxes, attention, pictures and pages.",
        "d2rnet.reading.batch:read_paths",
        "",
        (
            Option(
                "path", "radiographs (DICOM, PNG, JPG), CTs (NIfTI, NRRD, DICOM folder), or folders", "inputs", positional=True
            ),
            DETECTOR,
            REPORT_MODEL,
            Option("output", "folder to write to", "path", Path("readings")),
            DEVICE,
            Option("score-threshold", "least score of a box, 0 to 1 (default: those of the run)", "float", optional=True),
            Option(
                "box",
                "a box of yours, x,y,width,height or x,y,width,height=class in pixels of the one radiograph that is read: "
                "shows the sentences for it; may be repeated",
                "texts",
            ),
            Option(
                "boxes",
                "boxes of yours for any number of radiographs: COCO json, or CSV with image,x,y,width,height and, if wanted, "
                "class, score",
                "input",
                optional=True,
            ),
            Option("no-detector", "run no detector: boxes are those of --box and --boxes alone", "flag"),
            Option("study", "all images are views of one study: boxes in each, findings of all together", "flag"),
            Option(
                "indication",
                "why the study was taken, for a report model that was trained with indications",
                "text",
                optional=True,
            ),
            Option(
                "prior",
                "the patient's study before, for a report model that was trained with it: JSON of a reading, or a text file",
                "input",
                optional=True,
            ),
            Option("coco", "write a COCO data set too: coco/data/, labels.json, results.json", "flag"),
            Option("json", "show JSON lines instead of text", "flag"),
            Option("strict", "a file that is doubtful as a frontal chest radiograph or chest CT fails", "flag"),
            Option(
                "dicom-sr",
                "write DICOM documents too: dicom/, a measurement report and presentation states; only of DICOM files",
                "flag",
            ),
            STRUCTURES,
            CT_REPORT_MODEL,
        ),
    ),
}
