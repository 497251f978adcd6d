rule extract_ct_features_shard:
    input:
        annotation=rules.build_ct_annotation.output.annotation,
        volumes=rules.convert_ct.output.volumes,
        weights=rules.train_structures.output.weights,
        vocabulary=rules.train_structures.output.vocabulary,
        config=rules.train_structures.output.config,
    output:
        "results/ct/extract_ct_features/shards/{scatteritem}.jsonl",
    log:
        "logs/ct/extract_ct_features/{scatteritem}.log",
    benchmark:
        "logs/ct/benchmarks/extract_ct_features/{scatteritem}.tsv"
    conda:
        "../../../envs/extract_ct_features_shard.yaml"
    threads: 1  # volume by volume: two shards use two cores better
    resources:
        mem_mb=growing(6000),
        runtime=1440,
        options=runtime_options("extract-ct-features-shard"),
        gpu=min(1, CONFIG.runtime.gpus),
        device=DEVICE,
    params:
        volumes=subpath(input.volumes, parent=True),
        structures=subpath(input.config, parent=True),
        folder=subpath(output[0], ancestor=2),
        shard=shard_options,
        settings=settings_file("extract-ct-features-shard"),
    message:
        "Let stage 1 look at shard {wildcards.scatteritem} of the CT volumes"
    shell:
        "python -m d2rnet extract-ct-features-shard --annotation {input.annotation:q} --volumes {params.volumes:q}"
        " --structures {params.structures:q} --folder {params.folder:q} {params.shard} --output {output:q}"
        " --settings {params.settings:q} --device {resources.device:q} --threads {threads} {resources.options} --log {log:q}"


rule extract_ct_features:
    input:
        annotation=rules.build_ct_annotation.output.annotation,
        shards=gather.extract_ct(rules.extract_ct_features_shard.output),
    output:
        index="results/ct/extract_ct_features/features.json",
        run="results/ct/extract_ct_features/run.json",
    log:
        "logs/ct/extract_ct_features.log",
    conda:
        "../../../envs/extract_ct_features.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=60,
    params:
        folder=subpath(output.index, parent=True),
        settings=settings_file("extract-ct-features"),
    message:
        "Join the shards of the features of stage 1"
    shell:
        "python -m d2rnet extract-ct-features --annotation {input.annotation:q} --shards {input.shards:q}"
        " --output {params.folder:q} --settings {params.settings:q} --log {log:q}"


rule build_ct_vocabulary:
    input:
        annotation=rules.build_ct_annotation.output.annotation,
    output:
        vocabulary="results/ct/build_ct_vocabulary/vocabulary.json",
        run="results/ct/build_ct_vocabulary/run.json",
    log:
        "logs/ct/build_ct_vocabulary.log",
    conda:
        "../../../envs/build_ct_vocabulary.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=30,
    params:
        folder=subpath(output.vocabulary, parent=True),
        settings=settings_file("build-ct-vocabulary"),
    message:
        "Build the vocabulary from the training reports of chest CT"
    shell:
        "python -m d2rnet build-ct-vocabulary --annotation {input.annotation:q} --output {params.folder:q}"
        " --settings {params.settings:q} --log {log:q}"


rule train_ct_report_model:
    input:
        annotation=rules.build_ct_annotation.output.annotation,
        vocabulary=rules.build_ct_vocabulary.output.vocabulary,
        features=rules.extract_ct_features.output.index,
        decoder_weights=CONFIG.ct.report.model.weights or [],
        language_model=CONFIG.ct.report.model.llm.weights or [],
    output:
        weights="results/ct/train_ct_report_model/model.safetensors",
        vocabulary="results/ct/train_ct_report_model/vocabulary.json",
        config="results/ct/train_ct_report_model/config.yaml",
        metrics="results/ct/train_ct_report_model/metrics.jsonl",
        run="results/ct/train_ct_report_model/run.json",
        card="results/ct/train_ct_report_model/model_card.md",
    log:
        "logs/ct/train_ct_report_model.log",
    benchmark:
        "logs/ct/benchmarks/train_ct_report_model.tsv"
    conda:
        "../../../envs/train_ct_report_model.yaml"
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=growing(
            CONFIG.runtime.training_memory_mb(8000)
            + max(1, CONFIG.runtime.gpus) * language_model_mb()
        ),
        runtime=60 * CONFIG.runtime.training_hours,
        options=runtime_options("train-ct-report-model"),
        gpu=CONFIG.runtime.gpus,
        tasks=0 if CONFIG.runtime.gpus > 1 else 1,  # as in train_detector
        processes=max(1, CONFIG.runtime.gpus),
        device=DEVICE,
    params:
        folder=subpath(output.config, parent=True),
        features=subpath(input.features, parent=True),
        work="work/ct/train_ct_report_model",
        settings=settings_file("train-ct-report-model"),
    message:
        "Train the report model of chest CT"
    shell:
        "python -m d2rnet train-ct-report-model --annotation {input.annotation:q} --vocabulary {input.vocabulary:q}"
        " --features {params.features:q} --work {params.work:q} --output {params.folder:q}"
        " --settings {params.settings:q} --device {resources.device:q} --processes {resources.processes}"
        " --threads {threads} {resources.options} --log {log:q}"


rule generate_ct_reports_shard:
    input:
        table=CT_TABLE,
        annotation=rules.build_ct_annotation.output.annotation,
        features=rules.extract_ct_features.output.index,
        weights=rules.train_ct_report_model.output.weights,
        vocabulary=rules.train_ct_report_model.output.vocabulary,
        config=rules.train_ct_report_model.output.config,
        language_model=CONFIG.ct.report.model.llm.weights or [],
    output:
        "results/ct/generate_ct_reports/shards/{scatteritem}.jsonl",
    log:
        "logs/ct/generate_ct_reports/{scatteritem}.log",
    benchmark:
        "logs/ct/benchmarks/generate_ct_reports/{scatteritem}.tsv"
    conda:
        "../../../envs/generate_ct_reports_shard.yaml"
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=growing(4000 + language_model_mb()),
        runtime=720,
        options=runtime_options("generate-ct-reports-shard"),
        gpu=min(1, CONFIG.runtime.gpus),
        device=DEVICE,
    params:
        model=subpath(input.config, parent=True),
        features=subpath(input.features, parent=True),
        table=CONFIG.ct.structures.table,
        shard=shard_options,
        settings=settings_file("generate-ct-reports-shard"),
    message:
        "Write the findings of shard {wildcards.scatteritem} of the CT test split"
    shell:
        "python -m d2rnet generate-ct-reports-shard --annotation {input.annotation:q} --features {params.features:q}"
        " --model {params.model:q} --table={params.table:q} {params.shard} --output {output:q}"
        " --settings {params.settings:q} --device {resources.device:q} --threads {threads} {resources.options} --log {log:q}"


rule generate_ct_reports:
    input:
        annotation=rules.build_ct_annotation.output.annotation,
        shards=gather.generate_ct(rules.generate_ct_reports_shard.output),
    output:
        test="results/ct/generate_ct_reports/test.jsonl",
        run="results/ct/generate_ct_reports/run.json",
    log:
        "logs/ct/generate_ct_reports.log",
    conda:
        "../../../envs/generate_ct_reports.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=30,
    params:
        settings=settings_file("generate-ct-reports"),
    message:
        "Join the shards of generated CT reports"
    shell:
        "python -m d2rnet generate-ct-reports --annotation {input.annotation:q} --shards {input.shards:q}"
        " --output {output.test:q} --settings {params.settings:q} --log {log:q}"
