"""Finds the module of a source by its name in ``config.yaml``; a module is imported only when its source is asked for."""

import importlib
from typing import Any, cast, get_args

from d2rnet.cxr.sources.registry import LabelledName, ReportName, UnlabelledName
from d2rnet.cxr.sources.tables import LabelledSource, ReportSource, UnlabelledSource
from d2rnet.errors import ConfigError


def labelled_source(name: str) -> LabelledSource:
    """Return the module of a labelled source.

    Raises:
        ConfigError: no labelled source has that name.
    """
    return cast(LabelledSource, _load("cxr.data.labelled.source", name, LabelledName))


def report_source(name: str) -> ReportSource:
    """Return the module of a source of images with reports.

    Raises:
        ConfigError: no report source has that name.
    """
    return cast(ReportSource, _load("cxr.data.reports.source", name, ReportName))


def unlabelled_source(name: str) -> UnlabelledSource:
    """Return the module of a source of images without reports.

    Raises:
        ConfigError: no such source has that name.
    """
    return cast(UnlabelledSource, _load("cxr.data.extra_unlabelled[].source", name, UnlabelledName))


def _load(key: str, name: str, names: Any) -> object:
    if name not in get_args(names):
        raise ConfigError(f"{key}: unknown source '{name}'; expected one of {', '.join(get_args(names))}.")
    return importlib.import_module(f"d2rnet.cxr.sources.{name}")
