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
        mem_mb=4000,
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
        " --image-root {params.image_root:q} --model {params.model:q} --output {output.test:q} --workers {threads}"
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
        metrics=report(
            "results/evaluate_reports/metrics.json",
            caption="../report/evaluate_reports.rst",
            category="Reports",
        ),
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
        mem_mb=4000,
        runtime=60,
    params:
        model=subpath(input.config, parent=True),
        folder=subpath(output.metrics, parent=True),
        nearest=(
            f"--nearest {rules.retrieve_reports.output.test}"
            if config["evaluation"]["retrieval_candidates"]
            else ""
        ),
        settings=settings("evaluation"),
    message:
        "Score the generated reports"
    shell:
        "python -m d2rnet evaluate-reports --generated {input.generated:q} --annotation {input.annotation:q}"
        " --model {params.model:q} {params.nearest} --output {params.folder:q} --settings {params.settings:q}"
        " --log {log:q}"


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
    output:
        markdown=report(
            "results/summarize/summary.md",
            caption="../report/summarize.rst",
            category="Summary",
        ),
        json="results/summarize/summary.json",
    log:
        "logs/summarize.log",
    conda:
        "../../envs/summarize.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        folder=subpath(output.json, parent=True),
    message:
        "Put all figures of the run in one table"
    shell:
        "python -m d2rnet summarize --detector-metrics {input.detector_metrics:q}"
        " --report-metrics {input.report_metrics:q} --counts {input.counts:q} --output {params.folder:q} --log {log:q}"
