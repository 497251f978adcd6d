"""``config.yaml`` whole: the sections of all wings, and what no section alone can see."""

from collections.abc import Iterator, Mapping
from typing import Any, Self

from d2rnet.cxr.detector.settings import DetectorRuntime
from d2rnet.cxr.settings import CxrSettings
from d2rnet.errors import ConfigError
from d2rnet.evaluation.settings import MeteorRuntime, NoBoxSettings, RetrievalSettings
from d2rnet.gallery.settings import GallerySettings
from d2rnet.report.settings import ReportRuntime
from d2rnet.runs.settings import SchedulerSettings
from d2rnet.settings import Section


class EvaluationSettings(NoBoxSettings, RetrievalSettings):
    """Scores of generated reports, and the page that shows them."""

    place = "evaluation"

    gallery: GallerySettings = GallerySettings()


class RuntimeSettings(SchedulerSettings, DetectorRuntime, ReportRuntime, MeteorRuntime):
    """What never changes a result: changing it plans no job."""

    place = "runtime"


class Config(Section):
    """Every setting of the workflow."""

    cxr: CxrSettings = CxrSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    runtime: RuntimeSettings = RuntimeSettings()

    @classmethod
    def read(cls, overlay: Mapping[str, Any], *, source: str = "configuration") -> Self:
        """Lay settings over the defaults and check them, those too that must go together.

        Raises:
            ConfigError: as :meth:`d2rnet.settings.Section.read`; a brace in a text, which Snakemake takes for a wildcard; a
                section of the reports that differs between reading and writing.
        """
        config = super().read(overlay, source=source)
        problems = [
            f"{path}: {value!r}; expected no brace, which Snakemake takes for a wildcard. Rename the file or folder"
            for path, value in _texts(config.to_json())
            if set("{}") & set(value)
        ]
        read, written = config.cxr.data.reports.section, config.cxr.report.text.section
        if read != written:
            problems.append(
                f"cxr.report.text.section: '{written}', but cxr.data.reports.section is '{read}'; set both to the same section"
            )
        if problems:
            raise ConfigError(f"{source}: {len(problems)} problem(s)\n  " + "\n  ".join(sorted(problems)))
        return config


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted path and value of every text."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(part, f"{path}.{key}" if path else str(key))
