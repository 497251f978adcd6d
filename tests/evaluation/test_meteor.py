"""METEOR: same scores as pycocoevalcap, and no way to hang."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from d2rnet.errors import ToolError
from d2rnet.evaluation import meteor
from d2rnet.evaluation.meteor import Meteor, MeteorTools, find_jar, find_java, find_meteor, meteor_of_statistics, normalise

REFERENCES = ["the heart is big", "no effusion . lungs clear"]
HYPOTHESES = ["the heart is enlarged", "no pleural effusion"]


@pytest.fixture(scope="module")
def tools() -> MeteorTools:
    try:
        return find_meteor()
    except ToolError as error:
        pytest.skip(str(error))


def program(folder: Path, name: str, body: str) -> Path:
    """Write an executable Python program."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{body}\n")
    path.chmod(0o755)
    return path


def fake_meteor(folder: Path, body: str, *, timeout_seconds: float = 5) -> Meteor:
    jar = folder / "meteor.jar"
    jar.touch()
    return Meteor(MeteorTools(program(folder, "java", body), "fake", jar), timeout_seconds=timeout_seconds)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lungs clear .\nno effusion .", "lungs clear . no effusion ."),
        ("one\r\ntwo\rthree\u2028four\tfive", "one two three four five"),
        ("a ||| b |||| c || d", "a b c || d"),
        ("  ", ""),
    ],
)
def test_texts_are_one_line_without_separator(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.fixture(scope="module")
def scorer(tools: MeteorTools) -> Iterator[Meteor]:
    """One Java process for all tests: its start takes longer than they do."""
    with Meteor(tools, timeout_seconds=120) as started:
        yield started


def test_scores_equal_pycocoevalcap(scorer: Meteor) -> None:
    """Expected scores: pycocoevalcap 1.2 on the same pairs; the added texts would hang or shift its own driver."""
    corpus, pairs, _ = scorer.score(REFERENCES, HYPOTHESES)
    assert corpus == pytest.approx(0.22415465011868776)
    assert pairs == pytest.approx([0.32397191433991346, 0.15384615384615385])

    corpus, pairs, _ = scorer.score(["a b\nc d", "x ||| y", "normal chest", "café"], ["a b\r\nc d", "x y", "", "café"])
    assert pairs == pytest.approx([1.0, 1.0, 0.0, 1.0])
    assert corpus == pytest.approx(0.7883817427385891)

    assert scorer.score(["heart"], [""])[:2] == (0.0, [0.0])


def test_statistics_give_the_scores_of_java(scorer: Meteor) -> None:
    """Of pairs, of the corpus and of a resample; two pairs match as a whole, one not at all, one hypothesis is empty."""
    references = [*REFERENCES, "a small left nodule", "lungs clear", "no effusions", "x", "big hearts were seen again"]
    hypotheses = [*HYPOTHESES, "a small left nodule", "lungs clear", "", "y", "seen again was a large heart"]
    corpus, pairs, statistics = scorer.score(references, hypotheses)
    assert statistics.shape == (7, 23)
    assert meteor_of_statistics(statistics) == pytest.approx(pairs, abs=1e-12)
    assert meteor_of_statistics(statistics.sum(axis=0)) == pytest.approx(corpus, abs=1e-12)
    rows = [0, 2, 2, 6, 4]
    again = scorer.score([references[row] for row in rows], [hypotheses[row] for row in rows])[0]
    assert meteor_of_statistics(statistics[rows].sum(axis=0)) == pytest.approx(again, abs=1e-12)


def test_statistics_by_hand() -> None:
    """Hypothesis "no pleural effusion", reference "no effusion . lungs clear": P 1 / 1.75, R 1 / 2.75, two chunks of two."""
    statistics = np.zeros(23)
    statistics[:4] = (3, 5, 1, 2)
    statistics[4:8] = 1
    statistics[20:] = 2
    assert meteor_of_statistics(statistics) == pytest.approx(0.15384615384615385)
    assert meteor_of_statistics(np.zeros(23)) == 0


@pytest.mark.slow
def test_live_comparison_with_pycocoevalcap(tools: MeteorTools) -> None:
    from pycocoevalcap.meteor.meteor import Meteor as Original

    references = [*REFERENCES, "there is a small left pleural effusion .", "3.5 cm mass in the right upper zone ."]
    hypotheses = [*HYPOTHESES, "small effusion on the left side .", "there is a mass of 3.5 cm in the right upper lobe ."]
    theirs, theirs_each = Original().compute_score(
        {index: [text] for index, text in enumerate(references)}, {index: [text] for index, text in enumerate(hypotheses)}
    )
    with Meteor(tools, timeout_seconds=120) as scorer:
        ours, ours_each, _ = scorer.score(references, hypotheses)
    assert ours == pytest.approx(theirs, abs=1e-12)
    assert ours_each == pytest.approx(theirs_each, abs=1e-12)


def test_dead_java_is_named_with_its_last_words(tmp_path: Path) -> None:
    body = "import sys\nsys.stderr.write('Could not reserve enough space')\nsys.exit(3)"
    with (
        fake_meteor(tmp_path, body) as scorer,
        pytest.raises(ToolError, match=r"ended with code 3.*Could not reserve") as caught,
    ):
        scorer.score(REFERENCES, HYPOTHESES)
    assert "evaluation.meteor" in str(caught.value)


def test_java_that_dies_half_way(tmp_path: Path) -> None:
    scorer = fake_meteor(tmp_path, "input()\nprint('1.0 ' * 23, flush=True)\ninput()")
    with scorer, pytest.raises(ToolError, match="ended with code 0"):
        scorer.score(REFERENCES, HYPOTHESES)


@pytest.mark.parametrize("body", ["import time\ntime.sleep(60)", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)"])
def test_silent_java_is_ended_after_the_timeout(tmp_path: Path, body: str) -> None:
    start = time.monotonic()
    with fake_meteor(tmp_path, body, timeout_seconds=0.4) as scorer:
        with pytest.raises(ToolError, match=r"no answer within 0\.4 s"):
            scorer.score(["long " * 100_000], ["text"])
        assert scorer._process.returncode is not None
    assert time.monotonic() - start < 5


def test_answer_that_is_no_number(tmp_path: Path) -> None:
    scorer = fake_meteor(tmp_path, "input()\nprint('Error: specify SCORE or EVAL', flush=True)\ninput()")
    with scorer, pytest.raises(ToolError, match=r"pair 0: answered 'Error: specify"):
        scorer.score(REFERENCES, HYPOTHESES)


def test_undefined_score_counts_as_zero(tmp_path: Path) -> None:
    body = "input()\nprint('0.0 ' * 23, flush=True)\ninput()\nprint('NaN\\nNaN', flush=True)\ninput()"
    with fake_meteor(tmp_path, body) as scorer:
        assert scorer.score(["."], [""])[:2] == (0.0, [0.0])


def test_process_is_ended_after_an_error_of_the_caller(tmp_path: Path) -> None:
    scorer = fake_meteor(tmp_path, "import time\ntime.sleep(60)")
    with pytest.raises(KeyboardInterrupt), scorer:
        raise KeyboardInterrupt
    assert scorer._process.poll() is not None


def test_missing_java_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match=r"Java is not on PATH\..*default-jre-headless"):
        find_java()


def test_broken_java_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "java", "raise SystemExit(1)")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ToolError, match=r"exit code 1.*default-jre-headless"):
        find_java()


def test_missing_jar_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meteor, "_JAR", "meteor/absent.jar")
    with pytest.raises(ToolError, match="Install pycocoevalcap"):
        find_jar()
