rule build_annotation:
    input:
        unlabelled=rules.convert_unlabelled.output.coco,
        reports=rules.convert_unlabelled.output.reports,
        predictions=rules.predict_boxes.output.predictions,
    output:
        annotation="results/build_annotation/annotation.json",
        counts=report(
            "results/build_annotation/counts.json",
            caption="../report/build_annotation.rst",
            category="Pseudo boxes",
        ),
        run="results/build_annotation/run.json",
    log:
        "logs/build_annotation.log",
    benchmark:
        "logs/benchmarks/build_annotation.tsv"
    conda:
        "../../envs/build_annotation.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        folder=subpath(output.annotation, parent=True),
        settings=settings("annotation"),
    message:
        "Filter pseudo boxes and join them with reports into annotation.json"
    shell:
        "python -m d2rnet build-annotation --unlabelled {input.unlabelled:q} --reports {input.reports:q}"
        " --predictions {input.predictions:q} --output {params.folder:q} --settings {params.settings:q}"
        " --log {log:q}"
