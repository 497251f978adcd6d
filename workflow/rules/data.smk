rule make_demo_cohort:
    output:
        cohort="resources/demo_cohort/cohort.json",
        truth="resources/demo_cohort/truth.jsonl",
    log:
        "logs/make_demo_cohort.log",
    benchmark:
        "logs/benchmarks/make_demo_cohort.tsv"
    conda:
        "../../envs/make_demo_cohort.yaml"
    threads: config["runtime"]["workers"]
    resources:
        mem_mb=growing(2000),
        runtime=30,
    params:
        folder=subpath(output.cohort, parent=True),
        settings=settings("data.demo"),
    message:
        "Draw the synthetic demo cohort (VinDr-CXR and MIMIC-CXR-JPG layouts)"
    shell:
        "python -m d2rnet make-demo-cohort --output {params.folder:q} --settings {params.settings:q}"
        " --workers {threads} --log {log:q}"


rule verify_inputs:
    input:
        cohort=(
            rules.make_demo_cohort.output.cohort
            if config["data"]["demo"]["enabled"]
            else []
        ),
    output:
        summary="resources/verify_inputs/summary.json",
        quarantine="resources/verify_inputs/quarantine.jsonl",
    log:
        "logs/verify_inputs.log",
    benchmark:
        "logs/benchmarks/verify_inputs.tsv"
    conda:
        "../../envs/verify_inputs.yaml"
    threads: config["runtime"]["workers"]
    resources:
        mem_mb=growing(4000),
        runtime=240,
    params:
        folder=subpath(output.summary, parent=True),
        settings=settings(
            "data", only=["labelled", "reports", "extra_unlabelled", "conversion"]
        ),
    message:
        "Check every configured root, table, count and image header"
    shell:
        "python -m d2rnet verify-inputs --output {params.folder:q} --settings {params.settings:q}"
        " --workers {threads} --log {log:q}"


rule convert_labelled:
    input:
        quarantine=rules.verify_inputs.output.quarantine,
    output:
        train="resources/labelled/train.json",
        val="resources/labelled/val.json",
        test="resources/labelled/test.json",
        counts="resources/labelled/counts.json",
        card="resources/labelled/data_card.md",
    log:
        "logs/convert_labelled.log",
    benchmark:
        "logs/benchmarks/convert_labelled.tsv"
    conda:
        "../../envs/convert_labelled.yaml"
    threads: config["runtime"]["workers"]
    resources:
        mem_mb=growing(4000),
        runtime=720,
    params:
        folder=subpath(output.train, parent=True),
        settings=settings("data", only=["labelled", "conversion"]),
    message:
        "Convert the labelled source to COCO json and 8-bit PNG"
    shell:
        "python -m d2rnet convert-labelled --quarantine {input.quarantine:q} --output {params.folder:q}"
        " --settings {params.settings:q} --workers {threads} --log {log:q}"


rule convert_unlabelled:
    input:
        quarantine=rules.verify_inputs.output.quarantine,
    output:
        coco="resources/unlabelled.json",
        reports="resources/reports.jsonl",
        counts="resources/convert_unlabelled/counts.json",
        card="resources/convert_unlabelled/data_card.md",
    log:
        "logs/convert_unlabelled.log",
    benchmark:
        "logs/benchmarks/convert_unlabelled.tsv"
    conda:
        "../../envs/convert_unlabelled.yaml"
    threads: config["runtime"]["workers"]
    resources:
        mem_mb=growing(8000),
        runtime=2880,
    params:
        folder=subpath(output.coco, parent=True),
        settings=settings(
            "data", only=["labelled", "reports", "extra_unlabelled", "conversion"]
        ),
    message:
        "Convert the report source to COCO json, 8-bit PNG and a table of reports"
    shell:
        "python -m d2rnet convert-unlabelled --quarantine {input.quarantine:q} --output {params.folder:q}"
        " --settings {params.settings:q} --workers {threads} --log {log:q}"
