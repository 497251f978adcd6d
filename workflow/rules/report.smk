rule build_vocabulary:
    input:
        annotation=rules.build_annotation.output.annotation,
    output:
        vocabulary="results/build_vocabulary/vocabulary.json",
        run="results/build_vocabulary/run.json",
    log:
        "logs/build_vocabulary.log",
    conda:
        "../../envs/build_vocabulary.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=30,
    params:
        folder=subpath(output.vocabulary, parent=True),
        settings=settings("report.text"),
    message:
        "Build the vocabulary from the training reports"
    shell:
        "python -m d2rnet build-vocabulary --annotation {input.annotation:q} --output {params.folder:q}"
        " --settings {params.settings:q} --log {log:q}"


rule train_report_model:
    input:
        annotation=rules.build_annotation.output.annotation,
        vocabulary=rules.build_vocabulary.output.vocabulary,
        backbone_weights=config["report"]["model"]["backbone_weights"] or [],
        text_encoder=config["report"]["training"]["alignment"]["text_encoder_weights"]
        or [],
    output:
        weights="results/train_report_model/model.safetensors",
        vocabulary="results/train_report_model/vocabulary.json",
        config="results/train_report_model/config.yaml",
        metrics="results/train_report_model/metrics.jsonl",
        run="results/train_report_model/run.json",
        card="results/train_report_model/model_card.md",
    log:
        "logs/train_report_model.log",
    benchmark:
        "logs/benchmarks/train_report_model.tsv"
    conda:
        "../../envs/train_report_model.yaml"
    threads: config["runtime"]["threads"]
    resources:
        mem_mb=growing(6000 * max(1, config["runtime"]["gpus"])),
        runtime=5760,
        gpu=config["runtime"]["gpus"],
        tasks=0 if config["runtime"]["gpus"] > 1 else 1,  # as in train_detector
        processes=max(1, config["runtime"]["gpus"]),
        device=config["runtime"]["device"],
    params:
        folder=subpath(output.config, parent=True),
        work="work/train_report_model",
        image_root=config["data"]["reports"]["root"],
        settings=settings("report", only=["text", "model", "training"]),
    message:
        "Train D2R-Net"
    shell:
        "python -m d2rnet train-report-model --annotation {input.annotation:q} --vocabulary {input.vocabulary:q}"
        " --image-root={params.image_root:q} --work {params.work:q} --output {params.folder:q}"
        " --settings {params.settings:q} --device {resources.device:q} --processes {resources.processes}"
        " --threads {threads} --log {log:q}"


rule generate_reports_shard:
    input:
        annotation=rules.build_annotation.output.annotation,
        weights=rules.train_report_model.output.weights,
        vocabulary=rules.train_report_model.output.vocabulary,
        config=rules.train_report_model.output.config,
    output:
        "results/generate_reports/shards/{scatteritem}.jsonl",
    log:
        "logs/generate_reports/{scatteritem}.log",
    benchmark:
        "logs/benchmarks/generate_reports/{scatteritem}.tsv"
    conda:
        "../../envs/generate_reports_shard.yaml"
    threads: config["runtime"]["threads"]
    resources:
        mem_mb=growing(4000),
        runtime=720,
        gpu=min(1, config["runtime"]["gpus"]),
        device=config["runtime"]["device"],
    params:
        model=subpath(input.config, parent=True),
        image_root=config["data"]["reports"]["root"],
        shard=lambda wildcards: wildcards.scatteritem.split("-of-")[0],
        shards=config["runtime"]["generation_shards"],
        settings=settings("report.generation"),
    message:
        "Write the findings of shard {wildcards.scatteritem} of the test split"
    shell:
        "python -m d2rnet generate-reports-shard --annotation {input.annotation:q}"
        " --image-root={params.image_root:q} --model {params.model:q} --shard {params.shard}"
        " --shards {params.shards} --output {output:q} --settings {params.settings:q}"
        " --device {resources.device:q} --threads {threads} --log {log:q}"


rule generate_reports:
    input:
        annotation=rules.build_annotation.output.annotation,
        shards=gather.generate(rules.generate_reports_shard.output),
    output:
        test="results/generate_reports/test.jsonl",
        run="results/generate_reports/run.json",
    log:
        "logs/generate_reports.log",
    conda:
        "../../envs/generate_reports.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=30,
    message:
        "Join the shards of generated reports"
    shell:
        "python -m d2rnet generate-reports --annotation {input.annotation:q} --shards {input.shards:q}"
        " --output {output.test:q} --log {log:q}"
