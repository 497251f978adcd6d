"""D2R-Net pipeline: chest images, from annotations to written reports.

A bare ``snakemake --cores all`` makes the target ``cxr`` (chest radiographs) of the synthetic demo cohort; ``--configfile
workflow/presets/cxr/<name>.yaml`` lays real data over it; ``snakemake --cores all ct`` makes the target ``ct`` (chest CT). One rule = one ``d2rnet`` sub-command of the same name. Data rules
write to resources/<wing>/, all others to results/<wing>/<rule>/.
"""

import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.16")


configfile: Path(workflow.basedir) / "config.yaml"


sys.path.insert(0, str(Path(workflow.basedir) / "src"))


include: "workflow/rules/common.smk"
include: "workflow/rules/hooks.smk"


DETECTED_BY = (
    CONFIG.cxr.data,
    CONFIG.cxr.detector.model,
    CONFIG.cxr.detector.training,
    CONFIG.cxr.detector.prediction,
)
WRITTEN_BY = (*DETECTED_BY, CONFIG.cxr.annotation, CONFIG.cxr.report)
OBSERVED_BY = (CONFIG.ct.data, CONFIG.ct.structures, CONFIG.ct.structure_model)


scattergather:
    convert=shards_of("conversion", "resources/cxr/unlabelled.json", CONFIG.cxr.data),
    convert_ct=shards_of(
        "ct_conversion",
        "resources/ct/convert_ct/volumes.jsonl",
        CONFIG.ct.data,
    ),
    predict=shards_of("prediction", "results/cxr/predict_boxes/run.json", *DETECTED_BY),
    generate=shards_of(
        "generation", "results/cxr/generate_reports/run.json", *WRITTEN_BY
    ),
    extract_ct=shards_of(
        "ct_extraction",
        "results/ct/extract_ct_features/run.json",
        *OBSERVED_BY,
        CONFIG.ct.report.features,
    ),
    generate_ct=shards_of(
        "ct_generation",
        "results/ct/generate_ct_reports/run.json",
        *OBSERVED_BY,
        CONFIG.ct.report,
    ),


include: "workflow/rules/cxr/data.smk"
include: "workflow/rules/cxr/detector.smk"
include: "workflow/rules/cxr/annotation.smk"
include: "workflow/rules/cxr/report.smk"
include: "workflow/rules/cxr/evaluation.smk"
include: "workflow/rules/cxr/ablation.smk"
include: "workflow/rules/ct/data.smk"
include: "workflow/rules/ct/structures.smk"
include: "workflow/rules/ct/report.smk"
include: "workflow/rules/ct/evaluation.smk"
include: "workflow/rules/ct/ablation.smk"


report: "workflow/report/workflow.rst"


rule cxr:
    default_target: True
    input:
        rules.predict_boxes.output.predictions,
        rules.build_annotation.output.annotation,
        rules.describe_reading.output,
        rules.generate_reports.output.test,
        rules.summarize.output.markdown,
        rules.evaluate_detector.output.metrics,
        rules.evaluate_reports.output.metrics,
        rules.render_gallery.output.page,
        rules.draw_figures.output.summary,


rule ct:
    input:
        rules.convert_ct.output.volumes,
        rules.build_ct_annotation.output.annotation,
        rules.evaluate_structures.output.metrics,
        rules.generate_ct_reports.output.test,
        rules.evaluate_ct_reports.output.metrics,
        rules.summarize_ct.output.markdown,
        rules.render_ct_gallery.output.page,
        rules.describe_ct_reading.output,
        rules.draw_ct_figures.output.summary,
