"""The settings of a sub-command from what was given for it: each of these is laid over the one before.

1. ``--configfile``: whole configurations, of which it takes the part that it reads, as the workflow does.
2. ``--settings``: its own section, inline or in a file; a whole configuration is taken for what it is.
3. ``--set``: single keys of its own section.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from d2rnet.settings import Section, assigned, merge, read_settings, subsection

AnySection = TypeVar("AnySection", bound=Section)


def given_settings(
    section: type[AnySection], configfile: Sequence[Path], text: str | None, assignments: Sequence[str]
) -> AnySection:
    """Read settings given on the command line.

    Args:
        section: the keys that the command reads; others are refused, those of a whole configuration left out.
        configfile: files of the configuration, laid over the defaults in this order.
        text: inline JSON object, or the path of a YAML/JSON file that holds this section or a whole configuration; None for
            the defaults.
        assignments: ``dotted.key=value`` pairs; values are read as YAML.

    Raises:
        ConfigError: not an object, not found, or not valid.
    """
    overlay: dict[str, Any] = {}
    sources: list[str] = []
    if configfile:
        from d2rnet.config import read_configuration

        overlay = part_of(read_configuration(configfile).to_json(), section)
        sources += map(str, configfile)
    if text:
        given, source = read_settings(text)
        overlay = merge(overlay, _own(section, given, source))
        sources.append(source)
    for assignment in assignments:
        overlay = merge(overlay, assigned(assignment))
    if assignments:
        sources.append("--set")
    return section.read(overlay, source=" with ".join(sources) or "configuration")


def _own(section: type[Section], given: dict[str, Any], source: str) -> dict[str, Any]:
    """Return what a section reads of settings: all, or, of a whole configuration, its part, after a check of the whole."""
    from d2rnet.config import Config

    if not given or given.keys() - Config.model_fields.keys() or given.keys() & section.model_fields.keys():
        return given
    Config.read(given, source=source)
    return part_of(given, section)


def part_of(configuration: Mapping[str, Any], section: type[Section]) -> dict[str, Any]:
    """Return what a section reads of a configuration.

    Args:
        configuration: whole or in part, and valid.
        section: class of the settings; keys that it has no fields for are left out.
    """
    values = configuration
    for key in filter(None, section.place.split(".")):
        values = values.get(key, {})
    return _read_by(section, values)


def _read_by(section: type[Section], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a section has fields for, in its own sections too."""
    inner = {name: subsection(section.model_fields[name].annotation) for name in values if name in section.model_fields}
    return {name: values[name] if part is None else _read_by(part, values[name]) for name, part in inner.items()}
