rule make_demo_cohort:
    output:
        cohort="resources/cxr/demo_cohort/cohort.json",
        truth="resources/cxr/demo_cohort/truth.jsonl",
    log:
        "logs/cxr/make_demo_cohort.log",
    benchmark:
        "logs/cxr/benchmarks/make_demo_cohort.tsv"
    conda:
        "../../../envs/make_demo_cohort.yaml"
    threads: CONFIG.runtime.workers
    resources:
        mem_mb=growing(2000),
        runtime=30,
    params:
        folder=subpath(output.cohort, parent=True),
        settings=settings_file("make-demo-cohort"),
    message:
        "Draw the synthetic demo cohort (VinDr-CXR and MIMIC-CXR-JPG layouts)"
    shell:
        "python -m d2rnet make-demo-cohort --output {params.folder:q} --settings {params.settings:q}"
        " --workers {threads} --log {log:q}"


rule verify_inputs:
    input:
        cohort=(
            rules.make_demo_cohort.output.cohort
            if CONFIG.cxr.data.demo.enabled
            else []
        ),
    output:
        summary="resources/cxr/verify_inputs/summary.json",
        quarantine="resources/cxr/verify_inputs/quarantine.jsonl",
        counts="resources/cxr/verify_inputs/counts.json",
        labelled_images="resources/cxr/verify_inputs/labelled_images.jsonl",
        labelled_boxes="resources/cxr/verify_inputs/labelled_boxes.jsonl",
        unlabelled_images="resources/cxr/verify_inputs/unlabelled_images.jsonl",
        reports="resources/cxr/verify_inputs/reports.jsonl",
    log:
        "logs/cxr/verify_inputs.log",
    benchmark:
        "logs/cxr/benchmarks/verify_inputs.tsv"
    conda:
        "../../../envs/verify_inputs.yaml"
    threads: CONFIG.runtime.workers
    resources:
        mem_mb=growing(4000),
        runtime=240,
        kept_side=CONFIG.cxr.report.model.input_size_px,
    params:
        folder=subpath(output.summary, parent=True),
        settings=settings_file("verify-inputs"),
    message:
        "Check every configured root, table, count and image header"
    shell:
        "python -m d2rnet verify-inputs --output {params.folder:q} --settings {params.settings:q}"
        " --workers {threads} --kept-side {resources.kept_side} --log {log:q}"


rule convert_images_shard:
    input:
        images="resources/cxr/verify_inputs/{part}_images.jsonl",
    output:
        "resources/cxr/convert_images/{part}/{scatteritem}.jsonl",
    log:
        "logs/cxr/convert_images/{part}/{scatteritem}.log",
    benchmark:
        "logs/cxr/benchmarks/convert_images/{part}/{scatteritem}.tsv"
    conda:
        "../../../envs/convert_images_shard.yaml"
    threads: CONFIG.runtime.workers
    resources:
        mem_mb=growing(4000),
        runtime=1440,
    params:
        folder=lambda wildcards: {
            "labelled": "resources/cxr/labelled",
            "unlabelled": "resources/cxr",
        }[wildcards.part],
        shard=shard_options,
        settings=settings_file("convert-images-shard"),
    message:
        "Convert shard {wildcards.scatteritem} of the {wildcards.part} images to 8-bit PNG"
    shell:
        "python -m d2rnet convert-images-shard --images {input.images:q} --folder {params.folder:q}"
        " {params.shard} --output {output:q} --settings {params.settings:q}"
        " --workers {threads} --log {log:q}"


rule convert_labelled:
    input:
        images=rules.verify_inputs.output.labelled_images,
        boxes=rules.verify_inputs.output.labelled_boxes,
        counts=rules.verify_inputs.output.counts,
        shards=gather.convert(rules.convert_images_shard.output, part="labelled"),
    output:
        train="resources/cxr/labelled/train.json",
        val="resources/cxr/labelled/val.json",
        test="resources/cxr/labelled/test.json",
        counts="resources/cxr/labelled/counts.json",
        card="resources/cxr/labelled/data_card.md",
    log:
        "logs/cxr/convert_labelled.log",
    benchmark:
        "logs/cxr/benchmarks/convert_labelled.tsv"
    conda:
        "../../../envs/convert_labelled.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=60,
    params:
        folder=subpath(output.train, parent=True),
        settings=settings_file("convert-labelled"),
    message:
        "Convert the tables of the labelled source to COCO json"
    shell:
        "python -m d2rnet convert-labelled --images {input.images:q} --boxes {input.boxes:q}"
        " --counts {input.counts:q} --shards {input.shards:q}"
        " --output {params.folder:q} --settings {params.settings:q} --log {log:q}"


rule convert_unlabelled:
    input:
        images=rules.verify_inputs.output.unlabelled_images,
        reports=rules.verify_inputs.output.reports,
        counts=rules.verify_inputs.output.counts,
        shards=gather.convert(rules.convert_images_shard.output, part="unlabelled"),
    output:
        coco="resources/cxr/unlabelled.json",
        reports="resources/cxr/reports.jsonl",
        counts="resources/cxr/convert_unlabelled/counts.json",
        card="resources/cxr/convert_unlabelled/data_card.md",
    log:
        "logs/cxr/convert_unlabelled.log",
    benchmark:
        "logs/cxr/benchmarks/convert_unlabelled.tsv"
    conda:
        "../../../envs/convert_unlabelled.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=240,
    params:
        folder=subpath(output.coco, parent=True),
        settings=settings_file("convert-unlabelled"),
    message:
        "Convert the tables of the report source to COCO json and a table of reports"
    shell:
        "python -m d2rnet convert-unlabelled --images {input.images:q} --reports {input.reports:q}"
        " --counts {input.counts:q} --shards {input.shards:q}"
        " --output {params.folder:q} --settings {params.settings:q} --log {log:q}"
