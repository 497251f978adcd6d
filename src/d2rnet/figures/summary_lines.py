"""Lines of a run's summary for a terminal and Markdown: counts in words, wrapped text, lists."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MOST_LEAVES_SHOWN = 6
WIDTH = 118  # columns


def one_line(values: Mapping[str, Any], *, zeros: bool = True) -> str:
    """Write a mapping in one line; a large inner one is given as its sum and the number of its entries other than 0."""
    parts = []
    for key, value in values.items():
        name = key.replace("_", " ")
        if isinstance(value, dict):
            numbers = [number for number in value.values() if isinstance(number, int | float)]
            if len(value) > MOST_LEAVES_SHOWN and len(numbers) == len(value):
                value = f"{thousands(sum(numbers))} in {sum(number != 0 for number in numbers)} entries"
            else:
                inner = one_line(value, zeros=zeros)
                value = f"({inner})" if inner else 0
        elif isinstance(value, list):
            value = f"{len(value)} entries" if len(value) > MOST_LEAVES_SHOWN else " ".join(map(str, value))
        if zeros or value not in (0, "", None):
            parts.append(f"{name} {thousands(value)}")
    return ", ".join(parts)


def number(value: Any) -> str:
    """Format a value; '-' where there is none."""
    return f"{value:.3f}" if isinstance(value, int | float) else "-"


def thousands(value: Any) -> str:
    """Format a count with grouped digits, anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def count_lines(counts: Mapping[str, Any]) -> Iterator[str]:
    """Yield "name number, name number" for a counts file: plain numbers first, then one line per group; zeros are left out."""
    plain = one_line({key: value for key, value in counts.items() if not isinstance(value, dict)}, zeros=False)
    if plain:
        yield plain
    for key, value in counts.items():
        text = one_line(value, zeros=False) if isinstance(value, dict) else ""
        if text:
            yield f"{key.replace('_', ' ')}: {text}"


def wrapped(text: str, indent: str = "") -> list[str]:
    """Break a text into lines that fit a terminal; further lines are indented."""
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def listed(texts: Iterable[str]) -> Iterator[str]:
    """Lay out a Markdown list that fits a terminal."""
    for text in texts:
        yield from wrapped(f"- {text}", "  ")
