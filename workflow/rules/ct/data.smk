"""Chest CT: volumes and reports, checked, converted and joined."""

from d2rnet.ct.structures.table import SHIPPED


rule make_ct_demo_cohort:
    output:
        cohort="resources/ct/demo_cohort/cohort.json",
        truth="resources/ct/demo_cohort/truth.jsonl",
    log:
        "logs/ct/make_ct_demo_cohort.log",
    benchmark:
        "logs/ct/benchmarks/make_ct_demo_cohort.tsv"
    conda:
        "../../../envs/make_ct_demo_cohort.yaml"
    threads: CONFIG.runtime.workers
    resources:
        mem_mb=growing(2000),
        runtime=30,
    params:
        folder=subpath(output.cohort, parent=True),
        settings=settings_file("make-ct-demo-cohort"),
    message:
        "Draw the synthetic chest CT cohort (CT-RATE layout)"
    shell:
        "python -m d2rnet make-ct-demo-cohort --output {params.folder:q} --settings {params.settings:q}"
        " --workers {threads} --log {log:q}"


rule verify_ct_inputs:
    input:
        cohort=(
            rules.make_ct_demo_cohort.output.cohort
            if CONFIG.ct.data.demo.enabled
            else []
        ),
    output:
        summary="resources/ct/verify_ct_inputs/summary.json",
        quarantine="resources/ct/verify_ct_inputs/quarantine.jsonl",
        counts="resources/ct/verify_ct_inputs/counts.json",
        volumes="resources/ct/verify_ct_inputs/volumes.jsonl",
        reports="resources/ct/verify_ct_inputs/reports.jsonl",
        labels="resources/ct/verify_ct_inputs/labels.jsonl",
        regions="resources/ct/verify_ct_inputs/regions.jsonl",
    log:
        "logs/ct/verify_ct_inputs.log",
    benchmark:
        "logs/ct/benchmarks/verify_ct_inputs.tsv"
    conda:
        "../../../envs/verify_ct_inputs.yaml"
    threads: CONFIG.runtime.workers
    resources:
        mem_mb=growing(3000),
        runtime=240,
    params:
        folder=subpath(output.summary, parent=True),
        settings=settings_file("verify-ct-inputs"),
    message:
        "Check the CT source, its tables, counts and volume headers"
    shell:
        "python -m d2rnet verify-ct-inputs --output {params.folder:q} --settings {params.settings:q}"
        " --workers {threads} --log {log:q}"


rule convert_ct_shard:
    input:
        volumes=rules.verify_ct_inputs.output.volumes,
    output:
        "resources/ct/convert_ct/shards/{scatteritem}.jsonl",
    log:
        "logs/ct/convert_ct/{scatteritem}.log",
    benchmark:
        "logs/ct/benchmarks/convert_ct/{scatteritem}.tsv"
    conda:
        "../../../envs/convert_ct_shard.yaml"
    threads: CONFIG.runtime.workers
    resources:
        # a process holds one volume: 4 GB with 1024 x 1024 x 1000 voxels
        mem_mb=lambda wildcards, threads, attempt: 4000 * threads * attempt,
        runtime=2880,
    params:
        folder=subpath(output[0], ancestor=2),
        shard=shard_options,
        settings=settings_file("convert-ct-shard"),
    message:
        "Convert shard {wildcards.scatteritem} of the CT volumes to arrays on one grid"
    shell:
        "python -m d2rnet convert-ct-shard --volumes {input.volumes:q} --folder {params.folder:q}"
        " {params.shard} --output {output:q} --settings {params.settings:q}"
        " --workers {threads} --log {log:q}"


# file -> category and label in the Snakemake report
CONVERTED_PICTURES = {
    "contact_sheet.png": ("Chest CT: data", "Converted volumes"),
}


rule convert_ct:
    input:
        volumes=rules.verify_ct_inputs.output.volumes,
        counts=rules.verify_ct_inputs.output.counts,
        shards=gather.convert_ct(rules.convert_ct_shard.output),
    output:
        **in_report("resources/ct/convert_ct", CONVERTED_PICTURES),
        volumes="resources/ct/convert_ct/volumes.jsonl",
        counts="resources/ct/convert_ct/counts.json",
        card="resources/ct/convert_ct/data_card.md",
    log:
        "logs/ct/convert_ct.log",
    benchmark:
        "logs/ct/benchmarks/convert_ct.tsv"
    conda:
        "../../../envs/convert_ct.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=60,
    params:
        folder=subpath(output.volumes, parent=True),
        settings=settings_file("convert-ct"),
    message:
        "Join the converted CT volumes: table, counts, card, contact sheet"
    shell:
        "python -m d2rnet convert-ct --volumes {input.volumes:q} --counts {input.counts:q}"
        " --shards {input.shards:q} --output {params.folder:q}"
        " --settings {params.settings:q} --log {log:q}"


# A table of structures of one's own; a shipped one changes with the code alone.
CT_TABLE = [] if CONFIG.ct.structures.table in SHIPPED else CONFIG.ct.structures.table


rule build_ct_annotation:
    input:
        table=CT_TABLE,
        volumes=rules.convert_ct.output.volumes,
        reports=rules.verify_ct_inputs.output.reports,
        labels=rules.verify_ct_inputs.output.labels,
        regions=rules.verify_ct_inputs.output.regions,
        counts=rules.verify_ct_inputs.output.counts,
    output:
        annotation="results/ct/build_ct_annotation/ct_annotation.json",
        structures="results/ct/build_ct_annotation/structures.jsonl",
        counts="results/ct/build_ct_annotation/counts.json",
    log:
        "logs/ct/build_ct_annotation.log",
    benchmark:
        "logs/ct/benchmarks/build_ct_annotation.tsv"
    conda:
        "../../../envs/build_ct_annotation.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=60,
    params:
        folder=subpath(output.annotation, parent=True),
        settings=settings_file("build-ct-annotation"),
    message:
        "Cut reports into structures and join them with volumes and labels"
    shell:
        "python -m d2rnet build-ct-annotation --volumes {input.volumes:q} --reports {input.reports:q}"
        " --labels {input.labels:q} --regions {input.regions:q} --counts {input.counts:q}"
        " --output {params.folder:q} --settings {params.settings:q} --log {log:q}"
