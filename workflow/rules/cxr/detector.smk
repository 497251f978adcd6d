# The device is a resource, not a parameter: where a job runs must not make Snakemake run it again.


rule train_detector:
    input:
        train=rules.convert_labelled.output.train,
        val=rules.convert_labelled.output.val,
        test=rules.convert_labelled.output.test,
        unlabelled=rules.convert_unlabelled.output.coco,
        weights=CONFIG.cxr.detector.model.weights or [],
    output:
        ema_teacher="results/cxr/train_detector/model_final.pth",
        student="results/cxr/train_detector/student_final.pth",
        burn_in="results/cxr/train_detector/burn_in.pth",
        config="results/cxr/train_detector/config.yaml",
        metrics="results/cxr/train_detector/metrics.jsonl",
        run="results/cxr/train_detector/run.json",
        card="results/cxr/train_detector/model_card.md",
    log:
        "logs/cxr/train_detector.log",
    benchmark:
        "logs/cxr/benchmarks/train_detector.tsv"
    conda:
        "../../../envs/train_detector.yaml"
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=growing(CONFIG.runtime.training_memory_mb(6000)),
        runtime=60 * CONFIG.runtime.training_hours,
        options=runtime_options("train-detector"),
        gpu=CONFIG.runtime.gpus,
        # SLURM's plugin would start the command once a GPU; the command starts its own processes.
        tasks=0 if CONFIG.runtime.gpus > 1 else 1,
        processes=max(1, CONFIG.runtime.gpus),
        device=DEVICE,
    params:
        folder=subpath(output.config, parent=True),
        work="work/cxr/train_detector",
        settings=settings_file("train-detector"),
    message:
        "Train the Unbiased Teacher v2 detector"
    shell:
        "python -m d2rnet train-detector --labelled-train {input.train:q} --labelled-val {input.val:q}"
        " --labelled-test {input.test:q} --unlabelled {input.unlabelled:q} --work {params.work:q}"
        " --output {params.folder:q} --settings {params.settings:q} --device {resources.device:q}"
        " --processes {resources.processes} --threads {threads} {resources.options} --log {log:q}"


# file -> category and label in the Snakemake report
DETECTOR_FIGURES = {
    "precision_recall.svg": ("Detector", "Precision and recall per class"),
    "froc.svg": ("Detector", "Free-response ROC"),
    "reliability.svg": ("Detector", "Reliability of the scores"),
}


rule evaluate_detector:
    input:
        test=rules.convert_labelled.output.test,
        ema_teacher=rules.train_detector.output.ema_teacher,
        student=rules.train_detector.output.student,
        config=rules.train_detector.output.config,
    output:
        **in_report("results/cxr/evaluate_detector/figures", DETECTOR_FIGURES),
        metrics="results/cxr/evaluate_detector/metrics.json",
        png=expand(
            "results/cxr/evaluate_detector/figures/{figure}.png",
            figure=[Path(file).stem for file in DETECTOR_FIGURES],
        ),
        run="results/cxr/evaluate_detector/run.json",
    log:
        "logs/cxr/evaluate_detector.log",
    benchmark:
        "logs/cxr/benchmarks/evaluate_detector.tsv"
    conda:
        "../../../envs/evaluate_detector.yaml"
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=growing(4000),
        runtime=120,
        options=runtime_options("evaluate-detector"),
        gpu=min(1, CONFIG.runtime.gpus),
        device=DEVICE,
    params:
        model=subpath(input.config, parent=True),
        folder=subpath(output.metrics, parent=True),
        settings=settings_file("evaluate-detector"),
    message:
        "Score student and EMA teacher on the labelled test split"
    shell:
        "python -m d2rnet evaluate-detector --labelled-test {input.test:q} --model {params.model:q}"
        " --output {params.folder:q} --settings {params.settings:q} --device {resources.device:q}"
        " --threads {threads} {resources.options} --log {log:q}"


rule predict_boxes_shard:
    input:
        unlabelled=rules.convert_unlabelled.output.coco,
        ema_teacher=rules.train_detector.output.ema_teacher,
        config=rules.train_detector.output.config,
    output:
        "results/cxr/predict_boxes/shards/{scatteritem}.jsonl",
    log:
        "logs/cxr/predict_boxes/{scatteritem}.log",
    benchmark:
        "logs/cxr/benchmarks/predict_boxes/{scatteritem}.tsv"
    conda:
        "../../../envs/predict_boxes_shard.yaml"
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=growing(4000),
        runtime=1440,
        options=runtime_options("predict-boxes-shard"),
        gpu=min(1, CONFIG.runtime.gpus),
        device=DEVICE,
    params:
        model=subpath(input.config, parent=True),
        shard=images_looked_at,
        settings=settings_file("predict-boxes-shard"),
    message:
        "Draw pseudo boxes on shard {wildcards.scatteritem}"
    shell:
        "python -m d2rnet predict-boxes-shard --unlabelled {input.unlabelled:q} --model {params.model:q}"
        " {params.shard} --output {output:q} --settings {params.settings:q}"
        " --device {resources.device:q} --threads {threads} {resources.options} --log {log:q}"


rule predict_boxes:
    input:
        unlabelled=rules.convert_unlabelled.output.coco,
        shards=gather.predict(rules.predict_boxes_shard.output),
    output:
        predictions="results/cxr/predict_boxes/predictions.jsonl",
        coco="results/cxr/predict_boxes/predictions.json",
        run="results/cxr/predict_boxes/run.json",
    log:
        "logs/cxr/predict_boxes.log",
    conda:
        "../../../envs/predict_boxes.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=60,
    params:
        settings=settings_file("predict-boxes"),
    message:
        "Join the shards of pseudo boxes"
    shell:
        "python -m d2rnet predict-boxes --unlabelled {input.unlabelled:q} --shards {input.shards:q}"
        " --output {output.predictions:q} --settings {params.settings:q} --log {log:q}"
