"""Whether features of stage 1 hold what stage 2 asks for."""

from typing import Protocol

from d2rnet.ct.report_model.settings import CtReportModelSettings
from d2rnet.errors import ConfigError


class Kept(Protocol):
    """What is kept of a volume, or is to be: facts of features, or the settings of their extraction."""

    @property
    def patches(self) -> str:
        """Whose vectors: top, random or all."""

    @property
    def most_per_structure(self) -> int:
        """How many of each structure."""


def check_kept(settings: CtReportModelSettings, kept: Kept) -> None:
    """Refuse settings that ask for what the features do not hold.

    Raises:
        ConfigError: names what is asked for and what is kept.
    """
    needed = {"attention": ("top", "all"), "random": ("random", "all"), "all": ("all",)}.get(settings.selection)
    if needed and kept.patches not in needed:
        raise ConfigError(
            f"{settings.place}.selection: '{settings.selection}' needs ct.report.features.patches {' or '.join(needed)}; the "
            f"features were extracted with '{kept.patches}'. Extract them again, or take another selection."
        )
    if settings.selection in ("attention", "random") and settings.patches_per_structure > kept.most_per_structure:
        raise ConfigError(
            f"{settings.place}.patches_per_structure: {settings.patches_per_structure}; the features hold "
            f"{kept.most_per_structure} of each structure (ct.report.features.most_per_structure). Extract more, or take "
            "fewer."
        )
    if settings.selection == "none" and not settings.observations:
        raise ConfigError(f"{settings.place}: selection none without observations leaves the decoder nothing to see. Set one.")
