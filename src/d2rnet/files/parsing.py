"""JSON and YAML that may come from anybody: strict, and small in memory whatever they say.

The standard parsers keep the last of two equal keys, let lone surrogates in that no file can hold again, and leave their own
errors (recursion limit, limit of digits) to the caller; a YAML file of a kilobyte can stand for gigabytes through its aliases.
Here each of these is one :class:`ParseError` that says where. Reads and writes nothing itself.
"""

import json
import re
from collections import Counter
from functools import partial
from typing import Any

import yaml

MAX_YAML_NODES = 1_000_000  # with every alias written out; a whole configuration has a few hundred
MAX_YAML_FLOW_DEPTH = 100
_BRACKET = re.compile(r"[\[\]{}]")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class ParseError(ValueError):
    """A text is not what its format says; the message is the reason alone, without a file name."""


def parse_json(text: str) -> Any:
    """Parse a JSON document.

    Raises:
        ParseError: not JSON, a key twice in one object, nested too deeply, a number of too many digits, or a string that is no
            Unicode text.
    """
    return guarded(partial(json.loads, object_pairs_hook=unique_keys), text)


def guarded(parse: Any, text: str, *arguments: int) -> Any:
    """Call a parser of the ``json`` module and turn whatever it raises into a ParseError.

    Args:
        parse: ``json.loads`` or ``JSONDecoder.raw_decode``, with :func:`unique_keys` as its hook.
        text: what to parse.
        arguments: of ``raw_decode``, where the item begins; only the text of that item is looked at.

    Raises:
        json.JSONDecodeError: not JSON (a reader of a stream must tell it from the rest: more text may mend it).
        ParseError: as :func:`parse_json`.
    """
    try:
        value = parse(text, *arguments)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise ParseError("nested too deeply") from error
    except ValueError as error:  # unique_keys, or Python's limit of digits
        reason = str(error) if isinstance(error, ParseError) else "a number of too many digits"
        raise ParseError(reason) from error
    found, start, end = (value[0], arguments[0], value[1]) if arguments else (value, 0, len(text))
    if _SURROGATE_ESCAPE.search(text, start, end):
        _check_text(found)
    return value


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs (``object_pairs_hook`` of ``json``).

    Raises:
        ParseError: a key occurs twice; one of the two values would be lost.
    """
    value = dict(pairs)
    if len(value) != len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ParseError(f"the key {twice[:80]!r} occurs twice in one object")
    return value


def _check_text(value: Any) -> None:
    """Raise if a string anywhere in a parsed document holds half a surrogate pair, which no UTF-8 file can."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, str) and not is_unicode(item):
            raise ParseError(f"the string {item[:40]!a} holds half a surrogate pair, which is no character")


def is_unicode(text: str) -> bool:
    """Say whether a string can be written as UTF-8 (file names and JSON escapes may hold lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_yaml(text: str) -> Any:
    """Parse a YAML document into plain values; no tag makes an object of any class.

    Raises:
        ParseError: not YAML, a key twice in one mapping, nested too deeply, an alias that contains itself, or more than
            MAX_YAML_NODES values once aliases are written out.
    """
    if _flow_depth(text) > MAX_YAML_FLOW_DEPTH:  # PyYAML takes seconds to find out
        raise ParseError("nested too deeply")
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_nodes(node)
        return loader.construct_document(node)
    except ParseError:
        raise
    except RecursionError as error:
        raise ParseError("nested too deeply") from error
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:  # impossible dates, too many digits, odd keys
        raise ParseError(" ".join(str(error).split())) from error
    finally:
        if loader is not None:
            loader.dispose()


def _flow_depth(text: str) -> int:
    """Return how deep brackets and braces are open at most, those within quotes included."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(text):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _check_nodes(root: yaml.Node) -> None:
    """Raise for repeated keys, for aliases in a circle, and for more nodes than MAX_YAML_NODES, each alias counted in full."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        known = sizes.get(id(node))
        if known == 0:
            raise ParseError("an alias contains itself")
        if known is None:
            sizes[id(node)] = 0  # being counted
            children = node.value
            if isinstance(node, yaml.MappingNode):
                _check_keys(node)
                children = [part for pair in node.value for part in pair]
            known = sizes[id(node)] = 1 + sum(map(size, children))
        if known > MAX_YAML_NODES:
            raise ParseError(f"its aliases stand for more than {MAX_YAML_NODES} values")
        return known

    size(root)


def _check_keys(node: yaml.MappingNode) -> None:
    names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<")
    for name, count in names.most_common(1):
        if count > 1:
            raise ParseError(f"the key '{name[:80]}' occurs twice (line {node.start_mark.line + 1} and below)")
