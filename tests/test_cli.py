"""The command line: every rule has its sub-command, mistakes exit with 2 and a message, help needs no heavy import."""

import importlib
import inspect
import re
import subprocess
import sys

import pytest

from d2rnet import cli
from d2rnet.commands import COMMANDS, FOR_PEOPLE
from d2rnet.errors import DatasetError
from d2rnet.problems import Problems


def rule_names(repository):
    text = "\n".join(path.read_text() for path in sorted((repository / "workflow" / "rules").glob("*.smk")))
    return re.findall(r"^rule (\w+):", text, flags=re.MULTILINE)


def test_one_sub_command_a_rule(repository):
    assert {name.replace("-", "_") for name in COMMANDS.keys() - FOR_PEOPLE} == set(rule_names(repository))
    assert COMMANDS.keys() >= FOR_PEOPLE


@pytest.mark.parametrize("name", COMMANDS)
def test_target_takes_exactly_the_options(name):
    command = COMMANDS[name]
    module, function = command.target.split(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    expected = {option.flag.replace("-", "_") for option in command.options} | ({"settings"} if command.section else set())
    assert set(parameters) == expected
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_every_setting_with_its_default(name, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([name, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for line in cli.section_lines(COMMANDS[name].section) if COMMANDS[name].section else []:
        assert line in shown


def test_help_and_data_stage_import_no_torch():
    code = (
        "import sys; from d2rnet import cli; cli.build_parser();"
        "import d2rnet.data.convert_labelled, d2rnet.data.convert_unlabelled, d2rnet.data.verify, d2rnet.data.demo;"
        "import d2rnet.annotation.build; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (DatasetError("x.csv: row 3"), 2, "x.csv: row 3"),
        (FileNotFoundError(2, "No such file", "gone.json"), 2, "gone.json"),
        (OSError(28, "No space left on device"), 2, "No half-written file"),
        (KeyError("bug"), 1, "Traceback"),
    ],
)
def test_exit_codes(monkeypatch, tmp_path, error, code, shown):
    def fail(**_):
        raise error

    monkeypatch.setattr("d2rnet.doctor.doctor", fail)
    log = tmp_path / "logs" / "doctor.log"
    assert cli.main(["doctor", "--log", str(log)]) == code
    assert shown in log.read_text()


def test_command_is_named_once_before_a_list_of_problems(monkeypatch, capsys):
    problems = Problems()
    problems.add("zero_area", file="a.csv", record="row 1", got="0 px", expected="> 0", remedy="Drop it.")
    monkeypatch.setattr("d2rnet.doctor.doctor", lambda **_: problems.raise_if_any())
    assert cli.main(["doctor"]) == 2
    shown = capsys.readouterr().err
    assert shown.count("doctor:") == 1 and " doctor: 1 problem(s) in the input.\nzero_area: 1\n" in shown


def test_misspelled_setting_exits_with_2(capsys):
    arguments = "build-annotation --unlabelled x --reports x --predictions x --output x --set score_treshold=1"
    assert cli.main(arguments.split()) == 2
    assert "did you mean 'score_threshold'" in capsys.readouterr().err
