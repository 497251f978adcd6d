"""``d2rnet migrate-config``: a configuration of an earlier version in today's keys, its comments kept.

What the new file must say is known from its content alone (:func:`migrated`). The text is changed place by place, so that
comments and order stay, and is read again: where it would say anything else, the content is written without comments.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from d2rnet.config import Config, moved_keys, new_place
from d2rnet.errors import ConfigError
from d2rnet.files.atomic import write_text
from d2rnet.files.parsing import ParseError, parse_yaml
from d2rnet.settings import merge, read_overlay, values_in

log = logging.getLogger(__name__)
WING = "cxr"
RUNTIME = "runtime"
_TOP_KEY = re.compile(r"[\"']?([a-z_]+)[\"']?\s*:")
COHORT = "resources/demo_cohort/"  # where the demo cohort was drawn; it is now in resources/cxr/


def migrate_config(*, file: Path, output: Path | None = None) -> None:
    """Write a configuration in today's keys, and print which keys have moved.

    Args:
        file: YAML file, laid over ``config.yaml`` with ``--configfile``; stays as it is.
        output: file to write; None: ``<name>.new.yaml`` beside it.

    Raises:
        ConfigError: not a configuration, the output is there already, or what is written is not valid in another way.
    """
    overlay = read_overlay(file)
    moved = moved_keys(overlay)
    if not moved:
        print(f"{file}: has today's keys; nothing to be written")
        return
    target = output or file.with_suffix(".new.yaml")
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target}: is there already and is not overwritten. Name another file with --output.")
    wanted = migrated(overlay)
    text = migrated_text(file.read_text(encoding="utf-8-sig"))
    if _content(text) != wanted:
        log.warning("%s: written in a way that cannot be changed place by place; comments are lost in %s", file, target)
        text = yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True)
    for key, value in values_in(overlay):
        kept = _at(wanted, new_place(key))
        if kept != _new_value(value):
            log.warning("%s: %s: %s is left out; %s is %s", file, key, value, new_place(key), kept)
    write_text(target, text)
    for old, new in moved.items():
        print(f"{old} -> {new}")
    print(f"written: {target}")
    Config.read(wanted, source=str(target))


def migrated(overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return an overlay of an earlier version in today's keys; where two keys have become one, the first one counts."""
    result: dict[str, Any] = {}
    for path, value in values_in(overlay):
        nested: Any = _new_value(value)
        for part in reversed(new_place(path).split(".")):
            nested = {part: nested}
        result = merge(nested, result)
    return result


def _at(content: Any, key: str) -> Any:
    for part in key.split("."):
        content = content.get(part) if isinstance(content, Mapping) else None
    return content


def _new_value(value: Any) -> Any:
    return value.replace("/", f"/{WING}/", 1) if isinstance(value, str) and value.startswith(COHORT) else value


def _content(text: str) -> Any:
    try:
        return parse_yaml(text)
    except ParseError:
        return None


def migrated_text(text: str) -> str:
    """Return the text of an overlay in today's keys: sections indented below their wing, keys renamed or moved."""
    edits: dict[tuple[int, int], str] = {}
    runtime: dict[str, str] = {}
    _plan(yaml.compose(text, Loader=yaml.SafeLoader), "", text, edits, runtime)
    for (start, end), replacement in sorted(edits.items(), reverse=True):
        text = text[:start] + replacement + text[end:]
    head, *blocks = _blocks(text)
    wing = [f"  {line}" if line.strip() else line for block in blocks if _is_moved(block) for line in block]
    others = [block for block in blocks if not _is_moved(block)]
    today = next((block for block in others if _key(block) == WING), None)  # a file that is half in today's keys
    if today:
        today += wing
    lines = [*head, *([f"{WING}:", *wing] if wing and not today else [])]
    if runtime and not any(_key(block) == RUNTIME for block in others):
        others.append(["", f"{RUNTIME}:"])
    for block in others:
        lines += block
        if _key(block) == RUNTIME:
            while not lines[-1].strip():
                lines.pop()
            lines += [f"  {line}" for line in runtime.values()]
    return "\n".join(lines).rstrip() + "\n"


def _plan(node: yaml.Node, path: str, text: str, edits: dict[tuple[int, int], str], runtime: dict[str, str]) -> bool:
    """Note what to replace in the text, and the lines that move to section runtime; return whether all of a node moves."""
    if not isinstance(node, yaml.MappingNode) or not node.value:
        if isinstance(node, yaml.ScalarNode) and (value := _new_value(node.value)) != node.value:
            edits[node.start_mark.index, node.end_mark.index] = value
        return new_place(path).startswith(f"{RUNTIME}.") and not path.startswith(f"{RUNTIME}.")
    moves = []
    for key, value in node.value:
        place = f"{path}.{key.value}" if path else key.value
        found: dict[tuple[int, int], str] = {}
        whole = _plan(value, place, text, found, runtime)
        moves.append(whole)
        name = new_place(place).rpartition(".")[2]
        if whole:
            start = key.start_mark.index
            end = _end(value)
            if not isinstance(value, yaml.MappingNode):
                comment = "" if node.flow_style else text[end:].partition("\n")[0]
                above = "" if node.flow_style else "".join(f"{line}\n  " for line in _comments_above(text, start))
                runtime.setdefault(name, f"{above}{name}: {text[value.start_mark.index : end]}{comment}")
            edits[_cut(text, start, end, in_braces=bool(node.flow_style))] = ""
        else:
            edits |= found
            if name != key.value:
                edits[key.start_mark.index, key.end_mark.index] = name
    return all(moves)


def _comments_above(text: str, start: int) -> list[str]:
    """Return the comments right above a key, as far in as the key itself: they are about it, or at the margin about more."""
    *above, indent = text[:start].split("\n")
    first = len(above)
    while indent and first > 0 and above[first - 1].startswith(f"{indent}#"):
        first -= 1
    return [line.strip() for line in above[first:]]


def _end(node: yaml.Node) -> int:
    """Return where a value ends; the end mark of a block lies behind the comments that follow it."""
    return _end(node.value[-1][1]) if isinstance(node, yaml.MappingNode) and not node.flow_style else node.end_mark.index


def _cut(text: str, start: int, end: int, *, in_braces: bool) -> tuple[int, int]:
    """Return what goes with a key and its value: the comma in braces, else its lines from the first column on."""
    if not in_braces:
        following = text.find("\n", end)
        lines = text[:start].split("\n")
        first = len(lines) - 1 - len(_comments_above(text, start))
        return sum(len(line) + 1 for line in lines[:first]), len(text) if following < 0 else following + 1
    after = re.compile(r"\s*,\s*").match(text, end)
    if after:
        return start, after.end()
    before = re.search(r"\s*,\s*$", text[:start])
    return before.start() if before else start, end


def _blocks(text: str) -> list[list[str]]:
    """Split a text into what is before the first key, and the lines of each top-level key with the comments above it."""
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if _TOP_KEY.match(line):
            above = blocks[-1]
            first = len(above)
            while len(blocks) > 1 and first > 0 and (not above[first - 1].strip() or above[first - 1].startswith("#")):
                first -= 1
            blocks.append([*above[first:], line])
            del above[first:]
        else:
            blocks[-1].append(line)
    return blocks


def _key(block: list[str]) -> str:
    found = next(filter(None, map(_TOP_KEY.match, block)), None)
    return found[1] if found else ""


def _is_moved(block: list[str]) -> bool:
    return new_place(_key(block)) != _key(block)
