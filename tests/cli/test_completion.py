"""Shell completion: what bash really offers, valid scripts for the other shells, and a refusal that names the known ones."""

import shutil
import subprocess
import sys

import pytest

from d2rnet.cli import entry as cli

pytest.importorskip("shtab", reason="shtab is not installed")


def script(shell: str, capsys) -> str:
    assert cli.main(["completion", shell]) == 0
    return capsys.readouterr().out


def offered(completion: str, line: str, folder) -> set[str]:
    """What bash offers behind a line, as when Tab is pressed at its end."""
    words = line.split(" ")
    typed = " ".join(f"'{word}'" for word in words)
    asked = (
        f"{completion}\nCOMP_WORDS=({typed})\nCOMP_CWORD={len(words) - 1}\n"
        '_shtab_d2rnet d2rnet "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, cwd=folder, timeout=30)
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_offers_commands_options_and_files(tmp_path, capsys):
    (tmp_path / "annotation.json").touch()
    bash = script("bash", capsys)
    built = {"build-annotation", "build-ct-annotation", "build-ct-vocabulary", "build-vocabulary"}
    assert offered(bash, "d2rnet build-", tmp_path) == built
    assert offered(bash, "d2rnet build-annotation --pred", tmp_path) == {"--predictions"}
    assert offered(bash, "d2rnet build-vocabulary --annotation anno", tmp_path) == {"annotation.json"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_valid_and_name_every_command(shell, capsys):
    text = script(shell, capsys)
    assert all(name in text for name in ("train-detector", "read", "--report-model"))
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr


def test_other_shell_is_refused_by_name(capsys):
    assert cli.main(["completion", "ksh"]) == 2
    assert "got shell 'ksh'; expected bash, zsh, fish" in capsys.readouterr().err


def test_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == 2
    assert "pip install shtab" in capsys.readouterr().err
