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


rule fit_thresholds:
    input:
        unlabelled=rules.convert_unlabelled.output.coco,
        reports=rules.convert_unlabelled.output.reports,
        predictions=rules.predict_boxes.output.predictions,
    output:
        thresholds=report(
            "results/cxr/fit_thresholds/thresholds.json",
            caption="../../report/cxr/fit_thresholds.rst",
            category="Pseudo boxes",
            labels={"what": "Thresholds by class, of reports (JSON)"},
        ),
        run="results/cxr/fit_thresholds/run.json",
    log:
        "logs/cxr/fit_thresholds.log",
    benchmark:
        "logs/cxr/benchmarks/fit_thresholds.tsv"
    conda:
        "../../../envs/fit_thresholds.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=60,
    params:
        folder=subpath(output.thresholds, parent=True),
        settings=settings_file("fit-thresholds"),
    message:
        "Choose score thresholds by class on the training reports"
    shell:
        "python -m d2rnet fit-thresholds --unlabelled {input.unlabelled:q} --reports {input.reports:q}"
        " --predictions {input.predictions:q} --output {params.folder:q} --settings {params.settings:q} --log {log:q}"


THRESHOLDS = {
    "fixed": [],
    "calibrated": [rules.calibrate_thresholds.output.thresholds],
    "reports": [rules.fit_thresholds.output.thresholds],
}[CONFIG.cxr.annotation.thresholds]


rule build_annotation:
    input:
        unlabelled=rules.convert_unlabelled.output.coco,
        reports=rules.convert_unlabelled.output.reports,
        predictions=rules.predict_boxes.output.predictions,
        thresholds=THRESHOLDS,
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
        thresholds=option("thresholds", THRESHOLDS),
        settings=settings_file("build-annotation"),
    message:
        "Filter pseudo boxes and join them with reports into annotation.json"
    shell:
        "python -m d2rnet build-annotation --unlabelled {input.unlabelled:q} --reports {input.reports:q}"
        " --predictions {input.predictions:q} {params.thresholds} --output {params.folder:q} --settings {params.settings:q}"
        " --log {log:q}"
