"""How the command line explains itself: commands by what people want, at the terminal's width; what a mistyped one meant."""

import argparse
import difflib
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

HANGING = 4  # columns that a wrapped line of settings is set in


class Formatter(argparse.HelpFormatter):
    """Wraps every line for itself, so that lists stay lists."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(_wrapped(line, width, indent) for line in text.splitlines())


def _wrapped(line: str, width: int, indent: str) -> str:
    start = indent + line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line.strip(),
        width,
        initial_indent=start,
        subsequent_indent=start + " " * (HANGING if start else 0),
        break_long_words=False,
        break_on_hyphens=False,
    )


class Parser(argparse.ArgumentParser):
    """A parser that may list its commands under headings, and knows what was meant.

    Attributes:
        purposes: heading -> its commands, in this order; empty: all commands under one heading.
    """

    purposes: Mapping[str, Sequence[str]] = {}

    def __init__(self, **keywords: Any) -> None:
        """Take what ``argparse.ArgumentParser`` takes."""
        super().__init__(formatter_class=Formatter, **keywords)

    def format_help(self) -> str:
        """Return the help text."""
        if not self.purposes:
            return super().format_help()
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        commands = next(action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        listed = {action.dest: action for action in commands._get_subactions()}
        for heading, names in self.purposes.items():
            formatter.start_section(heading)
            formatter.add_arguments([listed[name] for name in names])
            formatter.end_section()
        formatter.start_section("options")
        formatter.add_arguments(self._optionals._group_actions)
        formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse what is known; a long option that is not is an error here, of the command that it was given to."""
        found, rest = super().parse_known_args(args, namespace)
        unknown = next((word.partition("=")[0] for word in rest if word.startswith("--")), None)
        if unknown:
            meant = _meant(unknown, self._option_string_actions)
            self.error(f"there is no option '{unknown[:80]}'.{meant} '{self.prog} --help' lists all.")
        return found, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            meant = _meant(str(value), action.choices, before=f"{self.prog} ")
            lists = f"'{self.prog} --help' lists all commands."
            raise argparse.ArgumentError(None, f"there is no '{self.prog} {str(value)[:80]}'.{meant} {lists}")
        super()._check_value(action, value)


def _meant(word: str, known: Iterable[str], *, before: str = "") -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean '{before}{close[0]}'?" if close else ""
