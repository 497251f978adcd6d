"""D2R-Net pipeline: chest images, from annotations to written reports.

A bare ``snakemake --cores all`` makes the target ``cxr`` (chest radiographs) of the synthetic demo cohort; ``--configfile
workflow/presets/cxr/<name>.yaml`` lays real data over it. One rule = one ``d2rnet`` sub-command of the same name. Data rules
write to resources/<wing>/, all others to results/<wing>/<rule>/.
"""

import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.16")


configfile: Path(workflow.basedir) / "config.yaml"


sys.path.insert(0, str(Path(workflow.basedir) / "src"))


include: "workflow/rules/common.smk"


scattergather:
    convert=CONFIG.runtime.conversion_shards,
    predict=CONFIG.runtime.prediction_shards,
    generate=CONFIG.runtime.generation_shards,


include: "workflow/rules/cxr/data.smk"
include: "workflow/rules/cxr/detector.smk"
include: "workflow/rules/cxr/annotation.smk"
include: "workflow/rules/cxr/report.smk"
include: "workflow/rules/cxr/evaluation.smk"
include: "workflow/rules/cxr/ablation.smk"


report: "workflow/report/workflow.rst"


rule cxr:
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
