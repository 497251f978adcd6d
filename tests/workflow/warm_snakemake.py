"""Snakemake without the wait for its imports: each call is a fork of one process that has done them.

Two thirds of a dry run are imports of Snakemake and of what the Snakefile needs. In nothing else does a call differ from
``python -m snakemake``: a process of its own with its own environment, the same ``main`` with the same arguments. Where the
start itself is tested, start the program; the shared run (tests/conftest.py) does.
"""

import functools
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

# What a dry run imports beside them takes little.
PRELOADED = ("snakemake.cli", "snakemake.linting.rules", "snakemake.storage", "snakemake.report.html_reporter")
PRELOADED += ("d2rnet.config", "d2rnet.cli.commands", "d2rnet.cli.foreign_resources", "d2rnet.cli.run_lock")
PATIENCE_SECONDS = 3600


def warm_snakemake(
    *arguments: object, environment: Mapping[str, str], one_stream: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in the current directory to its end.

    Args:
        arguments: of the command line.
        environment: all variables that it sees.
        one_stream: put what it says on both streams into ``stdout``, in the order of the screen.
    """
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / ("out" if one_stream else "err")
        call = {
            "arguments": words,
            "directory": str(Path.cwd()),
            "environment": {**environment},
            "streams": [str(out), str(err)],
        }
        server = _server(threading.get_ident())
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(json.dumps(call) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        assert answer, f"the process that Snakemake is forked from has ended with exit code {server.wait()}"
        return subprocess.CompletedProcess(words, int(answer), out.read_text(), "" if one_stream else err.read_text())


@functools.cache
def _server(thread: int) -> subprocess.Popen[str]:
    """The process to fork from, one for each thread that calls; it ends with this process, which holds its pipe."""
    command = [sys.executable, __file__]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # a process of many threads cannot be forked safely
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def serve() -> None:
    """Answer each line of standard input, a call, with its exit code."""
    for name in PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            become(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def become(arguments: list[str], directory: str, environment: dict[str, str], streams: list[str]) -> NoReturn:
    """Be the program that was called, to its end."""
    signal.alarm(PATIENCE_SECONDS)  # ends it then: no test waits for ever
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, path in zip((1, 2), streams, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), stream)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    spec = importlib.util.find_spec("snakemake.__main__")
    assert spec is not None and spec.origin is not None
    sys.argv = [spec.origin, *arguments]
    sys.exit(sys.modules["snakemake.cli"].main(arguments))


if __name__ == "__main__":
    serve()
