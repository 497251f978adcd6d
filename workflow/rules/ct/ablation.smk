"""What each part of the chest CT method gives: 'snakemake --cores all ct_ablation'. Arms: workflow/ct_ablation.yaml."""

from d2rnet.ct.ablation.design import plan_arms, read_design
from d2rnet.ct.ablation.folders import Folders
from d2rnet.ct.ablation.settings import AblateCtSettings
from d2rnet.evaluation.ablation_design import design_folder

CT_ABLATION = design_folder("ct_ablation", CONFIG.ct.ablation.design)
CT_DESIGN = CONFIG.ct.ablation.design or f"{workflow.basedir}/workflow/ct_ablation.yaml"
with explained():
    CT_PLAN = read_design(Path(CT_DESIGN))
    CT_ARMS = plan_arms(
        CT_PLAN, AblateCtSettings.read(settings_of(CONFIG, "ct-ablation"))
    )
CT_FOLDERS = Folders(Path("results/ct", CT_ABLATION), CT_ARMS)


use rule train_structures as train_ct_ablation_structures with:
    output:
        weights=f"results/ct/{CT_ABLATION}/structures/{{arm}}/seed_{{seed}}/model.safetensors",
        text_tower=f"results/ct/{CT_ABLATION}/structures/{{arm}}/seed_{{seed}}/text_tower.safetensors",
        vocabulary=f"results/ct/{CT_ABLATION}/structures/{{arm}}/seed_{{seed}}/vocabulary.json",
        config=f"results/ct/{CT_ABLATION}/structures/{{arm}}/seed_{{seed}}/config.yaml",
        metrics=f"results/ct/{CT_ABLATION}/structures/{{arm}}/seed_{{seed}}/metrics.jsonl",
        run=f"results/ct/{CT_ABLATION}/structures/{{arm}}/seed_{{seed}}/run.json",
        card=f"results/ct/{CT_ABLATION}/structures/{{arm}}/seed_{{seed}}/model_card.md",
    log:
        f"logs/ct/{CT_ABLATION}/{{arm}}_seed_{{seed}}_structures.log",
    benchmark:
        f"logs/ct/benchmarks/{CT_ABLATION}/{{arm}}_seed_{{seed}}_structures.tsv"
    threads: 1  # two cells side by side use two cores better than one cell with two threads
    params:
        folder=subpath(output.config, parent=True),
        volumes=subpath(input.volumes, parent=True),
        work=f"work/ct/{CT_ABLATION}/structures/{{arm}}/seed_{{seed}}",
        settings=lambda wildcards: settings_file(
            "train-structures",
            settings_of(CONFIG, "train-structures")
            | {
                "structure_model": CT_ARMS[wildcards.arm]
                .stage_one(int(wildcards.seed))
                .to_json()
            },
        ),
    message:
        "Train stage 1 of arm {wildcards.arm}, seed {wildcards.seed}"


use rule evaluate_structures as evaluate_ct_ablation_structures with:
    input:
        table=CT_TABLE,
        annotation=rules.build_ct_annotation.output.annotation,
        volumes=rules.convert_ct.output.volumes,
        weights=rules.train_ct_ablation_structures.output.weights,
        text_tower=rules.train_ct_ablation_structures.output.text_tower,
        vocabulary=rules.train_ct_ablation_structures.output.vocabulary,
        config=rules.train_ct_ablation_structures.output.config,
        truth=rules.evaluate_structures.input.truth,
        masks=CT_MASKS or [],
        mask_codes=CONFIG.ct.structure_model.evaluation.mask_codes or [],
    output:
        metrics=f"results/ct/{CT_ABLATION}/structures/{{arm}}/seed_{{seed}}/scores/metrics.json",
        per_volume=f"results/ct/{CT_ABLATION}/structures/{{arm}}/seed_{{seed}}/scores/per_volume.jsonl",
    log:
        f"logs/ct/{CT_ABLATION}/{{arm}}_seed_{{seed}}_scores.log",
    benchmark:
        f"logs/ct/benchmarks/{CT_ABLATION}/{{arm}}_seed_{{seed}}_scores.tsv"
    message:
        "Score stage 1 of arm {wildcards.arm}, seed {wildcards.seed}"


use rule extract_ct_features_shard as extract_ct_ablation_features_shard with:
    input:
        annotation=rules.build_ct_annotation.output.annotation,
        volumes=rules.convert_ct.output.volumes,
        weights=CT_FOLDERS.of_job("structures", "model.safetensors"),
        vocabulary=CT_FOLDERS.of_job("structures", "vocabulary.json"),
        config=CT_FOLDERS.of_job("structures", "config.yaml"),
    output:
        f"results/ct/{CT_ABLATION}/features/{{arm}}/seed_{{seed}}/shards/1-of-1.jsonl",
    log:
        f"logs/ct/{CT_ABLATION}/{{arm}}_seed_{{seed}}_shard.log",
    benchmark:
        f"logs/ct/benchmarks/{CT_ABLATION}/{{arm}}_seed_{{seed}}_shard.tsv"
    params:
        volumes=subpath(input.volumes, parent=True),
        structures=subpath(input.config, parent=True),
        folder=subpath(output[0], ancestor=2),
        shard="--shard 1 --shards 1",
        settings=lambda wildcards: settings_file(
            "extract-ct-features-shard", CT_ARMS[wildcards.arm].extraction.to_json()
        ),
    message:
        "Let stage 1 of arm {wildcards.arm}, seed {wildcards.seed}, look at the CT volumes"


use rule extract_ct_features as extract_ct_ablation_features with:
    input:
        annotation=rules.build_ct_annotation.output.annotation,
        shards=rules.extract_ct_ablation_features_shard.output,
    output:
        index=f"results/ct/{CT_ABLATION}/features/{{arm}}/seed_{{seed}}/features.json",
        run=f"results/ct/{CT_ABLATION}/features/{{arm}}/seed_{{seed}}/run.json",
    log:
        f"logs/ct/{CT_ABLATION}/{{arm}}_seed_{{seed}}_features.log",
    params:
        folder=subpath(output.index, parent=True),
        settings=lambda wildcards: settings_file(
            "extract-ct-features", CT_ARMS[wildcards.arm].extraction.to_json()
        ),
    message:
        "Index the features of arm {wildcards.arm}, seed {wildcards.seed}"


use rule train_ct_report_model as train_ct_ablation_cell with:
    input:
        annotation=rules.build_ct_annotation.output.annotation,
        vocabulary=rules.build_ct_vocabulary.output.vocabulary,
        features=CT_FOLDERS.of_job("features", "features.json"),
        decoder_weights=rules.train_ct_report_model.input.decoder_weights,
        language_model=rules.train_ct_report_model.input.language_model,
    output:
        weights=f"results/ct/{CT_ABLATION}/cells/{{arm}}/seed_{{seed}}/model.safetensors",
        vocabulary=f"results/ct/{CT_ABLATION}/cells/{{arm}}/seed_{{seed}}/vocabulary.json",
        config=f"results/ct/{CT_ABLATION}/cells/{{arm}}/seed_{{seed}}/config.yaml",
        metrics=f"results/ct/{CT_ABLATION}/cells/{{arm}}/seed_{{seed}}/metrics.jsonl",
        run=f"results/ct/{CT_ABLATION}/cells/{{arm}}/seed_{{seed}}/run.json",
        card=f"results/ct/{CT_ABLATION}/cells/{{arm}}/seed_{{seed}}/model_card.md",
    log:
        f"logs/ct/{CT_ABLATION}/{{arm}}_seed_{{seed}}.log",
    benchmark:
        f"logs/ct/benchmarks/{CT_ABLATION}/{{arm}}_seed_{{seed}}.tsv"
    threads: 1
    params:
        folder=subpath(output.config, parent=True),
        features=subpath(input.features, parent=True),
        work=f"work/ct/{CT_ABLATION}/cells/{{arm}}/seed_{{seed}}",
        settings=lambda wildcards: settings_file(
            "train-ct-report-model",
            CT_ARMS[wildcards.arm].stage_two(int(wildcards.seed)).to_json(),
        ),
    message:
        "Train stage 2 of arm {wildcards.arm}, seed {wildcards.seed}"


use rule generate_ct_reports_shard as generate_ct_ablation_reports with:
    input:
        table=CT_TABLE,
        annotation=rules.build_ct_annotation.output.annotation,
        features=CT_FOLDERS.of_job("features", "features.json"),
        weights=rules.train_ct_ablation_cell.output.weights,
        vocabulary=rules.train_ct_ablation_cell.output.vocabulary,
        config=rules.train_ct_ablation_cell.output.config,
        language_model=rules.train_ct_report_model.input.language_model,
    output:
        f"results/ct/{CT_ABLATION}/cells/{{arm}}/seed_{{seed}}/reports.jsonl",
    log:
        f"logs/ct/{CT_ABLATION}/{{arm}}_seed_{{seed}}_reports.log",
    benchmark:
        f"logs/ct/benchmarks/{CT_ABLATION}/{{arm}}_seed_{{seed}}_reports.tsv"
    threads: 1
    params:
        model=subpath(input.config, parent=True),
        features=subpath(input.features, parent=True),
        table=CONFIG.ct.structures.table,
        shard="--shard 1 --shards 1",
        settings=settings_file("generate-ct-reports-shard"),
    message:
        "Write the reports of arm {wildcards.arm}, seed {wildcards.seed}"


use rule retrieve_ct_reports as retrieve_ct_ablation_reports with:
    input:
        generated=CT_FOLDERS.of_first("cells", CT_PLAN.reference, "reports.jsonl"),
        annotation=rules.build_ct_annotation.output.annotation,
        features=CT_FOLDERS.of_first("features", CT_PLAN.reference, "features.json"),
        vocabulary=CT_FOLDERS.of_first("cells", CT_PLAN.reference, "vocabulary.json"),
    output:
        nearest=f"results/ct/{CT_ABLATION}/baselines/nearest.jsonl",
        label_set=f"results/ct/{CT_ABLATION}/baselines/label_set.jsonl",
        classifier=f"results/ct/{CT_ABLATION}/baselines/classifier.json",
        run=f"results/ct/{CT_ABLATION}/baselines/run.json",
    log:
        f"logs/ct/{CT_ABLATION}/baselines.log",
    benchmark:
        f"logs/ct/benchmarks/{CT_ABLATION}/baselines.tsv"
    message:
        "Look up training reports by the features of the ablation's reference"


rule ct_ablation:
    input:
        reports=CT_FOLDERS.files("cells", "reports.jsonl"),
        histories=CT_FOLDERS.files("cells", "metrics.jsonl"),
        scores=CT_FOLDERS.files("structures", "scores/metrics.json"),
        ranks=CT_FOLDERS.files("structures", "scores/per_volume.jsonl"),
        annotation=rules.build_ct_annotation.output.annotation,
        design=CT_DESIGN,
        nearest=rules.retrieve_ct_ablation_reports.output.nearest,
        label_set=rules.retrieve_ct_ablation_reports.output.label_set,
    output:
        json=f"results/ct/{CT_ABLATION}/ablation.json",
        markdown=f"results/ct/{CT_ABLATION}/ablation.md",
        csv=f"results/ct/{CT_ABLATION}/ablation.csv",
        page=report(
            f"results/ct/{CT_ABLATION}/ablation.html",
            caption="../../report/ct/ablation_table.rst",
            category="Ablation, chest CT",
            labels={"what": "Table"},
        ),
        figure=report(
            f"results/ct/{CT_ABLATION}/ablation.svg",
            caption="../../report/ct/ablation_figure.rst",
            category="Ablation, chest CT",
            labels={"what": "Figure"},
        ),
        png=f"results/ct/{CT_ABLATION}/ablation.png",
        run=f"results/ct/{CT_ABLATION}/run.json",
    log:
        f"logs/ct/{CT_ABLATION}.log",
    benchmark:
        f"logs/ct/benchmarks/{CT_ABLATION}.tsv"
    conda:
        "../../../envs/ct_ablation.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=120,
        options=runtime_options("ct-ablation"),
    params:
        folder=subpath(output.json, parent=True),
        settings=settings_file("ct-ablation"),
    message:
        "Score every cell of the ablation of chest CT and lay out the table"
    shell:
        "python -m d2rnet ct-ablation --folder {params.folder:q} --annotation {input.annotation:q} --design {input.design:q}"
        " --nearest {input.nearest:q} --label-set {input.label_set:q} --output {params.folder:q}"
        " --settings {params.settings:q} {resources.options} --log {log:q}"
