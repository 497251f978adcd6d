"""What each part of the report model gives: 'snakemake --cores all ablation'. Arms: workflow/ablation.yaml."""

from d2rnet.cxr.ablation_design import cell_settings, read_design, seeds_of
from d2rnet.evaluation.ablation_design import design_folder
from d2rnet.findings.classes import CATEGORY_NAMES

ABLATION = design_folder("ablation", CONFIG.cxr.ablation.design)
DESIGN = shipped_or_own(CONFIG.cxr.ablation.design or "workflow/ablation.yaml")
with explained():
    ARMS = read_design(Path(DESIGN))
CELLS = [
    f"results/cxr/{ABLATION}/{name}/seed_{seed}"
    for name, arm in ARMS.arms.items()
    if TRUTH or arm.boxes != "oracle"
    for seed in seeds_of(arm, CONFIG.cxr.ablation)
]


rule oracle_annotation:
    input:
        annotation=rules.build_annotation.output.annotation,
        truth=rules.make_demo_cohort.output.truth,
    output:
        annotation="results/cxr/ablation/oracle/annotation.json",
        run="results/cxr/ablation/oracle/run.json",
    log:
        "logs/cxr/ablation/oracle_annotation.log",
    conda:
        "../../../envs/oracle_annotation.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    params:
        folder=subpath(output.annotation, parent=True),
    message:
        "Put the drawn lesions in place of the pseudo boxes"
    shell:
        "python -m d2rnet oracle-annotation --annotation {input.annotation:q} --truth {input.truth:q}"
        " --output {params.folder:q} --log {log:q}"


# only the demo cohort knows where its lesions are
ORACLE = [rules.oracle_annotation.output.annotation] if TRUTH else []


use rule build_annotation as sure_annotation with:
    input:
        unlabelled=rules.convert_unlabelled.output.coco,
        reports=rules.convert_unlabelled.output.reports,
        predictions=rules.predict_boxes.output.predictions,
    output:
        annotation=f"results/cxr/{ABLATION}/sure/annotation.json",
        counts=f"results/cxr/{ABLATION}/sure/counts.json",
        run=f"results/cxr/{ABLATION}/sure/run.json",
    log:
        f"logs/cxr/{ABLATION}/sure_annotation.log",
    benchmark:
        f"logs/cxr/benchmarks/{ABLATION}/sure_annotation.tsv"
    params:
        folder=subpath(output.annotation, parent=True),
        thresholds="",
        settings=settings_file(
            "build-annotation",
            CONFIG.cxr.annotation.replaced(
                thresholds="fixed",
                score_threshold=ARMS.sure_score,
                class_score_thresholds=dict.fromkeys(CATEGORY_NAMES, ARMS.sure_score),
            ).to_json(),
        ),
    message:
        "Keep the sure pseudo boxes alone"


SURE = (
    [rules.sure_annotation.output.annotation]
    if any(arm.boxes == "sure" for arm in ARMS.arms.values())
    else []
)
ANNOTATIONS = {
    "pseudo": rules.build_annotation.output.annotation,
    "sure": rules.sure_annotation.output.annotation,
    "oracle": rules.oracle_annotation.output.annotation,
}


use rule train_report_model as train_ablation_cell with:
    input:
        annotation=lambda wildcards: ANNOTATIONS[ARMS.arms[wildcards.arm].boxes],
        vocabulary=rules.build_vocabulary.output.vocabulary,
        backbone_weights=lambda wildcards: backbone_files(settings_of_cell(wildcards)),
        decoder_weights=CONFIG.cxr.report.model.weights or [],
        text_encoder=CONFIG.cxr.report.training.alignment.text_encoder_weights or [],
    output:
        weights=f"results/cxr/{ABLATION}/{{arm}}/seed_{{seed}}/model.safetensors",
        vocabulary=f"results/cxr/{ABLATION}/{{arm}}/seed_{{seed}}/vocabulary.json",
        config=f"results/cxr/{ABLATION}/{{arm}}/seed_{{seed}}/config.yaml",
        metrics=f"results/cxr/{ABLATION}/{{arm}}/seed_{{seed}}/metrics.jsonl",
        run=f"results/cxr/{ABLATION}/{{arm}}/seed_{{seed}}/run.json",
        card=f"results/cxr/{ABLATION}/{{arm}}/seed_{{seed}}/model_card.md",
    log:
        f"logs/cxr/{ABLATION}/{{arm}}_seed_{{seed}}.log",
    benchmark:
        f"logs/cxr/benchmarks/{ABLATION}/{{arm}}_seed_{{seed}}.tsv"
    threads: 1  # two cells side by side use two cores better than one cell with two threads
    params:
        folder=subpath(output.config, parent=True),
        work=f"work/cxr/{ABLATION}/{{arm}}/seed_{{seed}}",
        image_cache=rules.train_report_model.params.image_cache,
        image_root=CONFIG.cxr.data.reports.root,
        warm_start=lambda wildcards: detector_option(settings_of_cell(wildcards)),
        settings=lambda wildcards: settings_file(
            "train-report-model", settings_of_cell(wildcards).to_json()
        ),
    message:
        "Train arm {wildcards.arm}, seed {wildcards.seed}"


use rule generate_reports_shard as generate_ablation_reports with:
    input:
        annotation=lambda wildcards: ANNOTATIONS[ARMS.arms[wildcards.arm].boxes],
        weights=rules.train_ablation_cell.output.weights,
        vocabulary=rules.train_ablation_cell.output.vocabulary,
        config=rules.train_ablation_cell.output.config,
    output:
        f"results/cxr/{ABLATION}/{{arm}}/seed_{{seed}}/reports.jsonl",
    log:
        f"logs/cxr/{ABLATION}/{{arm}}_seed_{{seed}}_reports.log",
    benchmark:
        f"logs/cxr/benchmarks/{ABLATION}/{{arm}}_seed_{{seed}}_reports.tsv"
    threads: 1
    params:
        model=subpath(input.config, parent=True),
        image_root=CONFIG.cxr.data.reports.root,
        shard="--shard 1 --shards 1",
        settings=settings_file("generate-reports-shard"),
    message:
        "Write the reports of arm {wildcards.arm}, seed {wildcards.seed}"


rule ablation:
    input:
        reports=expand("{cell}/reports.jsonl", cell=CELLS),
        histories=expand("{cell}/metrics.jsonl", cell=CELLS),
        annotation=rules.build_annotation.output.annotation,
        design=DESIGN,
        nearest=NEAREST,
        truth=TRUTH,
        oracle=ORACLE,
        sure=SURE,
    output:
        json=f"results/cxr/{ABLATION}/ablation.json",
        markdown=f"results/cxr/{ABLATION}/ablation.md",
        csv=f"results/cxr/{ABLATION}/ablation.csv",
        page=report(
            f"results/cxr/{ABLATION}/ablation.html",
            caption="../../report/cxr/ablation_table.rst",
            category="Ablation",
            labels={"what": "Table"},
        ),
        figure=report(
            f"results/cxr/{ABLATION}/ablation.svg",
            caption="../../report/cxr/ablation_figure.rst",
            category="Ablation",
            labels={"what": "Figure"},
        ),
        png=f"results/cxr/{ABLATION}/ablation.png",
        run=f"results/cxr/{ABLATION}/run.json",
    log:
        f"logs/cxr/{ABLATION}.log",
    benchmark:
        f"logs/cxr/benchmarks/{ABLATION}.tsv"
    conda:
        "../../../envs/ablation.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=120,
        options=runtime_options("ablation"),
    params:
        cells=CELLS,
        folder=subpath(output.json, parent=True),
        nearest=option("nearest", NEAREST),
        truth=option("truth", TRUTH),
        oracle=option("oracle", ORACLE),
        sure=option("sure", SURE),
        settings=settings_file("ablation"),
    message:
        "Score every cell of the ablation and lay out the table"
    shell:
        "python -m d2rnet ablation --cells {params.cells:q} --annotation {input.annotation:q} --design {input.design:q}"
        " {params.nearest} {params.truth} {params.oracle} {params.sure} --output {params.folder:q} --settings {params.settings:q}"
        " {resources.options} --log {log:q}"
