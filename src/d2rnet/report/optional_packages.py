"""Packages of an extra, which most models do without."""

import importlib
from typing import Any

from d2rnet.errors import ConfigError


def optional_package(name: str, place: str, *, extra: str, instead: str = "set it to null") -> Any:
    """Import a package of an extra.

    Args:
        name: of the module, such as transformers.
        place: setting that asks for it, for the message.
        extra: of pyproject.toml, which brings it.
        instead: what to do without it, for the message.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{place}: needs the package {name} ({error}). Run \"pip install 'd2rnet[{extra}]'\", or {instead}."
        ) from error
