"""Settings that something was made with against those of now."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

SHOWN = 5


def differences(made: Any, now: Any, place: str = "") -> list[str]:
    """Say which settings differ, one line each: dotted key, what it was made with, what it is now.

    Args:
        made: settings of a run record, as JSON values.
        now: settings to compare with; keys that only one of both has differ, too.
        place: dotted key of both.
    """
    return list(_differences(made, now, place))


def first_few(lines: list[str]) -> str:
    """Lay out the first few of :func:`differences` in one line."""
    more = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "; ".join(lines[:SHOWN]) + more


def _differences(made: Any, now: Any, place: str) -> Iterator[str]:
    if isinstance(made, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*now, *made]):
            yield from _differences(made.get(key, ...), now.get(key, ...), f"{place}.{key}" if place else str(key))
    elif made != now:
        yield f"{place} {_text(made)}, not {_text(now)}"


def _text(value: Any) -> str:
    return "without a value" if value is ... else json.dumps(value, ensure_ascii=False)[:80]
