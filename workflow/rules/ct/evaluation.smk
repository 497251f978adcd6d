rule retrieve_ct_reports:
    input:
        generated="results/ct/generate_ct_reports/test.jsonl",
        annotation=rules.build_ct_annotation.output.annotation,
        features="results/ct/extract_ct_features/features.json",
        vocabulary="results/ct/train_ct_report_model/vocabulary.json",
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
        mem_mb=growing(4000),
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
        generated="results/ct/generate_ct_reports/test.jsonl",
        annotation=rules.build_ct_annotation.output.annotation,
        counts=rules.verify_ct_inputs.output.counts,
        vocabulary="results/ct/train_ct_report_model/vocabulary.json",
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
