"""Scores of a chest CT run, what a reading needs, pages and figures."""


rule retrieve_ct_reports:
    input:
        generated=rules.generate_ct_reports.output.test,
        annotation=rules.build_ct_annotation.output.annotation,
        features=rules.extract_ct_features.output.index,
        vocabulary=rules.train_ct_report_model.output.vocabulary,
    output:
        nearest="results/ct/retrieve_ct_reports/nearest.jsonl",
        label_set="results/ct/retrieve_ct_reports/label_set.jsonl",
        classifier="results/ct/retrieve_ct_reports/classifier.json",
        run="results/ct/retrieve_ct_reports/run.json",
    log:
        "logs/ct/retrieve_ct_reports.log",
    benchmark:
        "logs/ct/benchmarks/retrieve_ct_reports.tsv"
    conda:
        "../../../envs/retrieve_ct_reports.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=120,
    params:
        features=subpath(input.features, parent=True),
        model=subpath(input.vocabulary, parent=True),
        folder=subpath(output.run, parent=True),
        settings=settings_file("retrieve-ct-reports"),
    message:
        "Look up training reports by features and by predicted labels, two baselines"
    shell:
        "python -m d2rnet retrieve-ct-reports --generated {input.generated:q} --annotation {input.annotation:q}"
        " --features {params.features:q} --model {params.model:q} --output {params.folder:q}"
        " --settings {params.settings:q} --log {log:q}"


rule evaluate_ct_reports:
    input:
        generated=rules.generate_ct_reports.output.test,
        annotation=rules.build_ct_annotation.output.annotation,
        counts=rules.verify_ct_inputs.output.counts,
        vocabulary=rules.train_ct_report_model.output.vocabulary,
        nearest=rules.retrieve_ct_reports.output.nearest,
        label_set=rules.retrieve_ct_reports.output.label_set,
    output:
        metrics="results/ct/evaluate_ct_reports/metrics.json",
        per_report="results/ct/evaluate_ct_reports/per_report.jsonl",
        run="results/ct/evaluate_ct_reports/run.json",
    log:
        "logs/ct/evaluate_ct_reports.log",
    benchmark:
        "logs/ct/benchmarks/evaluate_ct_reports.tsv"
    conda:
        "../../../envs/evaluate_ct_reports.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=120,
        gpu=min(1, CONFIG.runtime.gpus),
        device=DEVICE,
        options=runtime_options("evaluate-ct-reports"),
    params:
        model=subpath(input.vocabulary, parent=True),
        folder=subpath(output.metrics, parent=True),
        settings=settings_file("evaluate-ct-reports"),
    message:
        "Score the generated chest CT reports"
    shell:
        "python -m d2rnet evaluate-ct-reports --generated {input.generated:q} --annotation {input.annotation:q}"
        " --counts {input.counts:q} --model {params.model:q} --nearest {input.nearest:q}"
        " --label-set {input.label_set:q} --output {params.folder:q} --settings {params.settings:q}"
        " --device {resources.device:q} {resources.options} --log {log:q}"


rule render_ct_gallery:
    input:
        table=CT_TABLE,
        generated=rules.generate_ct_reports.output.test,
        annotation=rules.build_ct_annotation.output.annotation,
        metrics=rules.evaluate_ct_reports.output.metrics,
        per_report=rules.evaluate_ct_reports.output.per_report,
        volumes=rules.convert_ct.output.volumes,
    output:
        page="results/ct/render_ct_gallery/index.html",
        run="results/ct/render_ct_gallery/run.json",
    log:
        "logs/ct/render_ct_gallery.log",
    benchmark:
        "logs/ct/benchmarks/render_ct_gallery.tsv"
    conda:
        "../../../envs/render_ct_gallery.yaml"
    threads: CONFIG.runtime.workers
    resources:
        mem_mb=growing(4000),
        runtime=60,
    params:
        scores=subpath(input.metrics, parent=True),
        folder=subpath(output.page, parent=True),
        table=CONFIG.ct.structures.table,
        source_root=CONFIG.ct.data.reports.root,
        settings=settings_file("render-ct-gallery"),
    message:
        "Show CT slices and reports on one page"
    shell:
        "python -m d2rnet render-ct-gallery --generated {input.generated:q} --annotation {input.annotation:q}"
        " --scores {params.scores:q} --volumes {input.volumes:q} --table={params.table:q} --source-root={params.source_root:q}"
        " --output {params.folder:q} --workers {threads} --settings {params.settings:q} --log {log:q}"


rule describe_ct_reading:
    input:
        table=CT_TABLE,
        weights=rules.train_ct_report_model.output.weights,
    output:
        reading="results/ct/train_ct_report_model/reading.json",
        table=(
            ["results/ct/train_ct_report_model/structure_table.yaml"]
            if CT_TABLE
            else []
        ),
    log:
        "logs/ct/describe_ct_reading.log",
    conda:
        "../../../envs/describe_ct_reading.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=30,
    params:
        model=subpath(input.weights, parent=True),
        settings=settings_file(
            "describe-ct-reading",
            selected(
                "ct.data.volumes",
                "ct.data.reports.root",
                "ct.data.conversion",
                "ct.structures",
                "ct.report.features",
                "ct.report.generation",
            ),
        ),
    message:
        "Note beside the CT report model what a reading needs"
    shell:
        "python -m d2rnet describe-ct-reading --report-model {params.model:q} --configfile {params.settings:q} --log {log:q}"


rule summarize_ct:
    input:
        structure_metrics=rules.evaluate_structures.output.metrics,
        report_metrics=rules.evaluate_ct_reports.output.metrics,
        counts=[
            rules.convert_ct.output.counts,
            rules.build_ct_annotation.output.counts,
            *(
                [rules.make_ct_demo_cohort.output.cohort]
                if CONFIG.ct.data.demo.enabled
                else []
            ),
        ],
        structures=rules.train_structures.output.run,
        report_model=rules.train_ct_report_model.output.run,
    output:
        markdown="results/ct/summarize_ct/summary.md",
        json="results/ct/summarize_ct/summary.json",
        structure_card="results/ct/summarize_ct/structure_model_card.md",
        report_model_card="results/ct/summarize_ct/report_model_card.md",
    log:
        "logs/ct/summarize_ct.log",
    conda:
        "../../../envs/summarize_ct.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=10,
    params:
        folder=subpath(output.json, parent=True),
        structures=subpath(input.structures, parent=True),
        report_model=subpath(input.report_model, parent=True),
    message:
        "Put all scores of the chest CT run in one table"
    shell:
        "python -m d2rnet summarize-ct --structure-metrics {input.structure_metrics:q}"
        " --report-metrics {input.report_metrics:q} --counts {input.counts:q}"
        " --models {params.structures:q} {params.report_model:q} --output {params.folder:q} --log {log:q}"


# file -> category and label in the Snakemake report
CT_DRAWN = {
    "summary.html": ("Chest CT: summary", "All scores"),
    "structure_training.svg": ("Chest CT: structures", "Curves of the training"),
    "report_training.svg": ("Chest CT: reports", "Loss curves"),
    "abnormalities.svg": ("Chest CT: reports", "Abnormalities named"),
    "abnormality_scores.html": ("Chest CT: reports", "Abnormalities named, in numbers"),
}


rule draw_ct_figures:
    input:
        structure_history=rules.train_structures.output.metrics,
        structure_config=rules.train_structures.output.config,
        report_history=rules.train_ct_report_model.output.metrics,
        report_config=rules.train_ct_report_model.output.config,
        summary=rules.summarize_ct.output.json,
    output:
        **in_report("results/ct/draw_ct_figures", CT_DRAWN),
        png=expand(
            "results/ct/draw_ct_figures/{figure}.png",
            figure=[Path(file).stem for file in CT_DRAWN if file.endswith(".svg")],
        ),
        run="results/ct/draw_ct_figures/run.json",
    log:
        "logs/ct/draw_ct_figures.log",
    benchmark:
        "logs/ct/benchmarks/draw_ct_figures.tsv"
    conda:
        "../../../envs/draw_ct_figures.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    params:
        structures=subpath(input.structure_config, parent=True),
        report_model=subpath(input.report_config, parent=True),
        folder=subpath(output.run, parent=True),
    message:
        "Draw training curves and abnormalities of the chest CT run; lay out its tables"
    shell:
        "python -m d2rnet draw-ct-figures --structures {params.structures:q} --report-model {params.report_model:q}"
        " --summary {input.summary:q} --output {params.folder:q} --log {log:q}"
