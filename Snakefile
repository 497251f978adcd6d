"""D2R-Net pipeline: chest radiographs, from box annotations to written reports.

A bare ``snakemake --cores all`` runs the synthetic demo cohort; ``--configfile workflow/presets/<name>.yaml`` lays real data over
it. One rule = one ``d2rnet`` sub-command of the same name. Data rules write to resources/, all others to results/<rule>/.
"""

import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.16")


configfile: Path(workflow.basedir) / "config.yaml"


sys.path.insert(0, str(Path(workflow.basedir) / "src"))


include: "workflow/rules/common.smk"


scattergather:
    convert=config["runtime"]["conversion_shards"],
    predict=config["runtime"]["prediction_shards"],
    generate=config["runtime"]["generation_shards"],


include: "workflow/rules/data.smk"
include: "workflow/rules/detector.smk"
include: "workflow/rules/annotation.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/ablation.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        rules.predict_boxes.output.predictions,
        rules.build_annotation.output.annotation,
        rules.generate_reports.output.test,
        rules.summarize.output.markdown,
        rules.evaluate_detector.output.metrics,
        rules.evaluate_reports.output.metrics,
        rules.render_gallery.output.page,
        rules.draw_figures.output.summary,
