"""What a sub-command is: its function, its settings and its options; and the options that several share."""

import argparse
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d2rnet.settings import Section


@dataclass(frozen=True)
class Option:
    """One command-line option; positional ones are given without their name.

    ``kind`` is input or inputs (files or folders that must exist), path, int, float, text, texts (may be given again), or flag
    (no value; true if given).
    """

    flag: str
    help: str
    kind: str = "path"
    default: Any = None
    positional: bool = False
    optional: bool = False

    @property
    def name(self) -> str:
        """Name of the parameter that its value is passed as."""
        return self.flag.replace("-", "_")

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add this option to a parser; options without a default are required unless they are marked optional."""
        types: dict[str, Any] = {"input": Path, "inputs": Path, "path": Path, "int": int, "float": float, "text": str}
        if self.kind == "flag":
            parser.add_argument(f"--{self.flag}", action="store_true", help=self.help)
            return
        if self.kind == "texts":
            parser.add_argument(f"--{self.flag}", action="append", default=[], metavar="TEXT", help=self.help)
            return
        nargs = "+" if self.kind == "inputs" else None
        if self.positional:
            parser.add_argument(self.flag, type=types[self.kind], nargs=nargs, help=self.help)
            return
        shown = f"{self.help} (default {self.default})" if self.default else self.help
        parser.add_argument(
            f"--{self.flag}",
            type=types[self.kind],
            nargs=nargs,
            required=self.default is None and not self.optional,
            default=self.default,
            help=shown,
            metavar={Path: "PATH", int: "N", float: "X", str: "TEXT"}[types[self.kind]],
        )

    def check(self, value: Any) -> None:
        """Check that what the command reads exists, before anything heavy is imported.

        Raises:
            FileNotFoundError: a file or folder does not.
        """
        if self.kind not in ("input", "inputs") or value is None:
            return
        for path in value if self.kind == "inputs" else [value]:
            if not path.exists():
                name = self.flag if self.positional else f"--{self.flag}"
                raise FileNotFoundError(f"{path}: no such file or folder; expected {self.help} ({name}).")


@dataclass(frozen=True)
class Command:
    """One sub-command.

    Attributes:
        summary: what it does.
        target: the ``module:function`` that does it.
        section: ``module:class`` of the settings that it reads; "" for none.
        options: its options.
        runtime: ``module:class`` of what it reads of section ``runtime``, an option per key; "" for none.
    """

    summary: str
    target: str
    section: str
    options: tuple[Option, ...]
    runtime: str = ""

    def settings_class(self) -> "type[Section] | None":
        """Import the section of its settings; None where it reads none."""
        return _load(self.section)

    def runtime_class(self) -> "type[Section] | None":
        """Import the section of its runtime options; None where it has none."""
        return _load(self.runtime)


def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute) if name else None


WORKERS = Option("workers", "processes working in parallel", "int", 1)
DEVICE = Option("device", "auto, cpu, cuda or cuda:N; auto takes a GPU if there is one", "text", "auto")
PROCESSES = Option("processes", "processes that share each batch; with GPUs one per GPU", "int", 1)
SHARD = Option("shard", "which shard to do, 1..N", "int", 1)
SHARDS = Option("shards", "number of shards N", "int", 1)
OUTPUT = Option("output", "folder for the results")
ANNOTATION = Option("annotation", "annotation.json of build-annotation", "input")
IMAGE_ROOT = Option("image-root", "folder that image_path in annotation.json is relative to", "input")
WORK = Option("work", "folder for checkpoints and other state needed to resume")
# folders of trained models, where a finished run has them
DETECTOR = Option("detector", "folder of train-detector", "path", Path("results/cxr/train_detector"))
REPORT_MODEL = Option("report-model", "folder of train-report-model", "path", Path("results/cxr/train_report_model"))
STRUCTURES = Option("structures", "folder of train-structures, for CT", "path", Path("results/ct/train_structures"))
CT_REPORT_MODEL = Option(
    "ct-report-model", "folder of train-ct-report-model, for CT", "path", Path("results/ct/train_ct_report_model")
)
JSON = Option("json", "show a JSON document instead of text", "flag")
