rule retrieve_reports:
    input:
        generated=rules.generate_reports.output.test,
        annotation=rules.build_annotation.output.annotation,
        weights=rules.train_report_model.output.weights,
        vocabulary=rules.train_report_model.output.vocabulary,
        config=rules.train_report_model.output.config,
    output:
        test="results/retrieve_reports/test.jsonl",
        run="results/retrieve_reports/run.json",
    log:
        "logs/retrieve_reports.log",
    benchmark:
        "logs/benchmarks/retrieve_reports.tsv"
    conda:
        "../../envs/retrieve_reports.yaml"
    threads: config["runtime"]["threads"]
    resources:
        mem_mb=growing(4000),
        runtime=240,
        gpu=min(1, config["runtime"]["gpus"]),
        device=config["runtime"]["device"],
    params:
        model=subpath(input.config, parent=True),
        image_root=config["data"]["reports"]["root"],
        settings=settings("evaluation", only=["retrieval_candidates", "retrieval_seed"]),
    message:
        "Find the training report of the most similar image for each report, a baseline"
    shell:
        "python -m d2rnet retrieve-reports --generated {input.generated:q} --annotation {input.annotation:q}"
        " --image-root={params.image_root:q} --model {params.model:q} --output {output.test:q} --workers {threads}"
        " --settings {params.settings:q} --device {resources.device:q} --threads {threads} --log {log:q}"


rule evaluate_reports:
    input:
        generated=rules.generate_reports.output.test,
        annotation=rules.build_annotation.output.annotation,
        config=rules.train_report_model.output.config,
        nearest=(
            rules.retrieve_reports.output.test
            if config["evaluation"]["retrieval_candidates"]
            else []
        ),
        no_box=config["evaluation"]["no_box_reports"] or [],
    output:
        metrics="results/evaluate_reports/metrics.json",
        per_report="results/evaluate_reports/per_report.jsonl",
        run="results/evaluate_reports/run.json",
    log:
        "logs/evaluate_reports.log",
    benchmark:
        "logs/benchmarks/evaluate_reports.tsv"
    conda:
        "../../envs/evaluate_reports.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=60,
    params:
        model=subpath(input.config, parent=True),
        folder=subpath(output.metrics, parent=True),
        nearest=(
            f"--nearest {rules.retrieve_reports.output.test}"
            if config["evaluation"]["retrieval_candidates"]
            else ""
        ),
        settings=settings("evaluation", without=["gallery"]),
    message:
        "Score the generated reports"
    shell:
        "python -m d2rnet evaluate-reports --generated {input.generated:q} --annotation {input.annotation:q}"
        " --model {params.model:q} {params.nearest} --output {params.folder:q} --settings {params.settings:q}"
        " --log {log:q}"


rule render_gallery:
    input:
        generated=rules.generate_reports.output.test,
        annotation=rules.build_annotation.output.annotation,
        metrics=rules.evaluate_reports.output.metrics,
        per_report=rules.evaluate_reports.output.per_report,
        true_boxes=config["evaluation"]["gallery"]["true_boxes"]
        or (
            rules.make_demo_cohort.output.truth
            if config["data"]["demo"]["enabled"]
            else []
        ),
    output:
        page="results/render_gallery/index.html",
        run="results/render_gallery/run.json",
    log:
        "logs/render_gallery.log",
    benchmark:
        "logs/benchmarks/render_gallery.tsv"
    conda:
        "../../envs/render_gallery.yaml"
    threads: config["runtime"]["workers"]
    resources:
        mem_mb=growing(4000),
        runtime=60,
    params:
        scores=subpath(input.metrics, parent=True),
        folder=subpath(output.page, parent=True),
        image_root=config["data"]["reports"]["root"],
        settings=settings("evaluation.gallery", without=["true_boxes"]),
        true_boxes=lambda wildcards, input: json.dumps(str(input.true_boxes) or None),
    message:
        "Show radiographs, boxes and reports on one page"
    shell:
        "python -m d2rnet render-gallery --generated {input.generated:q} --annotation {input.annotation:q}"
        " --scores {params.scores:q} --image-root={params.image_root:q} --output {params.folder:q} --workers {threads}"
        " --settings {params.settings:q} --set true_boxes={params.true_boxes:q} --log {log:q}"


rule summarize:
    input:
        detector_metrics=rules.evaluate_detector.output.metrics,
        report_metrics=rules.evaluate_reports.output.metrics,
        counts=[
            rules.convert_labelled.output.counts,
            rules.convert_unlabelled.output.counts,
            rules.build_annotation.output.counts,
        ]
        + (
            [rules.make_demo_cohort.output.cohort]
            if config["data"]["demo"]["enabled"]
            else []
        ),
        detector=rules.train_detector.output.run,
        report_model=rules.train_report_model.output.run,
    output:
        markdown="results/summarize/summary.md",
        json="results/summarize/summary.json",
        detector_card="results/summarize/detector_card.md",
        report_model_card="results/summarize/report_model_card.md",
    log:
        "logs/summarize.log",
    conda:
        "../../envs/summarize.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=10,
    params:
        folder=subpath(output.json, parent=True),
        detector=subpath(input.detector, parent=True),
        report_model=subpath(input.report_model, parent=True),
    message:
        "Put all figures of the run in one table"
    shell:
        "python -m d2rnet summarize --detector-metrics {input.detector_metrics:q}"
        " --report-metrics {input.report_metrics:q} --counts {input.counts:q}"
        " --models {params.detector:q} {params.report_model:q} --output {params.folder:q} --log {log:q}"


rule draw_figures:
    input:
        detector_history=rules.train_detector.output.metrics,
        report_history=rules.train_report_model.output.metrics,
        report_config=rules.train_report_model.output.config,
        annotation=rules.build_annotation.output.annotation,
        generated=rules.generate_reports.output.test,
        summary=rules.summarize.output.json,
    output:
        summary=report(
            "results/draw_figures/summary.html",
            caption="../report/summary.rst",
            category="Summary",
            labels={"what": "All figures"},
        ),
        detector_classes=report(
            "results/draw_figures/detector_classes.html",
            caption="../report/detector_classes.rst",
            category="Detector",
            labels={"what": "Scores by class"},
        ),
        detector_training=report(
            "results/draw_figures/detector_training.svg",
            caption="../report/detector_training.rst",
            category="Detector",
            labels={"what": "Loss curves"},
        ),
        pseudo_box_counts=report(
            "results/draw_figures/pseudo_box_counts.html",
            caption="../report/pseudo_box_counts.rst",
            category="Pseudo boxes",
            labels={"what": "Kept and dropped, by class"},
        ),
        pseudo_box_statistics=report(
            "results/draw_figures/pseudo_box_statistics.svg",
            caption="../report/pseudo_box_statistics.rst",
            category="Pseudo boxes",
            labels={"what": "In annotation.json"},
        ),
        report_scores=report(
            "results/draw_figures/report_scores.html",
            caption="../report/report_scores.rst",
            category="Reports",
            labels={"what": "Scores and controls"},
        ),
        report_classes=report(
            "results/draw_figures/report_classes.html",
            caption="../report/report_classes.rst",
            category="Reports",
            labels={"what": "Lesions named, by class"},
        ),
        report_training=report(
            "results/draw_figures/report_training.svg",
            caption="../report/report_training.rst",
            category="Reports",
            labels={"what": "Loss curves"},
        ),
        sample_readings=report(
            "results/draw_figures/sample_readings.html",
            caption="../report/sample_readings.rst",
            category="Reports",
            labels={"what": "Sample readings"},
        ),
        others=expand(
            "results/draw_figures/{name}",
            name=[
                "detector_training.png",
                "pseudo_box_statistics.png",
                "report_training.png",
                "sample_readings.png",
                "sample_readings.svg",
            ],
        ),
        run="results/draw_figures/run.json",
    log:
        "logs/draw_figures.log",
    benchmark:
        "logs/benchmarks/draw_figures.tsv"
    conda:
        "../../envs/draw_figures.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=30,
    params:
        model=subpath(input.report_config, parent=True),
        folder=subpath(output.run, parent=True),
        image_root=config["data"]["reports"]["root"],
    message:
        "Draw training curves, pseudo-box statistics and sample readings; lay out the tables"
    shell:
        "python -m d2rnet draw-figures --detector-history {input.detector_history:q} --report-model {params.model:q}"
        " --annotation {input.annotation:q} --generated {input.generated:q} --image-root={params.image_root:q}"
        " --summary {input.summary:q} --output {params.folder:q} --log {log:q}"
