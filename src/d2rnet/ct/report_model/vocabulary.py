"""build_ct_vocabulary: the tokens that CT reports are written with, from the training split alone.

Reads: ct_annotation.json. Writes: vocabulary.json, run.json.
"""

from pathlib import Path

from d2rnet.ct.annotation.read import load_ct_annotation
from d2rnet.ct.report_model.settings import CtTextSettings
from d2rnet.report.text.vocabulary import write_vocabulary


def build_ct_vocabulary(*, annotation: Path, output: Path, settings: CtTextSettings) -> None:
    """Build vocabulary.json from the training reports.

    Args:
        annotation: ct_annotation.json; only its training split is read.
        output: folder for vocabulary.json and run.json.
        settings: text protocol, section, least count.

    Raises:
        DatasetError: no training report, or no token is frequent enough.
    """
    write_vocabulary(
        annotation=annotation, output=output, settings=settings, command="build-ct-vocabulary", read=load_ct_annotation
    )
