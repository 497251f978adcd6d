# The device is a resource, not a parameter: where a job runs must not make Snakemake run it again.


rule train_detector:
    input:
        train=rules.convert_labelled.output.train,
        val=rules.convert_labelled.output.val,
        test=rules.convert_labelled.output.test,
        unlabelled=rules.convert_unlabelled.output.coco,
        weights=config["detector"]["model"]["weights"] or [],
    output:
        ema_teacher="results/train_detector/model_final.pth",
        student="results/train_detector/student_final.pth",
        burn_in="results/train_detector/burn_in.pth",
        config="results/train_detector/config.yaml",
        metrics="results/train_detector/metrics.jsonl",
        run="results/train_detector/run.json",
        card="results/train_detector/model_card.md",
    log:
        "logs/train_detector.log",
    benchmark:
        "logs/benchmarks/train_detector.tsv"
    conda:
        "../../envs/train_detector.yaml"
    threads: config["runtime"]["threads"]
    resources:
        mem_mb=growing(6000 * max(1, config["runtime"]["gpus"])),
        runtime=5760,
        gpu=config["runtime"]["gpus"],
        # SLURM's plugin would start the command once a GPU; the command starts its own processes.
        tasks=0 if config["runtime"]["gpus"] > 1 else 1,
        processes=max(1, config["runtime"]["gpus"]),
        device=config["runtime"]["device"],
    params:
        folder=subpath(output.config, parent=True),
        work="work/train_detector",
        settings=settings("detector", only=["model", "training"]),
    message:
        "Train the Unbiased Teacher v2 detector"
    shell:
        "python -m d2rnet train-detector --labelled-train {input.train:q} --labelled-val {input.val:q}"
        " --labelled-test {input.test:q} --unlabelled {input.unlabelled:q} --work {params.work:q}"
        " --output {params.folder:q} --settings {params.settings:q} --device {resources.device:q}"
        " --processes {resources.processes} --threads {threads} --log {log:q}"


rule evaluate_detector:
    input:
        test=rules.convert_labelled.output.test,
        ema_teacher=rules.train_detector.output.ema_teacher,
        student=rules.train_detector.output.student,
        config=rules.train_detector.output.config,
        history=rules.train_detector.output.metrics,
    output:
        metrics="results/evaluate_detector/metrics.json",
        precision_recall=report(
            "results/evaluate_detector/figures/precision_recall.svg",
            caption="../report/precision_recall.rst",
            category="Detector",
            labels={"what": "Precision and recall by class"},
        ),
        froc=report(
            "results/evaluate_detector/figures/froc.svg",
            caption="../report/froc.rst",
            category="Detector",
            labels={"what": "Free-response ROC"},
        ),
        reliability=report(
            "results/evaluate_detector/figures/reliability.svg",
            caption="../report/reliability.rst",
            category="Detector",
            labels={"what": "Reliability of the scores"},
        ),
        pseudo_boxes=report(
            "results/evaluate_detector/figures/pseudo_boxes.svg",
            caption="../report/pseudo_boxes.rst",
            category="Pseudo boxes",
            labels={"what": "Over the training"},
        ),
        png=expand(
            "results/evaluate_detector/figures/{figure}.png",
            figure=["precision_recall", "froc", "reliability", "pseudo_boxes"],
        ),
        run="results/evaluate_detector/run.json",
    log:
        "logs/evaluate_detector.log",
    benchmark:
        "logs/benchmarks/evaluate_detector.tsv"
    conda:
        "../../envs/evaluate_detector.yaml"
    threads: config["runtime"]["threads"]
    resources:
        mem_mb=growing(4000),
        runtime=120,
        gpu=min(1, config["runtime"]["gpus"]),
        device=config["runtime"]["device"],
    params:
        model=subpath(input.config, parent=True),
        folder=subpath(output.metrics, parent=True),
        settings=settings("detector", only=["prediction", "evaluation"]),
    message:
        "Score student and EMA teacher on the labelled test split"
    shell:
        "python -m d2rnet evaluate-detector --labelled-test {input.test:q} --model {params.model:q}"
        " --output {params.folder:q} --settings {params.settings:q} --device {resources.device:q}"
        " --threads {threads} --log {log:q}"


rule predict_boxes_shard:
    input:
        unlabelled=rules.convert_unlabelled.output.coco,
        ema_teacher=rules.train_detector.output.ema_teacher,
        config=rules.train_detector.output.config,
    output:
        "results/predict_boxes/shards/{scatteritem}.json",
    log:
        "logs/predict_boxes/{scatteritem}.log",
    benchmark:
        "logs/benchmarks/predict_boxes/{scatteritem}.tsv"
    conda:
        "../../envs/predict_boxes_shard.yaml"
    threads: config["runtime"]["threads"]
    resources:
        mem_mb=growing(4000),
        runtime=1440,
        gpu=min(1, config["runtime"]["gpus"]),
        device=config["runtime"]["device"],
    params:
        model=subpath(input.config, parent=True),
        shard=lambda wildcards: wildcards.scatteritem.split("-of-")[0],
        shards=config["runtime"]["prediction_shards"],
        settings=settings("detector.prediction"),
    message:
        "Draw pseudo boxes on shard {wildcards.scatteritem}"
    shell:
        "python -m d2rnet predict-boxes-shard --unlabelled {input.unlabelled:q} --model {params.model:q}"
        " --shard {params.shard} --shards {params.shards} --output {output:q} --settings {params.settings:q}"
        " --device {resources.device:q} --threads {threads} --log {log:q}"


rule predict_boxes:
    input:
        unlabelled=rules.convert_unlabelled.output.coco,
        shards=gather.predict(rules.predict_boxes_shard.output),
    output:
        predictions="results/predict_boxes/predictions.json",
        run="results/predict_boxes/run.json",
    log:
        "logs/predict_boxes.log",
    conda:
        "../../envs/predict_boxes.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=60,
    message:
        "Join the shards of pseudo boxes"
    shell:
        "python -m d2rnet predict-boxes --unlabelled {input.unlabelled:q} --shards {input.shards:q}"
        " --output {output.predictions:q} --log {log:q}"
