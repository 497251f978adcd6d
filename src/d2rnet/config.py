"""``config.yaml`` whole: the sections of all wings, and what no section alone can see."""

from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Self

from d2rnet.ct.settings import CtSettings
from d2rnet.cxr.detector.settings import DetectorRuntime
from d2rnet.cxr.settings import CxrSettings
from d2rnet.errors import ConfigError
from d2rnet.evaluation.settings import MeteorRuntime, NoBoxSettings, RetrievalSettings
from d2rnet.gallery.settings import GallerySettings
from d2rnet.report.settings import ReportRuntime
from d2rnet.runs.settings import SchedulerSettings
from d2rnet.settings import Section, merge, read_overlay, values_in

SHOWN_KEYS = 5
# A preset of the whole, which messages name
WHOLE_PRESET = "cxr/d2rnet.yaml"
# Key of an earlier version -> today's. A section stands for all keys in it; the longest one counts.
MOVED = {
    **{name: f"cxr.{name}" for name in ("data", "detector", "annotation", "report", "ablation")},
    **{f"{section}.loader_workers": "runtime.loader_workers" for section in ("detector.training", "detector.prediction")},
    **{f"{section}.workers": "runtime.loader_workers" for section in ("report.training", "report.generation")},
    "detector.training.cache_images_mb": "runtime.cache_images_mb",
    "detector.training.log_every_iters": "runtime.log_every_iters",
    "detector.training.checkpoint_every_iters": "runtime.checkpoint_every_iters",
    "detector.training.validate_every_iters": "runtime.validate_every_iters",
    "report.training.checkpoint_minutes": "runtime.checkpoint_minutes",
    "report.training.alignment.local": "cxr.report.training.alignment.lab",
    "report.training.alignment.global": "cxr.report.training.alignment.gab",
    "report.training.alignment.local_weight": "cxr.report.training.alignment.lab_weight",
    "report.training.alignment.global_weight": "cxr.report.training.alignment.gab_weight",
    "evaluation.meteor_timeout_seconds": "runtime.meteor_timeout_seconds",
}


def new_place(key: str) -> str:
    """Return where a dotted key of an earlier version stands today; itself if it has not moved."""
    known = [old for old in MOVED if key == old or key.startswith(f"{old}.")]
    if not known:
        return key
    old = max(known, key=len)
    return MOVED[old] + key.removeprefix(old)


def moved_keys(overlay: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys of MOVED that settings still have -> today's."""
    return {old: new for old, new in MOVED.items() if _has(overlay, old)}


def _has(overlay: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(overlay, Mapping) or part not in overlay:
            return False
        overlay = overlay[part]
    return True


def check_order(files: Mapping[Path, Mapping[str, Any]], presets: Path) -> None:
    """Refuse a preset that undoes what was given before it: presets come first, those of a part after those of the whole.

    Args:
        files: what ``--configfile`` names, in its order -> content.
        presets: folder of the presets. One without section cxr.data or cxr.report is of a part, and is laid over one of the
            whole.

    Raises:
        ConfigError: names the keys and the right order. So does a preset of a part with a detector where no other file sets
            anything of the reports: the rest would be that of the demo.
    """

    def sections(file: Path) -> Set[str]:
        return files[file].get("cxr", {}).keys()

    def rank(file: Path) -> int:
        return 2 if presets not in file.parents else int(not {"data", "report"} <= sections(file))

    given = list(files)
    for file in given:
        alone = not any("report" in sections(other) for other in given if other != file)
        if alone and rank(file) == 1 and "detector" in sections(file):
            right = " ".join(str(name) for name in [presets / WHOLE_PRESET, *sorted(given, key=rank)])
            raise ConfigError(
                f"{file}: sets a part alone, and no other file given sets section cxr.report: all else would be that of the "
                f"demo. A preset of the whole comes before it: --configfile {right}"
            )
    for place, file in enumerate(given):
        for before in given[:place]:
            if rank(before) <= rank(file) and rank(file) > 0:
                continue
            values = dict(values_in(files[file]))
            undone = [key for key, value in values_in(files[before]) if key in values and values[key] != value]
            if undone:
                right = " ".join(str(name) for name in sorted(given, key=rank))
                more = f" and {len(undone) - SHOWN_KEYS} more" if len(undone) > SHOWN_KEYS else ""
                raise ConfigError(
                    f"{file}: undoes {', '.join(undone[:SHOWN_KEYS])}{more} of {before}, which is given before it. Presets "
                    f"come first, one of a part after one of the whole, your own files last: --configfile {right}"
                )


class EvaluationSettings(NoBoxSettings, RetrievalSettings):
    """Scores of generated reports, and the page that shows them."""

    place = "evaluation"

    gallery: GallerySettings = GallerySettings()


class RuntimeSettings(SchedulerSettings, DetectorRuntime, ReportRuntime, MeteorRuntime):
    """What never changes a result: changing it plans no job."""

    place = "runtime"

    def training_memory_mb(self, base: int) -> int:
        """Memory that a training job asks the scheduler for, MB.

        A process with its device takes 6,000, the images that it keeps ``cache_images_mb``, each of its loader processes 750.

        Args:
            base: of the job as a whole, however many processes share it, MB.
        """
        each = 6000 + self.cache_images_mb + 750 * self.loader_workers
        return base + each * max(1, self.gpus)


class Config(Section):
    """Every setting of the workflow."""

    cxr: CxrSettings = CxrSettings()
    ct: CtSettings = CtSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    runtime: RuntimeSettings = RuntimeSettings()

    @classmethod
    def read(cls, overlay: Mapping[str, Any], *, source: str = "configuration") -> Self:
        """Lay settings over the defaults and check them, those too that must go together.

        Raises:
            ConfigError: as :meth:`d2rnet.settings.Section.read`; keys of an earlier version; a brace in a text, which
                Snakemake takes for a wildcard; a section of the reports that differs between reading and writing.
        """
        if moved := moved_keys(overlay):
            keys = "\n  ".join(f"{old} -> {new}" for old, new in moved.items())
            raise ConfigError(
                f"{source}: keys of an earlier version. 'd2rnet migrate-config FILE' writes the file anew. Today they are"
                f"\n  {keys}"
            )
        config = super().read(overlay, source=source)
        problems = [
            f"{path}: {value!r}; expected no brace, which Snakemake takes for a wildcard. Rename the file or folder"
            for path, value in _texts(config.to_json())
            if set("{}") & set(value)
        ]
        for name, wing in (("cxr", config.cxr), ("ct", config.ct)):
            read = wing.data.reports.section
            written = wing.report.text.section
            if read != written:
                problems.append(
                    f"{name}.report.text.section: '{written}', but {name}.data.reports.section is '{read}'; set both to the "
                    "same section"
                )
        if problems:
            raise ConfigError(f"{source}: {len(problems)} problem(s)\n  " + "\n  ".join(sorted(problems)))
        return config


def read_configuration(files: Sequence[Path]) -> Config:
    """Read a configuration that somebody wrote.

    Args:
        files: YAML or JSON files, laid over ``config.yaml`` one after the other, as with Snakemake; none for the defaults.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: as :meth:`Config.read`, and what :func:`d2rnet.settings.read_overlay` refuses.
    """
    overlay: dict[str, Any] = {}
    for file in files:
        overlay = merge(overlay, read_overlay(file))
    return Config.read(overlay, source=" with ".join(map(str, files)) or "configuration")


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted path and value of every text."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(part, f"{path}.{key}" if path else str(key))
