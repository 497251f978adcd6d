"""The command line: every rule has its sub-command, mistakes exit with 2 and a message, help needs no heavy import."""

import contextlib
import errno
import importlib
import inspect
import logging
import re
import subprocess
import sys

import pytest

from d2rnet.cli import entry as cli
from d2rnet.cli.commands import COMMANDS, FOR_PEOPLE, PURPOSES
from d2rnet.errors import DatasetError
from d2rnet.files.problems import Problems
from d2rnet.settings import section_lines


def rule_names(repository):
    text = "\n".join(path.read_text() for path in sorted((repository / "workflow" / "rules").rglob("*.smk")))
    return re.findall(r"^rule (\w+):", text, flags=re.MULTILINE)


def test_one_sub_command_a_rule(repository):
    assert {name.replace("-", "_") for name in COMMANDS.keys() - FOR_PEOPLE} == set(rule_names(repository))
    assert COMMANDS.keys() >= FOR_PEOPLE


@pytest.mark.parametrize("name", COMMANDS)
def test_target_takes_exactly_the_options(name):
    command = COMMANDS[name]
    module, function = command.target.split(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    expected = {option.flag.replace("-", "_") for option in command.options}
    expected |= {"settings"} if command.section else set()
    expected |= {"runtime"} if command.runtime else set()
    assert set(parameters) == expected
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_every_setting_with_its_default(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "2000")  # no line is broken
    with pytest.raises(SystemExit) as caught:
        cli.main([*name.split(), "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    section, runtime = COMMANDS[name].settings_class(), COMMANDS[name].runtime_class()
    for line in section_lines(section) if section else []:
        assert line in shown
    for key in runtime.model_fields if runtime else ():
        assert f"--{key.replace('_', '-')} N" in shown


def test_help_lists_every_command_once_by_what_people_want_and_read_first():
    listed = [name for names in PURPOSES.values() for name in names]
    assert sorted(listed) == sorted({name.split()[0] for name in COMMANDS}) and listed[0] == "read"
    assert [heading.split()[0] for heading in PURPOSES] == ["look", "run", "train", "score", "check"]
    shown = cli.build_parser("").format_help()
    typed = re.search(r"type: ([a-z, -]+)\.", " ".join(shown.split()))
    assert typed and {name.split()[0] for name in FOR_PEOPLE} >= set(typed[1].split(", ")) > {"read", "doctor", "clean"}
    assert re.findall(r"^  ([a-z-]+)", shown.partition("\noptions:")[0], flags=re.M) == listed


@pytest.mark.parametrize("words", [[], ["train-detector"], ["export"], ["read"]])
@pytest.mark.parametrize("columns", [60, 100])
def test_help_is_wrapped_at_the_width_of_the_terminal(words, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        cli.main([*words, "--help"])
    lines = capsys.readouterr().out.splitlines()
    too_long = [line for line in lines if len(line) > columns and len(line.split()) > 1]
    assert len(lines) > 8 and too_long == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["reda"], "there is no 'd2rnet reda'. Did you mean 'd2rnet read'? 'd2rnet --help' lists all commands."),
        (["train-detektor", "--output", "x"], "Did you mean 'd2rnet train-detector'?"),
        (["export", "radevl"], "there is no 'd2rnet export radevl'. Did you mean 'd2rnet export radeval'?"),
        (["quux"], "there is no 'd2rnet quux'. 'd2rnet --help' lists all commands."),
        (["read", "--treads", "1", "x.png"], "d2rnet read: error: there is no option '--treads'. Did you mean '--threads'?"),
        (["read", "x.png", "--qq=1"], "there is no option '--qq'. 'd2rnet read --help' lists all."),
    ],
)
def test_mistyped_command_is_told_what_was_meant(words, says, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    shown = capsys.readouterr().err
    assert ended.value.code == 2 and says in shown and "choose from" not in shown


def test_help_and_data_stage_import_no_torch():
    code = (
        "import sys; from d2rnet.cli import entry; entry.build_parser();"
        "import d2rnet.cxr.conversion.convert_labelled, d2rnet.cxr.conversion.convert_unlabelled;"
        "import d2rnet.cxr.conversion.verify, d2rnet.cxr.demo.cohort;"
        "import d2rnet.cxr.annotation.build; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (DatasetError("x.csv: row 3"), 2, "x.csv: row 3"),
        (FileNotFoundError(2, "No such file", "gone.json"), 2, "gone.json"),
        (OSError(errno.EIO, "Input/output error", "shard.json"), 2, "shard.json"),
        (OSError(errno.ESTALE, "Stale file handle", "work"), 2, "Stale file handle: 'work'. No half-written file"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "out"), 2, "Is a directory: 'out'"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), 1, "unexpected error"),
        (OSError(28, "No space left on device"), 2, "No half-written file"),
        (KeyError("bug"), 1, "Traceback"),
    ],
)
def test_exit_codes(monkeypatch, tmp_path, error, code, shown):
    def fail(**_):
        raise error

    monkeypatch.setattr("d2rnet.cli.doctor.doctor", fail)
    log = tmp_path / "logs" / "cxr" / "doctor.log"
    assert cli.main(["doctor", "--log", str(log)]) == code
    assert shown in log.read_text()


def test_command_is_named_once_before_a_list_of_problems(monkeypatch, capsys):
    problems = Problems()
    problems.add("zero_area", file="a.csv", record="row 1", got="0 px", expected="> 0", remedy="Drop it.")
    monkeypatch.setattr("d2rnet.cli.doctor.doctor", lambda **_: problems.raise_if_any())
    assert cli.main(["doctor"]) == 2
    shown = capsys.readouterr().err
    assert shown.count("doctor:") == 1 and " doctor: 1 problem(s) in the input.\nzero_area: 1\n" in shown


def arguments_of(name, gone):
    """Arguments of a sub-command in which every file that it reads is one that is not there."""
    words = name.split()
    for option in COMMANDS[name].options:
        if option.flag in ("configfile", "cards"):  # may be left out
            words += [f"--{option.flag}", gone]
        elif option.positional or (option.default is None and not option.optional and option.kind != "flag"):
            value = gone if option.kind in ("input", "inputs") else "1"
            words += [value] if option.positional else [f"--{option.flag}", value]
    return words


def test_a_process_does_not_collect_all_objects_of_the_libraries_as_it_leaves():
    """With detectron2 that took 2 to 3 s of a core in each process of a training that was told to stop."""
    code = (
        "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 1000));"
        "from d2rnet.cli import main; main(['--version'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[-1]) == (0, "True")


def in_new_process(words, tmp_path):
    """Call the command line in a new process; return it, and whether torch was imported."""
    code = "import sys; from d2rnet.cli import main; code = main(sys.argv[1:]); print('torch' in sys.modules); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    return done, done.stdout.split()[-1:] == ["True"]


READING = [name for name, command in COMMANDS.items() if any(option.kind in ("input", "inputs") for option in command.options)]


@pytest.mark.parametrize("name", READING)
def test_path_that_is_not_there_is_said_before_anything_heavy_is_imported(name, tmp_path):
    done, has_torch = in_new_process(arguments_of(name, "nowhere.x"), tmp_path)
    assert (done.returncode, has_torch) == (2, False)
    assert re.search(r"nowhere\.x: no such file or folder; expected .+ \((--)?[\w-]+\)\.", done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in READING if COMMANDS[name].section])
def test_unknown_setting_is_said_before_anything_heavy_is_imported(name, tmp_path):
    done, has_torch = in_new_process([*arguments_of(name, "nowhere.x"), "--set", "bogus=1"], tmp_path)
    assert (done.returncode, has_torch) == (2, False)
    assert "bogus: unknown key; " in done.stderr


def test_a_command_refuses_the_keys_of_another(capsys):
    arguments = "evaluate-detector --labelled-test x --model x --output x --set training.base_lr=1"
    assert cli.main(arguments.split()) == 2
    assert "cxr.detector.training: unknown key; known keys: prediction, evaluation" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["training.loader_workers", "loader_workers", "cxr.detector.training.checkpoint_every_iters"])
def test_a_setting_that_is_an_option_says_so(capsys, key):
    needed = "--labelled-train x --labelled-val x --labelled-test x --unlabelled x --work x --output x"
    assert cli.main(["train-detector", *needed.split(), "--set", f"{key}=4"]) == 2
    option = key.rpartition(".")[2].replace("_", "-")
    assert f"--set {key}: changes no result, so it is no setting but an option: --{option} 4" in capsys.readouterr().err


def test_misspelled_setting_exits_with_2(capsys):
    arguments = "build-annotation --unlabelled x --reports x --predictions x --output x --set score_treshold=1"
    assert cli.main(arguments.split()) == 2
    assert "did you mean 'score_threshold'" in capsys.readouterr().err


@pytest.fixture
def failing(monkeypatch):
    """Make ``doctor`` raise an error with some text; the handlers of the log are taken away afterwards."""

    def fail_with(text):
        def fail(**_):
            raise DatasetError(text)

        monkeypatch.setattr("d2rnet.cli.doctor.doctor", fail)

    monkeypatch.setattr(logging, "raiseExceptions", True)
    yield fail_with
    for handler in list(logging.getLogger().handlers):
        if isinstance(handler, logging.FileHandler):
            logging.getLogger().removeHandler(handler)
            with contextlib.suppress(OSError):  # /dev/full
                handler.close()


def test_control_characters_of_data_do_not_reach_terminal_or_log(failing, tmp_path, capsys):
    """As in a class name of somebody's table: clear the screen, set its title, turn the direction, go back in the line."""
    failing("row 3: \x1b[2J\x1b]0;x\x07 \u202eabc \rfine \x9b31m\n  second\tline é")
    assert cli.main(["doctor", "--log", str(tmp_path / "x.log")]) == 2
    for shown in (capsys.readouterr().err, (tmp_path / "x.log").read_text(encoding="utf-8")):
        assert "row 3: \\x1b[2J\\x1b]0;x\\x07 \\u202eabc \\rfine \\x9b31m\n  second\tline é" in shown
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown)


def test_a_file_name_that_is_no_utf8_is_logged(failing, tmp_path, capsys):
    failing("x\udcff.png: damaged")
    assert cli.main(["doctor", "--log", str(tmp_path / "x.log")]) == 2
    assert r"x\udcff.png: damaged" in (tmp_path / "x.log").read_text(encoding="utf-8")
    assert "Logging error" not in capsys.readouterr().err


def test_a_log_on_a_full_disk_is_no_traceback(failing, capsys):
    failing("x.csv: row 3")
    assert cli.main(["doctor", "--log", "/dev/full"]) == 2
    shown = capsys.readouterr().err
    assert "x.csv: row 3" in shown and "Traceback" not in shown


def test_a_log_that_cannot_be_written_is_said(tmp_path, caplog):
    assert cli.main(["doctor", "--log", str(tmp_path)]) == 2
    assert "Is a directory" in caplog.text and "Traceback" not in caplog.text
