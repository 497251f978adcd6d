rule build_vocabulary:
    input:
        annotation=rules.build_annotation.output.annotation,
    output:
        vocabulary="results/cxr/build_vocabulary/vocabulary.json",
        run="results/cxr/build_vocabulary/run.json",
    log:
        "logs/cxr/build_vocabulary.log",
    conda:
        "../../../envs/build_vocabulary.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=30,
    params:
        folder=subpath(output.vocabulary, parent=True),
        settings=settings_file("build-vocabulary"),
    message:
        "Build the vocabulary from the training reports"
    shell:
        "python -m d2rnet build-vocabulary --annotation {input.annotation:q} --output {params.folder:q}"
        " --settings {params.settings:q} --log {log:q}"


rule train_report_model:
    input:
        annotation=rules.build_annotation.output.annotation,
        vocabulary=rules.build_vocabulary.output.vocabulary,
        backbone_weights=backbone_files(CONFIG.cxr.report),
        decoder_weights=CONFIG.cxr.report.model.weights or [],
        text_encoder=CONFIG.cxr.report.training.alignment.text_encoder_weights or [],
    output:
        weights="results/cxr/train_report_model/model.safetensors",
        vocabulary="results/cxr/train_report_model/vocabulary.json",
        config="results/cxr/train_report_model/config.yaml",
        metrics="results/cxr/train_report_model/metrics.jsonl",
        run="results/cxr/train_report_model/run.json",
        card="results/cxr/train_report_model/model_card.md",
    log:
        "logs/cxr/train_report_model.log",
    benchmark:
        "logs/cxr/benchmarks/train_report_model.tsv"
    conda:
        "../../../envs/train_report_model.yaml"
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=growing(CONFIG.runtime.training_memory_mb(16000)),
        runtime=60 * CONFIG.runtime.training_hours,
        options=runtime_options("train-report-model"),
        gpu=CONFIG.runtime.gpus,
        tasks=0 if CONFIG.runtime.gpus > 1 else 1,  # as in train_detector
        processes=max(1, CONFIG.runtime.gpus),
        device=DEVICE,
    params:
        folder=subpath(output.config, parent=True),
        work="work/cxr/train_report_model",
        image_cache="work/cxr/train_report_model/images",  # that of all trainings of report models
        image_root=CONFIG.cxr.data.reports.root,
        warm_start=detector_option(CONFIG.cxr.report),
        settings=settings_file("train-report-model"),
    message:
        "Train D2R-Net"
    shell:
        "python -m d2rnet train-report-model --annotation {input.annotation:q} --vocabulary {input.vocabulary:q}"
        " --image-root={params.image_root:q} {params.warm_start} --work {params.work:q} --image-cache {params.image_cache:q}"
        " --output {params.folder:q}"
        " --settings {params.settings:q} --device {resources.device:q} --processes {resources.processes}"
        " --threads {threads} {resources.options} --log {log:q}"


rule describe_reading:
    input:
        annotation=rules.build_annotation.output.annotation,
        ema_teacher=rules.train_detector.output.ema_teacher,
        weights=rules.train_report_model.output.weights,
        thresholds=THRESHOLDS,
    output:
        "results/cxr/train_report_model/reading.json",
    log:
        "logs/cxr/describe_reading.log",
    conda:
        "../../../envs/describe_reading.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=30,
    params:
        image_root=CONFIG.cxr.data.reports.root,
        model=subpath(input.weights, parent=True),
        thresholds=option("thresholds", THRESHOLDS),
        settings=settings_file(
            "describe-reading",
            selected(
                "cxr.data.conversion.max_side_px",
                "cxr.data.labelled.root",
                "cxr.data.reports.root",
                "cxr.data.reports.views",
                "cxr.detector.prediction",
                "cxr.annotation",
                "cxr.report.generation",
                "evaluation.gallery.shown_score",
            ),
        ),
    message:
        "Note beside the report model what a reading needs"
    shell:
        "python -m d2rnet describe-reading --weights {input.ema_teacher:q} --report-model {params.model:q}"
        " --annotation {input.annotation:q} --image-root={params.image_root:q} {params.thresholds} --configfile {params.settings:q} --log {log:q}"


rule generate_reports_shard:
    input:
        annotation=rules.build_annotation.output.annotation,
        weights=rules.train_report_model.output.weights,
        vocabulary=rules.train_report_model.output.vocabulary,
        config=rules.train_report_model.output.config,
    output:
        "results/cxr/generate_reports/shards/{scatteritem}.jsonl",
    log:
        "logs/cxr/generate_reports/{scatteritem}.log",
    benchmark:
        "logs/cxr/benchmarks/generate_reports/{scatteritem}.tsv"
    conda:
        "../../../envs/generate_reports_shard.yaml"
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=growing(4000),
        runtime=720,
        options=runtime_options("generate-reports-shard"),
        gpu=min(1, CONFIG.runtime.gpus),
        device=DEVICE,
    params:
        model=subpath(input.config, parent=True),
        image_root=CONFIG.cxr.data.reports.root,
        shard=shard_options,
        settings=settings_file("generate-reports-shard"),
    message:
        "Write the findings of shard {wildcards.scatteritem} of the test split"
    shell:
        "python -m d2rnet generate-reports-shard --annotation {input.annotation:q}"
        " --image-root={params.image_root:q} --model {params.model:q} {params.shard}"
        " --output {output:q} --settings {params.settings:q}"
        " --device {resources.device:q} --threads {threads} {resources.options} --log {log:q}"


rule generate_reports:
    input:
        annotation=rules.build_annotation.output.annotation,
        shards=gather.generate(rules.generate_reports_shard.output),
    output:
        test="results/cxr/generate_reports/test.jsonl",
        run="results/cxr/generate_reports/run.json",
    log:
        "logs/cxr/generate_reports.log",
    conda:
        "../../../envs/generate_reports.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=30,
    params:
        settings=settings_file("generate-reports"),
    message:
        "Join the shards of generated reports"
    shell:
        "python -m d2rnet generate-reports --annotation {input.annotation:q} --shards {input.shards:q}"
        " --output {output.test:q} --settings {params.settings:q} --log {log:q}"
