rule calibrate_thresholds:
    input:
        val=rules.convert_labelled.output.val,
        ema_teacher=rules.train_detector.output.ema_teacher,
        config=rules.train_detector.output.config,
    output:
        thresholds=report(
            "results/cxr/calibrate_thresholds/thresholds.json",
            caption="../../report/cxr/calibrate_thresholds.rst",
            category="Pseudo boxes",
            labels={"what": "Thresholds by class (JSON)"},
        ),
        run="results/cxr/calibrate_thresholds/run.json",
    log:
        "logs/cxr/calibrate_thresholds.log",
    benchmark:
        "logs/cxr/benchmarks/calibrate_thresholds.tsv"
    conda:
        "../../../envs/calibrate_thresholds.yaml"
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=growing(4000),
        runtime=120,
        options=runtime_options("calibrate-thresholds"),
        gpu=min(1, CONFIG.runtime.gpus),
        device=DEVICE,
    params:
        model=subpath(input.config, parent=True),
        folder=subpath(output.thresholds, parent=True),
        settings=settings_file("calibrate-thresholds"),
    message:
        "Choose score thresholds by class on the labelled validation split"
    shell:
        "python -m d2rnet calibrate-thresholds --labelled-val {input.val:q} --model {params.model:q}"
        " --output {params.folder:q} --settings {params.settings:q} --device {resources.device:q}"
        " --threads {threads} {resources.options} --log {log:q}"


CALIBRATED = (
    [rules.calibrate_thresholds.output.thresholds]
    if CONFIG.cxr.annotation.thresholds == "calibrated"
    else []
)


rule build_annotation:
    input:
        unlabelled=rules.convert_unlabelled.output.coco,
        reports=rules.convert_unlabelled.output.reports,
        predictions=rules.predict_boxes.output.predictions,
        thresholds=CALIBRATED,
    output:
        annotation="results/cxr/build_annotation/annotation.json",
        counts="results/cxr/build_annotation/counts.json",
        run="results/cxr/build_annotation/run.json",
    log:
        "logs/cxr/build_annotation.log",
    benchmark:
        "logs/cxr/benchmarks/build_annotation.tsv"
    conda:
        "../../../envs/build_annotation.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=60,
    params:
        folder=subpath(output.annotation, parent=True),
        thresholds=option("thresholds", CALIBRATED),
        settings=settings_file("build-annotation"),
    message:
        "Filter pseudo boxes and join them with reports into annotation.json"
    shell:
        "python -m d2rnet build-annotation --unlabelled {input.unlabelled:q} --reports {input.reports:q}"
        " --predictions {input.predictions:q} {params.thresholds} --output {params.folder:q} --settings {params.settings:q}"
        " --log {log:q}"
