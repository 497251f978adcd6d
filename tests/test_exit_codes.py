"""Exit codes: each is in the table, each is what a process really ends with, and no sub-command makes up one of its own."""

import ast
import importlib
import inspect
import json
import subprocess
import sys
import textwrap

import pytest

from d2rnet.cli import entry as cli
from d2rnet.cli.commands import COMMANDS
from d2rnet.exit_codes import MEANINGS, ExitCode
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import write_json
from d2rnet.runs.settings import LoaderRuntime
from d2rnet.runs.workdir import hold_lock, open_work_dir

RAISES = "import sys; from d2rnet.cli import doctor, main\ndef fail(**_): {}\ndoctor.doctor = fail; sys.exit(main(['doctor']))"
# A test run in the background hands on a SIGINT that is ignored.
INTERRUPT = "import signal as s; s.signal(s.SIGINT, s.default_int_handler); s.raise_signal(s.SIGINT)"
# What a child process does -> the code that a shell sees.
ENDINGS = {
    "pass": ExitCode.DONE,
    "raise KeyError('a mistake of ours')": ExitCode.UNEXPECTED,
    "from d2rnet.errors import ConfigError; raise ConfigError('x')": ExitCode.REFUSED,
    "return ExitCode.PARTLY": ExitCode.PARTLY,
    INTERRUPT: ExitCode.INTERRUPTED,
    "print('x' * 100_000)": ExitCode.UNREAD,
    "import os, signal; os.kill(os.getpid(), signal.SIGTERM)": ExitCode.STOPPED,
}


def test_table_in_the_docs_is_whole(repository):
    page = (repository / "docs/reference/cli.md").read_text(encoding="utf-8")
    assert MEANINGS.keys() == set(ExitCode) == set(ENDINGS.values())
    for code in ExitCode:
        assert f"\n| {code.value} | {MEANINGS[code].replace('|', chr(92) + '|')} |\n" in page
    assert [code.value for code in ExitCode] == [0, 1, 2, 3, 130, 141, 143]


@pytest.mark.parametrize("ending", ENDINGS)
def test_process_ends_with_the_code_of_the_table(ending):
    code = RAISES.format("from d2rnet.exit_codes import ExitCode; " + ending)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    child.stdout.close()  # nobody reads
    shown = child.stderr.read()
    child.stderr.close()
    ended = child.wait(timeout=60)
    assert (128 - ended if ended < 0 else ended) == ENDINGS[ending]  # a shell adds 128 to a signal's number
    assert ("Traceback" in shown) is (ENDINGS[ending] is ExitCode.UNEXPECTED)
    assert ("interrupted" in shown) is (ENDINGS[ending] is ExitCode.INTERRUPTED)


def test_no_sub_command_returns_a_bare_number():
    checked = 0
    for command in COMMANDS.values():
        module, name = command.target.split(":")
        function = getattr(importlib.import_module(module), name)
        if inspect.signature(function).return_annotation in (None, "None"):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        returned = [part for node in ast.walk(tree) if isinstance(node, ast.Return) for part in ast.walk(node)]
        assert not [part for part in returned if isinstance(part, ast.Constant)], command.target
        checked += 1
    assert checked >= 3


@pytest.fixture
def run_with_a_held_folder(tmp_path):
    """A run with a stale work folder that this process holds."""
    write_text(tmp_path / "train.json", "[1]")
    with open_work_dir(
        tmp_path / "work/cxr/train_detector", settings=LoaderRuntime(), inputs={"t": tmp_path / "train.json"}
    ) as folder:
        pass
    write_json(tmp_path / "results/cxr/train_detector/run.json", {"settings": {"loader_workers": 2}, "inputs": {}})
    with hold_lock(folder / ".lock", what=folder, doing="training"):
        yield tmp_path, folder


def test_clean_that_leaves_a_folder_in_use_is_done_in_part(run_with_a_held_folder, capsys):
    run, folder = run_with_a_held_folder
    assert cli.main(["clean", "--run", str(run)]) == ExitCode.DONE
    capsys.readouterr()
    assert cli.main(["clean", "--run", str(run), "--delete", "--json"]) == ExitCode.PARTLY
    document = json.loads(capsys.readouterr().out)
    assert [(item["path"], item["state"]) for item in document["leftovers"]] == [(str(folder), "held")]
    assert document["bytes"] == 0 and document["deleted"] is True and folder.is_dir()


def test_quiet_and_verbose_exclude_each_other(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor", "--quiet", "--verbose"])
    assert caught.value.code == ExitCode.REFUSED
    assert "not allowed with argument" in capsys.readouterr().err
