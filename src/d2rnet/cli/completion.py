"""``d2rnet completion``: a script that makes a shell complete sub-commands, options and files; written by shtab."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from d2rnet.cli.entry import build_parser
from d2rnet.errors import ConfigError, ToolError

SHELLS = ("bash", "zsh", "fish")


def completion(*, shell: str) -> None:
    """Print the completion script of a shell.

    Args:
        shell: bash, zsh or fish.

    Raises:
        ConfigError: another shell.
        ToolError: the package shtab is not installed.
    """
    if shell not in SHELLS:
        raise ConfigError(f"d2rnet completion: got shell '{shell}'; expected {', '.join(SHELLS)}.")
    try:
        import shtab
    except ImportError as error:
        raise ToolError("d2rnet completion needs the package shtab, which is not installed: pip install shtab") from error
    parser = build_parser()
    for action in _actions(parser):
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # where shtab looks for it
    print(shtab.complete(parser, shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser and of its sub-commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _actions(sub)
