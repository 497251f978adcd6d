"""Source names of config.yaml and the modules that read them; a module is imported only when its source is asked for."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol, cast

from d2rnet.cxr.sources.tables import LabelledTable, ReportTable, RequiredFile
from d2rnet.errors import ConfigError
from d2rnet.files.problems import Problems
from d2rnet.settings import Settings

LABELLED_SOURCES: Mapping[str, str] = MappingProxyType(
    {name: f"d2rnet.cxr.sources.{name}" for name in ("vindr", "vinbigdata", "nih")}
    | {"coco": "d2rnet.cxr.sources.coco_source"}
)
REPORT_SOURCES: Mapping[str, str] = MappingProxyType(
    {name: f"d2rnet.cxr.sources.{name}" for name in ("mimic", "openi", "r2gen")}
)
UNLABELLED_SOURCES: Mapping[str, str] = MappingProxyType({"folder": "d2rnet.cxr.sources.folder"})


class LabelledSource(Protocol):
    """A module that reads images with boxes; see :mod:`d2rnet.cxr.sources.tables`."""

    def required_files(self, settings: Settings) -> list[RequiredFile]:
        """List what must exist under the configured roots (``settings`` is ``cxr.data.labelled``)."""

    def read_table(self, settings: Settings, problems: Problems) -> LabelledTable:
        """Parse the tables of ``cxr.data.labelled``."""


class ReportSource(Protocol):
    """A module that reads images, with or without reports; see :mod:`d2rnet.cxr.sources.tables`."""

    def required_files(self, settings: Settings) -> list[RequiredFile]:
        """List what must exist (``settings`` is ``cxr.data.reports`` or one item of ``cxr.data.extra_unlabelled``)."""

    def read_table(self, settings: Settings, problems: Problems) -> ReportTable:
        """Parse the tables and report texts."""


def labelled_source(name: str) -> LabelledSource:
    """Return the module of a labelled source.

    Raises:
        ConfigError: no labelled source has that name.
    """
    return cast(LabelledSource, _load("cxr.data.labelled.source", name, LABELLED_SOURCES))


def report_source(name: str) -> ReportSource:
    """Return the module of a source of images with reports.

    Raises:
        ConfigError: no report source has that name.
    """
    return cast(ReportSource, _load("cxr.data.reports.source", name, REPORT_SOURCES))


def unlabelled_source(name: str) -> ReportSource:
    """Return the module of a source of images without reports.

    Raises:
        ConfigError: no such source has that name.
    """
    return cast(ReportSource, _load("cxr.data.extra_unlabelled[].source", name, UNLABELLED_SOURCES))


def _load(key: str, name: str, modules: Mapping[str, str]) -> object:
    if name not in modules:
        raise ConfigError(f"{key}: unknown source '{name}'; expected one of {', '.join(modules)}.")
    return importlib.import_module(modules[name])
