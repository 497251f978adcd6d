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
        labelled_images="resources/verify_inputs/labelled_images.jsonl",
        unlabelled_images="resources/verify_inputs/unlabelled_images.jsonl",
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


rule convert_images_shard:
    input:
        images="resources/verify_inputs/{part}_images.jsonl",
    output:
        "resources/convert_images/{part}/{scatteritem}.jsonl",
    log:
        "logs/convert_images/{part}/{scatteritem}.log",
    benchmark:
        "logs/benchmarks/convert_images/{part}/{scatteritem}.tsv"
    conda:
        "../../envs/convert_images_shard.yaml"
    threads: config["runtime"]["workers"]
    resources:
        mem_mb=growing(4000),
        runtime=1440,
    params:
        folder=lambda wildcards: {
            "labelled": "resources/labelled",
            "unlabelled": "resources",
        }[wildcards.part],
        shard=lambda wildcards: wildcards.scatteritem.split("-of-")[0],
        shards=config["runtime"]["conversion_shards"],
        settings=settings("data.conversion"),
    message:
        "Convert shard {wildcards.scatteritem} of the {wildcards.part} images to 8-bit PNG"
    shell:
        "python -m d2rnet convert-images-shard --images {input.images:q} --folder {params.folder:q}"
        " --shard {params.shard} --shards {params.shards} --output {output:q} --settings {params.settings:q}"
        " --workers {threads} --log {log:q}"


rule convert_labelled:
    input:
        quarantine=rules.verify_inputs.output.quarantine,
        shards=gather.convert(rules.convert_images_shard.output, part="labelled"),
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
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=60,
    params:
        folder=subpath(output.train, parent=True),
        settings=settings("data", only=["labelled", "conversion"]),
    message:
        "Convert the tables of the labelled source to COCO json"
    shell:
        "python -m d2rnet convert-labelled --quarantine {input.quarantine:q} --shards {input.shards:q}"
        " --output {params.folder:q} --settings {params.settings:q} --log {log:q}"


rule convert_unlabelled:
    input:
        quarantine=rules.verify_inputs.output.quarantine,
        shards=gather.convert(rules.convert_images_shard.output, part="unlabelled"),
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
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=240,
    params:
        folder=subpath(output.coco, parent=True),
        settings=settings(
            "data", only=["labelled", "reports", "extra_unlabelled", "conversion"]
        ),
    message:
        "Convert the tables of the report source to COCO json and a table of reports"
    shell:
        "python -m d2rnet convert-unlabelled --quarantine {input.quarantine:q} --shards {input.shards:q}"
        " --output {params.folder:q} --settings {params.settings:q} --log {log:q}"
