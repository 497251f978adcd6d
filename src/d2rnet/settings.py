"""Settings: the base of every typed section of ``config.yaml``, and how settings are read from people.

A section is a frozen model beside the code that reads it; each of its fields states default, meaning, unit, source and bounds
once (:func:`setting`). ``config.yaml``'s JSON schema, docs/reference/config.md and ``--help`` are made from the sections, so
that a command run without Snakemake behaves as the workflow does. An unknown key is refused by name with the closest one.
"""

import codecs
import copy
import difflib
import json
import shlex
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import check_regular_file
from d2rnet.files.parsing import ParseError, parse_json, parse_yaml

MAX_KEY_DEPTH = 20  # of --set; the deepest key has six parts


class Section(BaseModel):
    """A section of ``config.yaml``: complete, valid and unchangeable once it is made.

    Attributes:
        place: dotted path of the section in ``config.yaml``, "" for the whole; for messages.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=(), use_attribute_docstrings=True
    )
    place: ClassVar[str] = ""

    @classmethod
    def read(cls, overlay: Mapping[str, Any], *, source: str = "configuration") -> Self:
        """Lay settings over the defaults of this section.

        Args:
            overlay: nested settings; keys left out take the default.
            source: where they come from, for the message.

        Raises:
            ConfigError: unknown key (with the closest known one), wrong type, value out of range; all of them are listed.
        """
        try:
            return cls.model_validate(dict(overlay))
        except ValidationError as error:
            problems = sorted({_explain(cls, found) for found in error.errors(include_url=False)})
            raise ConfigError(f"{source}: {len(problems)} problem(s)\n  " + "\n  ".join(problems)) from error

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return self.model_dump(mode="json")

    def replaced(self, **changes: Any) -> Self:
        """Return a copy in which some fields differ; the result is checked again.

        Args:
            changes: field -> value; a mapping is laid over the section of that field.

        Raises:
            ConfigError: a value is not valid.
        """
        return type(self).read(merge(self.to_json(), changes))


AnySection = TypeVar("AnySection", bound=Section)


def setting(default: Any, **bounds: Any) -> Any:
    """Declare a field of a section; the text below it states meaning, unit and source.

    Args:
        default: what ``config.yaml`` ships with.
        bounds: ``ge``, ``gt``, ``le``, ``lt``, ``multiple_of``, ``min_length``, ``max_length`` of pydantic, and
            ``json_schema_extra``, which tells editors what a validator of our own checks.
    """
    if isinstance(default, tuple):
        bounds["strict"] = False  # YAML has lists
    return Field(default=default, **bounds)


@dataclass(frozen=True)
class WhereAbsent:
    """Mark of a field whose default was another one when it came, such as ``Annotated[int, WhereAbsent(64)]``.

    Attributes:
        value: that first default; settings stored before the field came stand for it.
    """

    value: Any


def where_absent(section: type[Section]) -> dict[str, Any]:
    """Return nested settings, as JSON values: what stored settings that lack a field stand for, where not for its default."""
    found: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        inner = subsection(field.annotation)
        if inner is not None:
            found |= {name: nested} if (nested := where_absent(inner)) else {}
        else:
            found.update((name, plain(mark.value)) for mark in field.metadata if isinstance(mark, WhereAbsent))
    return found


def each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the values (``AfterValidator`` of a field).

    Raises:
        ValueError: one of them is there twice.
    """
    if len(set(values)) != len(values):
        raise ValueError("expected each item once")
    return values


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``overlay`` laid over it, key by key; lists and scalars are replaced whole."""
    merged = dict(base)
    for key, value in overlay.items():
        both_nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both_nested else copy.deepcopy(value)
    return merged


def values_in(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted path and value of everything in nested mappings that is no mapping, or one without keys."""
    if not isinstance(value, Mapping) or (path and not value):
        yield path, value
        return
    for key, part in value.items():
        yield from values_in(part, f"{path}.{key}" if path else str(key))


def subsection(annotation: Any) -> type[Section] | None:
    """Return the section that a field's type is, None for a field that holds a value."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def leaves(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield dotted key and field of every setting of a section, those of its own sections included."""
    for name, field in section.model_fields.items():
        inner = subsection(field.annotation)
        if inner is None:
            yield f"{prefix}{name}", field
        else:
            yield from leaves(inner, f"{prefix}{name}.")


def section_lines(section: type[Section]) -> list[str]:
    """Describe each setting of a section in one line: dotted key, default, description."""
    found = []
    for key, field in leaves(section):
        default = json.dumps(plain(field.default), ensure_ascii=False)
        found.append(f"{key} (default {default}): {' '.join((field.description or '').split())}")
    return found


def as_json(settings: Any) -> Any:
    """Return settings of a record as JSON values: a section's, or a mapping as it is."""
    return settings.to_json() if isinstance(settings, Section) else settings


def plain(value: Any) -> Any:
    """Return a default as JSON values: a tuple is a list."""
    return list(value) if isinstance(value, tuple) else value


def read_overlay(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings that somebody wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: not UTF-8, not YAML, a key twice, or no mapping.
    """
    try:
        check_regular_file(path)
        text = path.read_text(encoding="utf-8-sig")
        # YAML takes JSON's 1e-05 for a text
        content = parse_json(text) if path.suffix == ".json" else parse_yaml(text)
    except DatasetError as error:
        raise ConfigError(str(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: {_not_utf8(path, error)}") from error
    except (json.JSONDecodeError, ParseError) as error:
        raise ConfigError(f"{path}: not a YAML file that can be used ({error}). Mend it.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: got a {type(content).__name__}; expected keys of config.yaml with their values.")
    return content


def _not_utf8(path: Path, error: UnicodeDecodeError) -> str:
    """Say where a file is not UTF-8, and how to convert it; its text is not repeated."""
    encoding = "UTF-16" if error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "ISO-8859-1"
    line = error.object.count(b"\n", 0, error.start) + 1
    command = f"iconv -f {encoding} -t UTF-8 {shlex.quote(str(path))} > utf8.yaml"
    return (
        f"line {line}, byte {error.start} is not UTF-8; expected a UTF-8 YAML file. Save it as UTF-8, for instance: {command}"
    )


def read_settings(text: str) -> tuple[dict[str, Any], str]:
    """Read ``--settings``; return its content and its name for messages.

    Args:
        text: inline JSON object, or the path of a YAML or JSON file.

    Raises:
        ConfigError: not an object, not found, or not a file of settings.
    """
    if text.lstrip().startswith("{"):
        try:
            return parse_json(text), "configuration"
        except (json.JSONDecodeError, ParseError) as error:
            raise ConfigError(f"--settings {text[:80]}: not a JSON object ({error}).") from error
    path = Path(text)
    try:
        check_regular_file(path)
    except (FileNotFoundError, DatasetError) as error:
        raise ConfigError(f"--settings {text[:80]!a}: no such file; expected a YAML file or an inline JSON object.") from error
    try:
        return read_overlay(path), f"--settings {path}"
    except ConfigError as error:
        raise ConfigError(f"--settings {error}") from error


def assigned(assignment: str) -> dict[str, Any]:
    """Return what one ``--set`` says as nested settings.

    Raises:
        ConfigError: not ``key=value`` with a YAML value.
    """
    key, separator, value = assignment.partition("=")
    if not separator or key.count(".") > MAX_KEY_DEPTH:
        raise ConfigError(f"--set {assignment[:80]}: expected key=value, with a key of config.yaml.")
    try:
        nested: Any = parse_yaml(value)
    except ParseError as error:
        raise ConfigError(f"--set {key}: {value[:80]!r} is not a YAML value ({error}).") from error
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return dict(nested)


def _explain(section: type[Section], error: Any) -> str:
    """Say what is wrong with one key: its dotted path, what was found, what is expected."""
    location = [part for part in error["loc"] if not _is_of_union(part)]
    path = ".".join([*filter(None, section.place.split(".")), *map(str, location)])
    around, field = _field_at(section, location)
    if error["type"] == "extra_forbidden":
        return _unknown_key(path, str(location[-1]), list(around.model_fields))
    description = " ".join(field.description.split()) if field is not None and field.description else ""
    found = _found(error)
    if field is not None and typing.get_origin(field.annotation) in _UNIONS and _is_of_union(error["loc"][-1]):
        found = f"{error['input']!r}"[:80] + f"; expected {type_words(field.annotation)}"
    text = f"{path or '(top level)'}: {found}{_closest_choice(error)}"
    return text + (f" [{description}]" if description else "")


def _is_of_union(part: Any) -> bool:
    """Whether a part of a location names a branch of a union, as pydantic writes it, and no key."""
    return isinstance(part, str) and (part in _BRANCHES or "[" in part)


_UNIONS = (typing.Union, types.UnionType)
_BRANCHES = frozenset({"str", "int", "float", "bool", "dict", "list", "none", "literal"})


def _field_at(section: type[Section], location: list[Any]) -> tuple[type[Section], FieldInfo | None]:
    """Return the innermost section that a location passes through, and the field that it ends at."""
    field = None
    names_a_section = False
    for part in location:
        if names_a_section:  # a key of dict[str, Section]
            names_a_section = False
            continue
        known = section.model_fields.get(part) if isinstance(part, str) else None
        if known is None:
            break
        field = known
        inner = subsection(known.annotation) or _item_section(known.annotation)
        if inner is not None:
            section = inner
            names_a_section = typing.get_origin(known.annotation) is dict
    return section, field


def _item_section(annotation: Any) -> type[Section] | None:
    """Return the section that the items of a tuple are, or the values of a mapping."""
    parts = typing.get_args(annotation)
    if not parts or typing.get_origin(annotation) not in (tuple, dict):
        return None
    return subsection(parts[0] if typing.get_origin(annotation) is tuple else parts[-1])


def _found(error: Any) -> str:
    """Say what was found and what is expected, in words that a schema would use."""
    value = error["input"]
    words = {
        "less_than_equal": "{value} is greater than the maximum of {le}",
        "greater_than_equal": "{value} is less than the minimum of {ge}",
        "less_than": "{value} is not below {lt}",
        "greater_than": "{value} is not above {gt}",
        "finite_number": "{value}; expected a finite number",
        "literal_error": "{value} is not one of {expected}",
        "int_type": "{value}; expected an integer",
        "float_type": "{value}; expected a number",
        "bool_type": "{value}; expected true or false",
        "string_type": "{value}; expected a text",
        "tuple_type": "{value}; expected a list",
        "dict_type": "{value}; expected keys with their values",
        "model_type": "{value}; expected keys with their values",
        "too_short": "{value}; expected at least {min_length} items",
        "too_long": "{value}; expected at most {max_length} items",
        "missing": "missing",
        "value_error": "{value}; {error}",
    }
    pattern = words.get(error["type"], "{value}: {message}")
    if error["type"] == "float_type" and isinstance(value, str):
        pattern = "{value} is a text; expected a number" + ("; YAML wants 1.0e-3, not 1e-3" if _is_number(value) else "")
    shown = repr(value)[:80] if isinstance(value, str) else str(value)[:80]
    return pattern.format(value=shown, message=error["msg"], **error.get("ctx", {}))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _closest_choice(error: Any) -> str:
    """Return "; did you mean 'X'?" for a misspelled word out of a list, "" for anything else."""
    if error["type"] != "literal_error":
        return ""
    if error["input"] is False and "'off'" in error["ctx"]["expected"]:
        return '; YAML reads off without quotes as false, write "off"'
    if not isinstance(error["input"], str):
        return ""
    choices = [choice.strip("'") for choice in error["ctx"]["expected"].replace(" or ", ", ").split(", ")]
    close = difflib.get_close_matches(error["input"], choices, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def _unknown_key(path: str, key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(known)}"
    return f"{path}: unknown key; {hint}"


def type_words(annotation: Any) -> str:
    """Name the type of a field as docs/reference/config.md shows it."""
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(f"`{json.dumps(value).strip(chr(34))}`" for value in typing.get_args(annotation))
    if typing.get_origin(annotation) in _UNIONS:
        return " or ".join(type_words(part) for part in typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        return "list"
    names = {bool: "boolean", int: "integer", float: "number", str: "text", dict: "object", type(None): "null"}
    return names.get(typing.get_origin(annotation) or annotation, "object")
