"""Settings: one strict JSON schema for ``config.yaml``, shared by Snakemake and the command line.

An unknown key is refused by name with the closest known one; every default is stated in the schema and equals the shipped
``config.yaml`` (tested), so that a command run without Snakemake behaves as the workflow does.
"""

import copy
import difflib
import json
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from d2rnet.errors import ConfigError, DatasetError
from d2rnet.io import check_regular_file
from d2rnet.parsing import ParseError, parse_json, parse_yaml

Settings = dict[str, Any]
MAX_KEY_DEPTH = 20  # of --set; the schema's deepest key has five parts
_SCHEMA_PLACES = (
    Path(__file__).resolve().parents[2] / "workflow" / "schemas" / "config.schema.yaml",
    Path(__file__).resolve().parent / "config.schema.yaml",
)


@cache
def load_schema() -> Settings:
    """Return the schema of ``config.yaml`` (from the repository, else from the installed package)."""
    for place in _SCHEMA_PLACES:
        if place.is_file():
            return yaml.safe_load(place.read_text(encoding="utf-8"))
    raise ConfigError(f"config.schema.yaml: not found in any of {', '.join(map(str, _SCHEMA_PLACES))}; reinstall d2rnet.")


def section_schema(section: str) -> Settings:
    """Return the sub-schema at a dotted path such as ``"detector.training"``; ``""`` is the whole schema."""
    schema = load_schema()
    for key in filter(None, section.split(".")):
        schema = schema["properties"][key]
    return schema


def default_settings(section: str = "") -> Settings:
    """Return the defaults of a section: the demo configuration."""
    return _defaults(section_schema(section))


def _defaults(schema: Settings) -> Any:
    if schema.get("type") == "object" and "properties" in schema:
        return {key: _defaults(sub) for key, sub in schema["properties"].items()}
    return copy.deepcopy(schema["default"])


def complete(settings: Settings, section: str = "", *, source: str = "configuration") -> Settings:
    """Lay settings over the defaults of their section and validate the result.

    Args:
        settings: nested settings; keys left out take the default.
        section: dotted path of the section, ``""`` for the whole configuration.
        source: where they come from, for the message.

    Returns:
        A new, complete, valid settings dictionary.

    Raises:
        ConfigError: unknown key (with the closest known one), wrong type, value out of range; all of them are listed.
    """
    merged = merge(default_settings(section), settings)
    validate(merged, section, source=source)
    return merged


def merge(base: Settings, overlay: Settings) -> Settings:
    """Return ``base`` with ``overlay`` laid over it, key by key; lists and scalars are replaced whole."""
    merged = dict(base)
    for key, value in overlay.items():
        both_nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both_nested else copy.deepcopy(value)
    return merged


def validate(settings: Settings, section: str = "", *, source: str = "configuration") -> None:
    """Check settings against the schema.

    Raises:
        ConfigError: names every offending key with its dotted path, what was found and what is allowed.
    """
    validator = jsonschema.Draft202012Validator(section_schema(section))
    problems = [text for error in validator.iter_errors(settings) for text in _explain(error, section)]
    problems += [
        f"{path}: {value}; expected a finite number"  # NaN lies within every range of a schema
        for path, value in _scalars(settings, section)
        if isinstance(value, float) and not math.isfinite(value)
    ]
    if not section and not problems:
        problems = _contradictions(settings)
    if problems:
        raise ConfigError(f"{source}: {len(problems)} problem(s)\n  " + "\n  ".join(sorted(problems)))


def _contradictions(settings: Settings) -> list[str]:
    """Return what a schema cannot see: keys of the whole configuration that do not go together."""
    found = [
        f"{path}: {value!r}; expected no brace, which Snakemake takes for a wildcard. Rename the file or folder"
        for path, value in _scalars(settings, "")
        if isinstance(value, str) and set("{}") & set(value)
    ]
    read, written = settings["data"]["reports"]["section"], settings["report"]["text"]["section"]
    if read != written:
        found.append(f"report.text.section: '{written}', but data.reports.section is '{read}'; set both to the same section")
    return found


def _scalars(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield dotted path and value of everything that is neither object nor list."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _scalars(part, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _explain(error: jsonschema.ValidationError, section: str) -> list[str]:
    path = ".".join([*filter(None, section.split(".")), *map(str, error.absolute_path)])
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = list(error.schema.get("properties", {}))
        return [_unknown_key(path, key, known) for key in error.instance if key not in known]
    description = error.schema.get("description", "") if isinstance(error.schema, dict) else ""
    text = f"{path or '(top level)'}: {error.message}{_closest_choice(error)}"
    return [text + (f" [{' '.join(description.split())}]" if description else "")]


def _closest_choice(error: jsonschema.ValidationError) -> str:
    """Return "; did you mean 'X'?" for a misspelled word out of a list, "" for anything else."""
    if error.validator != "enum" or not isinstance(error.instance, str):
        return ""
    choices = [choice for choice in error.validator_value if isinstance(choice, str)]
    close = difflib.get_close_matches(error.instance, choices, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def _unknown_key(path: str, key: object, known: list[str]) -> str:
    close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(known)}"
    return f"{path + '.' if path else ''}{key}: unknown key; {hint}"


def parse_settings(text: str | None, assignments: list[str], section: str) -> Settings:
    """Read settings given on the command line.

    Args:
        text: inline JSON object, or the path of a YAML/JSON file that holds this section; None for the defaults.
        assignments: ``dotted.key=value`` pairs laid over it; values are read as YAML.
        section: dotted path of the section they belong to.

    Raises:
        ConfigError: not an object, not found, or not valid under the schema.
    """
    overlay: Any = {}
    source = "configuration"
    if text:
        if text.lstrip().startswith("{"):
            try:
                overlay = parse_json(text)
            except (json.JSONDecodeError, ParseError) as error:
                raise ConfigError(f"--settings {text[:80]}: not a JSON object ({error}).") from error
        else:
            overlay, source = _read_settings_file(text) or {}, f"--settings {text}"
    if not isinstance(overlay, dict):
        raise ConfigError(f"{source}: got a {type(overlay).__name__}; expected an object with the keys of '{section}'.")
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not separator or key.count(".") > MAX_KEY_DEPTH:
            raise ConfigError(f"--set {assignment[:80]}: expected key=value, with a key of config.yaml.")
        try:
            nested: Any = parse_yaml(value)
        except ParseError as error:
            raise ConfigError(f"--set {key}: {value[:80]!r} is not a YAML value ({error}).") from error
        for part in reversed(key.split(".")):
            nested = {part: nested}
        overlay = merge(overlay, nested)
    return complete(overlay, section, source=source)


def _read_settings_file(name: str) -> Any:
    path = Path(name)
    try:
        check_regular_file(path)
    except (FileNotFoundError, DatasetError) as error:
        raise ConfigError(f"--settings {name[:80]!a}: no such file; expected a YAML file or an inline JSON object.") from error
    try:
        return parse_yaml(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"--settings {path}: byte {error.start} is not UTF-8; expected a UTF-8 YAML file.") from error
    except ParseError as error:
        raise ConfigError(f"--settings {path}: not a YAML file that can be used ({error}). Mend it.") from error


def section_lines(section: str) -> list[str]:
    """Describe each setting of a section in one line: dotted key, type, default, description."""
    lines: list[str] = []

    def walk(schema: Settings, prefix: str) -> None:
        if schema.get("type") == "object" and "properties" in schema:
            for key, sub in schema["properties"].items():
                walk(sub, f"{prefix}.{key}" if prefix else key)
            return
        default = json.dumps(schema["default"], ensure_ascii=False)
        lines.append(f"{prefix} (default {default}): {' '.join(schema['description'].split())}")

    walk(section_schema(section), "")
    return lines
