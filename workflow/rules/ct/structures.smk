rule train_structures:
    input:
        table=CT_TABLE,
        annotation=rules.build_ct_annotation.output.annotation,
        volumes=rules.convert_ct.output.volumes,
        encoder_weights=CONFIG.ct.structure_model.model.encoder.weights or [],
        text_encoder=CONFIG.ct.structure_model.text.weights or [],
        ct_clip_text=CONFIG.ct.structure_model.text.ct_clip_weights or [],
    output:
        weights="results/ct/train_structures/model.safetensors",
        text_tower="results/ct/train_structures/text_tower.safetensors",
        vocabulary="results/ct/train_structures/vocabulary.json",
        config="results/ct/train_structures/config.yaml",
        metrics="results/ct/train_structures/metrics.jsonl",
        run="results/ct/train_structures/run.json",
        card="results/ct/train_structures/model_card.md",
    log:
        "logs/ct/train_structures.log",
    benchmark:
        "logs/ct/benchmarks/train_structures.tsv"
    conda:
        "../../../envs/train_structures.yaml"
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=growing(CONFIG.runtime.training_memory_mb(16000)),
        runtime=60 * CONFIG.runtime.training_hours,
        options=runtime_options("train-structures"),
        gpu=CONFIG.runtime.gpus,
        tasks=0 if CONFIG.runtime.gpus > 1 else 1,  # as in train_detector
        processes=max(1, CONFIG.runtime.gpus),
        device=DEVICE,
    params:
        folder=subpath(output.config, parent=True),
        volumes=subpath(input.volumes, parent=True),
        work="work/ct/train_structures",
        settings=settings_file("train-structures"),
    message:
        "Train stage 1: queries observe structures"
    shell:
        "python -m d2rnet train-structures --annotation {input.annotation:q} --volumes {params.volumes:q}"
        " --work {params.work:q} --output {params.folder:q} --settings {params.settings:q}"
        " --device {resources.device:q} --processes {resources.processes} --threads {threads}"
        " {resources.options} --log {log:q}"


CT_MASKS = CONFIG.ct.structure_model.evaluation.masks

# file -> category and label in the Snakemake report
STRUCTURE_FIGURES = {
    "structures.svg": ("Chest CT: structures", "Retrieval, attention, likeness, AUROC"),
}


rule evaluate_structures:
    input:
        table=CT_TABLE,
        annotation=rules.build_ct_annotation.output.annotation,
        volumes=rules.convert_ct.output.volumes,
        weights=rules.train_structures.output.weights,
        text_tower=rules.train_structures.output.text_tower,
        vocabulary=rules.train_structures.output.vocabulary,
        config=rules.train_structures.output.config,
        truth=(
            rules.make_ct_demo_cohort.output.truth
            if CONFIG.ct.data.demo.enabled
            else []
        ),
        masks=CT_MASKS or [],
        mask_codes=CONFIG.ct.structure_model.evaluation.mask_codes or [],
    output:
        **in_report("results/ct/evaluate_structures", STRUCTURE_FIGURES),
        metrics="results/ct/evaluate_structures/metrics.json",
        markdown="results/ct/evaluate_structures/metrics.md",
        png="results/ct/evaluate_structures/structures.png",
        run="results/ct/evaluate_structures/run.json",
    log:
        "logs/ct/evaluate_structures.log",
    benchmark:
        "logs/ct/benchmarks/evaluate_structures.tsv"
    conda:
        "../../../envs/evaluate_structures.yaml"
    threads: 1  # volume by volume: two jobs use two cores better
    resources:
        mem_mb=growing(8000),
        runtime=120,
        options=runtime_options("evaluate-structures"),
        gpu=min(1, CONFIG.runtime.gpus),
        device=DEVICE,
    params:
        folder=subpath(output.metrics, parent=True),
        volumes=subpath(input.volumes, parent=True),
        model=subpath(input.weights, parent=True),
        masks=option(
            "masks",
            (
                ["resources/ct/demo_cohort/masks"]
                if CONFIG.ct.data.demo.enabled and not CT_MASKS
                else []
            ),
        ),
        settings=settings_file("evaluate-structures"),
    message:
        "Score stage 1 on the test split"
    shell:
        "python -m d2rnet evaluate-structures --annotation {input.annotation:q} --volumes {params.volumes:q}"
        " --model {params.model:q} {params.masks} --output {params.folder:q} --settings {params.settings:q}"
        " --device {resources.device:q} --threads {threads} {resources.options} --log {log:q}"
