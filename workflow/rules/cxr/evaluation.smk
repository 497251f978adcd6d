rule retrieve_reports:
    input:
        generated=rules.generate_reports.output.test,
        annotation=rules.build_annotation.output.annotation,
        weights=rules.train_report_model.output.weights,
        vocabulary=rules.train_report_model.output.vocabulary,
        config=rules.train_report_model.output.config,
    output:
        test="results/cxr/retrieve_reports/test.jsonl",
        run="results/cxr/retrieve_reports/run.json",
    log:
        "logs/cxr/retrieve_reports.log",
    benchmark:
        "logs/cxr/benchmarks/retrieve_reports.tsv"
    conda:
        "../../../envs/retrieve_reports.yaml"
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=growing(4000),
        runtime=240,
        gpu=min(1, CONFIG.runtime.gpus),
        device=DEVICE,
    params:
        model=subpath(input.config, parent=True),
        image_root=CONFIG.cxr.data.reports.root,
        settings=settings_file("retrieve-reports"),
    message:
        "Find the training report of the most similar image for each report, a baseline"
    shell:
        "python -m d2rnet retrieve-reports --generated {input.generated:q} --annotation {input.annotation:q}"
        " --image-root={params.image_root:q} --model {params.model:q} --output {output.test:q} --workers {threads}"
        " --settings {params.settings:q} --device {resources.device:q} --threads {threads} --log {log:q}"


# what these rules take only where the configuration says so
NEAREST = (
    [rules.retrieve_reports.output.test]
    if CONFIG.evaluation.retrieval_candidates
    else []
)
COHORT = [rules.make_demo_cohort.output.cohort] if CONFIG.cxr.data.demo.enabled else []
TRUTH = [rules.make_demo_cohort.output.truth] if CONFIG.cxr.data.demo.enabled else []
TRUE_BOXES = [*filter(None, [CONFIG.evaluation.gallery.true_boxes])] or TRUTH


rule evaluate_reports:
    input:
        generated=rules.generate_reports.output.test,
        annotation=rules.build_annotation.output.annotation,
        config=rules.train_report_model.output.config,
        nearest=NEAREST,
        no_box=CONFIG.evaluation.no_box_reports or [],
    output:
        metrics="results/cxr/evaluate_reports/metrics.json",
        per_report="results/cxr/evaluate_reports/per_report.jsonl",
        run="results/cxr/evaluate_reports/run.json",
    log:
        "logs/cxr/evaluate_reports.log",
    benchmark:
        "logs/cxr/benchmarks/evaluate_reports.tsv"
    conda:
        "../../../envs/evaluate_reports.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=60,
        options=runtime_options("evaluate-reports"),
    params:
        model=subpath(input.config, parent=True),
        folder=subpath(output.metrics, parent=True),
        nearest=option("nearest", NEAREST),
        settings=settings_file("evaluate-reports"),
    message:
        "Score the generated reports"
    shell:
        "python -m d2rnet evaluate-reports --generated {input.generated:q} --annotation {input.annotation:q}"
        " --model {params.model:q} {params.nearest} --output {params.folder:q} --settings {params.settings:q}"
        " {resources.options} --log {log:q}"


rule render_gallery:
    input:
        generated=rules.generate_reports.output.test,
        annotation=rules.build_annotation.output.annotation,
        metrics=rules.evaluate_reports.output.metrics,
        per_report=rules.evaluate_reports.output.per_report,
        true_boxes=TRUE_BOXES,
    output:
        page="results/cxr/render_gallery/index.html",
        run="results/cxr/render_gallery/run.json",
    log:
        "logs/cxr/render_gallery.log",
    benchmark:
        "logs/cxr/benchmarks/render_gallery.tsv"
    conda:
        "../../../envs/render_gallery.yaml"
    threads: CONFIG.runtime.workers
    resources:
        mem_mb=growing(4000),
        runtime=60,
    params:
        scores=subpath(input.metrics, parent=True),
        folder=subpath(output.page, parent=True),
        image_root=CONFIG.cxr.data.reports.root,
        settings=settings_file("render-gallery"),
        true_boxes=option("true-boxes", TRUE_BOXES),
    message:
        "Show radiographs, boxes and reports on one page"
    shell:
        "python -m d2rnet render-gallery --generated {input.generated:q} --annotation {input.annotation:q}"
        " --scores {params.scores:q} --image-root={params.image_root:q} --output {params.folder:q} --workers {threads}"
        " --settings {params.settings:q} {params.true_boxes} --log {log:q}"


rule summarize:
    input:
        detector_metrics=rules.evaluate_detector.output.metrics,
        report_metrics=rules.evaluate_reports.output.metrics,
        counts=[
            rules.convert_labelled.output.counts,
            rules.convert_unlabelled.output.counts,
            rules.build_annotation.output.counts,
            *COHORT,
        ],
        detector=rules.train_detector.output.run,
        report_model=rules.train_report_model.output.run,
    output:
        markdown="results/cxr/summarize/summary.md",
        json="results/cxr/summarize/summary.json",
        detector_card="results/cxr/summarize/detector_card.md",
        report_model_card="results/cxr/summarize/report_model_card.md",
    log:
        "logs/cxr/summarize.log",
    conda:
        "../../../envs/summarize.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=10,
    params:
        folder=subpath(output.json, parent=True),
        detector=subpath(input.detector, parent=True),
        report_model=subpath(input.report_model, parent=True),
    message:
        "Put all metrics of the run in one table"
    shell:
        "python -m d2rnet summarize --detector-metrics {input.detector_metrics:q}"
        " --report-metrics {input.report_metrics:q} --counts {input.counts:q}"
        " --models {params.detector:q} {params.report_model:q} --output {params.folder:q} --log {log:q}"


# file -> category and label in the Snakemake report
DRAWN = {
    "summary.html": ("Summary", "All metrics"),
    "detector_classes.html": ("Detector", "Scores per class"),
    "detector_training.svg": ("Detector", "Loss curves"),
    "pseudo_box_counts.html": ("Pseudo boxes", "Kept and dropped, per class"),
    "pseudo_box_statistics.svg": ("Pseudo boxes", "In annotation.json"),
    "report_scores.html": ("Reports", "Scores and baselines"),
    "report_classes.html": ("Reports", "Lesions named, per class"),
    "report_training.svg": ("Reports", "Loss curves"),
    "sample_readings.html": ("Reports", "Sample readings"),
}
DRAWN_TOO = [
    "detector_training.png",
    "pseudo_box_statistics.png",
    "report_training.png",
    "sample_readings.png",
    "sample_readings.svg",
]


rule draw_figures:
    input:
        detector_history=rules.train_detector.output.metrics,
        detector_run=rules.train_detector.output.run,
        report_history=rules.train_report_model.output.metrics,
        report_config=rules.train_report_model.output.config,
        annotation=rules.build_annotation.output.annotation,
        generated=rules.generate_reports.output.test,
        true_boxes=TRUE_BOXES,
        summary=rules.summarize.output.json,
    output:
        **in_report("results/cxr/draw_figures", DRAWN),
        others=expand("results/cxr/draw_figures/{file}", file=DRAWN_TOO),
        run="results/cxr/draw_figures/run.json",
    log:
        "logs/cxr/draw_figures.log",
    benchmark:
        "logs/cxr/benchmarks/draw_figures.tsv"
    conda:
        "../../../envs/draw_figures.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=30,
    params:
        detector=subpath(input.detector_run, parent=True),
        model=subpath(input.report_config, parent=True),
        folder=subpath(output.run, parent=True),
        image_root=CONFIG.cxr.data.reports.root,
        true_boxes=option("true-boxes", TRUE_BOXES),
        shown_score=CONFIG.evaluation.gallery.shown_score,
    message:
        "Draw training curves, pseudo-box statistics and sample readings; lay out the tables"
    shell:
        "python -m d2rnet draw-figures --detector {params.detector:q} --report-model {params.model:q}"
        " --annotation {input.annotation:q} --generated {input.generated:q} --image-root={params.image_root:q}"
        " --summary {input.summary:q} {params.true_boxes} --shown-score {params.shown_score} --output {params.folder:q} --log {log:q}"
