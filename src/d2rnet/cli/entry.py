"""Command line: one sub-command per Snakemake rule, plus a few for people. Nothing else in the package parses arguments.

A sub-command parses, validates its settings against the schema and calls one function with explicit keyword arguments. The
function's module is imported only then, so that ``--help`` is quick and the data stage runs without torch.

Exit codes: :mod:`d2rnet.exit_codes`.
"""

import argparse
import atexit
import errno
import gc
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

import d2rnet
from d2rnet.cli.commands import COMMANDS, GROUPS, PURPOSES
from d2rnet.cli.help import Parser
from d2rnet.cli.logs import set_up_logging
from d2rnet.cli.options import Command
from d2rnet.errors import ConfigError, D2RNetError
from d2rnet.exit_codes import ExitCode

log = logging.getLogger("d2rnet")
# A full, failing or strange place of a file, no mistake of ours; the text of the error names the file.
DISK_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EISDIR}
    | {errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE}
)


def build_parser(detailed: str | None = None) -> argparse.ArgumentParser:
    """Build the argument parser from the table of commands.

    Args:
        detailed: the sub-command that is called: its settings are imported and listed in its help. Those of the others would
            take time. None details all of them.
    """
    parser = Parser(
        prog="d2rnet",
        description="Chest radiographs and CTs: from annotations to written reports. Research software, not a medical device."
        "\nYou may want to type: read, compare, export, doctor, clean, migrate-config, completion. The others are steps of "
        "the workflow, which calls them in order: 'snakemake --cores all'.",
        epilog="'d2rnet COMMAND --help' explains one: its files, options and settings.",
    )
    parser.purposes = PURPOSES
    parser.add_argument("--version", action="version", version=f"d2rnet {d2rnet.__version__}")
    below = {"": parser.add_subparsers(dest="command", required=True, metavar="COMMAND")}
    for group, summary in GROUPS.items():
        within = below[""].add_parser(group, help=summary, description=summary)
        below[group] = within.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        group, _, word = name.rpartition(" ")
        sub = below[group].add_parser(word, help=command.summary, description=command.summary)
        sub.set_defaults(command=name)  # both words of one within a group
        if detailed in (None, name):
            _add_options(sub, command)
    return parser


def _add_options(parser: argparse.ArgumentParser, command: Command) -> None:
    """Add the options of a sub-command, those that every one has included."""
    for option in command.options:
        option.add_to(parser)
    # d2rnet.settings brings pydantic, which commands without settings can do without.
    if runtime := command.runtime_class():
        from d2rnet.settings import leaves

        for key, field in leaves(runtime):
            parser.add_argument(
                f"--{key.replace('_', '-')}",
                type=type(field.default),
                default=field.default,
                metavar="N",
                help=f"{' '.join((field.description or '').split())} (default {field.default}; changes no result)",
            )
    if section := command.settings_class():
        from d2rnet.settings import section_lines

        lines = "\n".join(f"  {line}" for line in section_lines(section))
        parser.epilog = f"settings ({section.place} in config.yaml):\n{lines}"
        parser.add_argument(
            "--configfile",
            type=Path,
            nargs="+",
            default=[],
            metavar="FILE",
            help="configuration: files laid over config.yaml in this order; of them it takes the settings below",
        )
        parser.add_argument(
            "--settings",
            metavar="JSON|FILE",
            help="the settings below as a JSON object or a YAML file, or a configuration; rest: of --configfile, defaults",
        )
        parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one of them; may be repeated")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads (default: the libraries' own)")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write the log here too")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("--verbose", action="store_true", help="log debugging details")
    loudness.add_argument("--quiet", action="store_true", help="log warnings and errors only; no progress bars")


def _keywords(command: Command, args: argparse.Namespace) -> dict[str, Any]:
    """Return what the function of a sub-command is called with.

    Raises:
        ConfigError: a setting, or a runtime option, is not valid.
        FileNotFoundError: a file or folder that it reads does not exist.
    """
    keywords = {option.name: getattr(args, option.name) for option in command.options}
    if runtime := command.runtime_class():
        keywords["runtime"] = runtime.read({key: getattr(args, key) for key in runtime.model_fields}, source=args.command)
    if section := command.settings_class():
        from d2rnet.cli.given_settings import given_settings

        _check_assignments(args.set, list(runtime.model_fields) if runtime else [])
        keywords["settings"] = given_settings(section, args.configfile, args.settings, args.set)
    for option in command.options:
        option.check(keywords[option.name])
    return keywords


def _check_assignments(assignments: list[str], options: list[str]) -> None:
    """Refuse ``--set`` of what never changes a result and is an option.

    Args:
        assignments: ``dotted.key=value`` pairs.
        options: keys of section ``runtime`` that the sub-command takes as options.

    Raises:
        ConfigError: names the option.
    """
    for assignment in assignments:
        key, _, value = assignment.partition("=")
        name = key.rpartition(".")[2]
        if name in options:
            option = name.replace("_", "-")
            raise ConfigError(
                f"--set {key[:80]}: changes no result, so it is no setting but an option: --{option} {value[:80]}"
            )


def _called(arguments: list[str]) -> str:
    """Return the sub-command that the arguments call; "" if they call none."""
    pairs = map(" ".join, zip(arguments, [*arguments[1:], ""], strict=True))
    return next((name for pair in pairs for name in (pair, pair.partition(" ")[0]) if name in COMMANDS), "")


def main(arguments: list[str] | None = None) -> int:
    """Run one sub-command; return the exit code."""
    atexit.register(gc.freeze)  # or Python goes over every object of the libraries once more, seconds with torch
    words = sys.argv[1:] if arguments is None else arguments
    args = build_parser(_called(words)).parse_args(words)
    command = COMMANDS[args.command]
    try:
        set_up_logging(args.log, command=args.command, verbose=args.verbose, quiet=args.quiet)
        set_threads(args.threads)
        keywords = _keywords(command, args)
        module, function = command.target.split(":")
        result = getattr(importlib.import_module(module), function)(**keywords)
        sys.stdout.flush()
    except (D2RNetError, FileNotFoundError) as error:
        log.error("%s: %s", args.command, error)
        return ExitCode.REFUSED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered has nowhere to go
        return ExitCode.UNREAD
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            log.exception("%s: unexpected error", args.command)
            return ExitCode.UNEXPECTED
        log.error("%s: %s. No half-written file was left; free space or mend access, then run again.", args.command, error)
        return ExitCode.REFUSED
    except Exception:
        log.exception("%s: unexpected error", args.command)
        return ExitCode.UNEXPECTED
    except KeyboardInterrupt:
        log.error("%s: interrupted. What exists is whole; give the same command again to go on.", args.command)
        return ExitCode.INTERRUPTED
    return result if isinstance(result, int) else ExitCode.DONE


def set_threads(threads: int) -> None:
    """Limit the threads of numerical libraries; must run before they are imported. 0 leaves their number alone.

    A waiting OpenMP thread spins for a moment, then sleeps. Measured on 2 cores, a training step of the demo's report
    model: on a quiet machine 0.17 s so, 0.35 s with threads that sleep at once; beside two busy processes 0.4 s so, up to
    3.5 s with threads that spin on.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    if threads > 0:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
            os.environ[name] = str(threads)
