"""The sub-commands of the chest CT wing, one per rule of its workflow."""

from d2rnet.cli.options import DEVICE, OUTPUT, PROCESSES, SHARD, SHARDS, WORK, WORKERS, Command, Option

_VOLUMES = Option("volumes", "volumes.jsonl of verify-ct-inputs", "input")
_COUNTS = Option("counts", "counts.json of verify-ct-inputs", "input")
_ANNOTATION = Option("annotation", "ct_annotation.json of build-ct-annotation", "input")
_FEATURES = Option("features", "folder of extract-ct-features", "input")
_CONVERTED = Option("volumes", "folder of convert-ct", "input")

CT_COMMANDS: dict[str, Command] = {
    "make-ct-demo-cohort": Command(
        "Draw the synthetic chest CT cohort: CT-RATE layout, reports, labels, true masks.",
        "d2rnet.ct.demo.cohort:make_ct_demo_cohort",
        "d2rnet.ct.demo.settings:CtDemoSettings",
        (OUTPUT, WORKERS),
    ),
    "verify-ct-inputs": Command(
        "Check the configured CT source, its tables, counts and volume headers before anything costly runs.",
        "d2rnet.ct.conversion.verify:verify_ct_inputs",
        "d2rnet.ct.conversion.data_settings:CtSourceDataSettings",
        (OUTPUT, WORKERS),
    ),
    "verify-ct-training": Command(
        "Try what both trainings of chest CT need before anything costly runs: weights, batches, selection, device.",
        "d2rnet.ct.verify_training:verify_ct_training",
        "d2rnet.ct.settings:CtSettings",
        (
            OUTPUT,
            DEVICE,
            PROCESSES,
            Option("elsewhere", "the trainings run on another machine: this one's GPUs and limits do not matter", "flag"),
        ),
    ),
    "convert-ct-shard": Command(
        "Convert one shard of a list of CT volumes to arrays on one grid; goes on where it was interrupted.",
        "d2rnet.ct.conversion.volume_shards:convert_ct_shard",
        "d2rnet.ct.conversion.data_settings:CtVolumeConversionSettings",
        (
            _VOLUMES,
            Option("folder", "folder that file_name in the list is relative to"),
            SHARD,
            SHARDS,
            Option("output", "JSON lines file to write, with what came of each volume"),
            WORKERS,
        ),
    ),
    "convert-ct": Command(
        "Join the shards of convert-ct-shard: table of volumes, counts, card, and a picture to look at.",
        "d2rnet.ct.conversion.convert_ct:convert_ct",
        "d2rnet.ct.conversion.data_settings:CtSourceDataSettings",
        (
            _VOLUMES,
            _COUNTS,
            Option("shards", "JSON lines file of every shard of convert-ct-shard", "inputs"),
            OUTPUT,
        ),
    ),
    "build-ct-annotation": Command(
        "Cut reports into structures and join them with volumes and labels into ct_annotation.json.",
        "d2rnet.ct.annotation.build:build_ct_annotation",
        "d2rnet.ct.structures.settings:StructureSettings",
        (
            Option("volumes", "volumes.jsonl of convert-ct", "input"),
            Option("reports", "reports.jsonl of verify-ct-inputs", "input"),
            Option("labels", "labels.jsonl of verify-ct-inputs", "input"),
            Option("regions", "regions.jsonl of verify-ct-inputs", "input"),
            _COUNTS,
            OUTPUT,
        ),
    ),
    "train-structures": Command(
        "Train stage 1: queries learn to observe structures, by contrast with what reports say of them; resumes by itself.",
        "d2rnet.ct.structure_model.trainer:train_structures",
        "d2rnet.ct.structure_model.settings:TrainStructuresSettings",
        (_ANNOTATION, _CONVERTED, WORK, OUTPUT, DEVICE, PROCESSES),
        "d2rnet.report.settings:ReportRuntime",
    ),
    "evaluate-structures": Command(
        "Score stage 1 on the test split: retrieval, zero-shot AUROC, effective rank, attention inside the structures.",
        "d2rnet.ct.structure_model.evaluate:evaluate_structures",
        "d2rnet.ct.structure_model.settings:EvaluateStructuresSettings",
        (
            _ANNOTATION,
            _CONVERTED,
            Option("model", "folder of train-structures", "input"),
            Option("masks", "folder of true masks in place of the settings', such as the demo cohort's", "inputs", ()),
            OUTPUT,
            DEVICE,
        ),
        "d2rnet.runs.settings:LoaderRuntime",
    ),
    "extract-ct-features-shard": Command(
        "Let stage 1 look at one shard of the volumes and keep what stage 2 needs; goes on where it was interrupted.",
        "d2rnet.ct.report_model.extract:extract_ct_features_shard",
        "d2rnet.ct.report_model.settings:CtFeatureSettings",
        (
            _ANNOTATION,
            Option("volumes", "folder that volume_path in ct_annotation.json is relative to", "input"),
            Option("structures", "folder of train-structures", "input"),
            Option("folder", "folder of the features"),
            SHARD,
            SHARDS,
            Option("output", "JSON lines file to write, with what each volume's features are"),
            DEVICE,
        ),
        "d2rnet.runs.settings:LoaderRuntime",
    ),
    "extract-ct-features": Command(
        "Prove that the shards of extract-ct-features-shard hold every volume once, and say what the features are.",
        "d2rnet.ct.report_model.extract:extract_ct_features",
        "d2rnet.ct.report_model.settings:CtFeatureSettings",
        (
            _ANNOTATION,
            Option("shards", "JSON lines file of every shard of extract-ct-features-shard", "inputs"),
            Option("output", "folder of the features"),
        ),
    ),
    "build-ct-vocabulary": Command(
        "Build the vocabulary from the training reports of chest CT.",
        "d2rnet.ct.report_model.vocabulary:build_ct_vocabulary",
        "d2rnet.ct.report_model.settings:CtTextSettings",
        (_ANNOTATION, OUTPUT),
    ),
    "train-ct-report-model": Command(
        "Train the report model of chest CT on features of stage 1; resumes by itself.",
        "d2rnet.ct.report_model.trainer:train_ct_report_model",
        "d2rnet.ct.report_model.settings:TrainCtReportModelSettings",
        (
            _ANNOTATION,
            Option("vocabulary", "vocabulary.json of build-ct-vocabulary", "input"),
            _FEATURES,
            WORK,
            OUTPUT,
            DEVICE,
            PROCESSES,
        ),
        "d2rnet.report.settings:ReportRuntime",
    ),
    "generate-ct-reports-shard": Command(
        "Write the findings of one shard of the CT test split; each sentence names its structure and where that looked.",
        "d2rnet.ct.report_model.generate:generate_ct_reports_shard",
        "d2rnet.ct.report_model.settings:CtGenerationSettings",
        (
            _ANNOTATION,
            _FEATURES,
            Option("model", "folder of train-ct-report-model", "input"),
            Option("table", "table of structures that sentences are dealt out to: a name, or a YAML file", "text", "ten"),
            SHARD,
            SHARDS,
            Option("output", "JSON lines file to write"),
            DEVICE,
        ),
        "d2rnet.runs.settings:LoaderRuntime",
    ),
    "generate-ct-reports": Command(
        "Join the shards of generate-ct-reports-shard into one file, in the order of ct_annotation.json.",
        "d2rnet.ct.report_model.generate:generate_ct_reports",
        "d2rnet.ct.report_model.settings:CtGenerationSettings",
        (
            _ANNOTATION,
            Option("shards", "JSON lines file of every shard", "inputs"),
            Option("output", "JSON lines file to write"),
        ),
    ),
    "retrieve-ct-reports": Command(
        "Answer each volume with a training report, of the nearest features and of the predicted label set: two baselines.",
        "d2rnet.ct.evaluation.retrieve:retrieve_ct_reports",
        "d2rnet.ct.evaluation.settings:LabelSetSettings",
        (
            Option("generated", "test.jsonl of generate-ct-reports; names the volumes", "input"),
            _ANNOTATION,
            _FEATURES,
            Option("model", "folder of train-ct-report-model; its text protocol cleans the answers", "input"),
            OUTPUT,
        ),
    ),
    "evaluate-ct-reports": Command(
        "Score generated chest CT reports (words, the 18 abnormalities, CRG) with intervals by patient, beside baselines.",
        "d2rnet.ct.evaluation.evaluate:evaluate_ct_reports",
        "d2rnet.ct.evaluation.settings:EvaluateCtSettings",
        (
            Option("generated", "test.jsonl of generate-ct-reports", "input"),
            _ANNOTATION,
            _COUNTS,
            Option("model", "folder of train-ct-report-model; its text protocol names the scores", "input"),
            Option("nearest", "nearest.jsonl of retrieve-ct-reports, to stand beside the scores", "inputs", ()),
            Option("label-set", "label_set.jsonl of retrieve-ct-reports, likewise", "inputs", ()),
            OUTPUT,
            DEVICE,
        ),
        "d2rnet.evaluation.settings:MeteorRuntime",
    ),
    "render-ct-gallery": Command(
        "Show slices of CT volumes, and generated beside reference findings structure by structure, on one static page.",
        "d2rnet.gallery.ct_render:render_ct_gallery",
        "d2rnet.gallery.settings:PageSettings",
        (
            Option("generated", "test.jsonl of generate-ct-reports", "input"),
            _ANNOTATION,
            Option("scores", "folder of evaluate-ct-reports: metrics.json and per_report.jsonl", "input"),
            Option("volumes", "volumes.jsonl of convert-ct, the arrays beside it", "input"),
            Option("table", "table of structures that sentences are dealt out to: a name, or a YAML file", "text", "ten"),
            Option("source-root", "folder the volumes come from; those of the demo cohort are called so", "text", ""),
            Option("output", "folder of index.html"),
            WORKERS,
        ),
    ),
    "describe-ct-reading": Command(
        "Write into a CT report model's folder what 'd2rnet read' needs beside the weights: reading.json.",
        "d2rnet.reading.ct_settings:describe_ct_reading",
        "",
        (
            Option("report-model", "folder of train-ct-report-model", "input"),
            Option("configfile", "configuration of the run: files laid over config.yaml in this order", "inputs", ()),
        ),
    ),
    "ct-ablation": Command(
        "Score the cells of an ablation of chest CT (arms by seeds) on the same volumes, with intervals, beside baselines.",
        "d2rnet.ct.ablation.score:ct_ablation",
        "d2rnet.ct.ablation.settings:AblateCtSettings",
        (
            Option("folder", "folder of cells/<arm>/seed_<n> and structures/<arm>/seed_<n>", "input"),
            _ANNOTATION,
            Option("design", "YAML file of the arms", "input"),
            Option("nearest", "nearest.jsonl of retrieve-ct-reports, to stand beside the arms", "inputs", ()),
            Option("label-set", "label_set.jsonl of retrieve-ct-reports, likewise", "inputs", ()),
            OUTPUT,
        ),
        "d2rnet.evaluation.settings:MeteorRuntime",
    ),
    "summarize-ct": Command(
        "Put all scores of a chest CT run in tables (terminal, Markdown, JSON), baselines beside them, and into model cards.",
        "d2rnet.ct.evaluation.summary:summarize_ct",
        "",
        (
            Option("structure-metrics", "metrics.json of evaluate-structures", "input"),
            Option("report-metrics", "metrics.json of evaluate-ct-reports", "input"),
            Option("counts", "counts.json files of the earlier rules", "inputs"),
            Option(
                "models", "folders of train-structures and train-ct-report-model, for model cards with scores", "inputs", ()
            ),
            OUTPUT,
        ),
    ),
    "draw-ct-figures": Command(
        "Draw the curves of both trainings and the abnormalities that reports of a chest CT run name; lay out its tables.",
        "d2rnet.ct.evaluation.run_figures:draw_ct_figures",
        "",
        (
            Option("structures", "folder of train-structures", "input"),
            Option("report-model", "folder of train-ct-report-model", "input"),
            Option("summary", "summary.json of summarize-ct", "input"),
            OUTPUT,
        ),
    ),
}
