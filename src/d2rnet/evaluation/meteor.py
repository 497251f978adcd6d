"""METEOR 1.5 through one Java process that cannot hang the run.

Drives the jar that pycocoevalcap ships with the same options, so the scores are the same; its own driver waits for ever on a
newline inside a text, a missing jar, a dead Java and after any exception. Here texts are normalised, Java is looked for first,
and a process that does not answer in time is ended and reported.

Source of the line protocol (SCORE, EVAL, ``|||``): METEOR 1.5 ``-stdio`` (Denkowski & Lavie, WMT 2014).
"""

import importlib.util
import logging
import math
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2rnet.errors import ToolError
from d2rnet.runs.progress import track

log = logging.getLogger(__name__)

JAVA_REMEDY = "Install Java 8 or newer (Debian, Ubuntu: apt-get install default-jre-headless) and run again"
_JAR = "meteor/meteor-1.5.jar"
_FIELD_SEPARATOR = re.compile(r"\|{3,}")
# English parameters of METEOR 1.5: recall weight, fragmentation exponent and weight, content words against function words,
# and the weights of exact, stem, synonym and paraphrase matches.
ALPHA = 0.85
BETA = 0.2
GAMMA = 0.6
DELTA = 0.75
STAGE_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
STATISTICS = 23  # numbers of a SCORE answer


@dataclass(frozen=True)
class MeteorTools:
    """What METEOR needs: the Java program with its version, and the jar."""

    java: Path
    java_version: str
    jar: Path


def find_java() -> tuple[Path, str]:
    """Return the Java program on PATH and the first line of its version.

    Raises:
        ToolError: there is none, or it does not run; with the remedy.
    """
    program = shutil.which("java")
    if program is None:
        raise ToolError(f"Java is not on PATH. {JAVA_REMEDY}.")
    try:
        done = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"{program}: does not run ({error}). {JAVA_REMEDY}.") from error
    lines = [line for line in (done.stderr + done.stdout).splitlines() if "version" in line]
    if done.returncode != 0 or not lines:
        raise ToolError(f"{program} -version: exit code {done.returncode}; expected a version. {JAVA_REMEDY}.")
    return Path(program), lines[0].strip()


def find_jar() -> Path:
    """Return METEOR's jar inside pycocoevalcap.

    Raises:
        ToolError: pycocoevalcap or its jar is missing.
    """
    spec = importlib.util.find_spec("pycocoevalcap")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        jar = Path(folder) / _JAR
        if jar.is_file():
            return jar
    raise ToolError(f"pycocoevalcap/{_JAR}: not found. Install pycocoevalcap: pip install 'pycocoevalcap>=1.2'.")


def find_meteor() -> MeteorTools:
    """Look for everything METEOR needs.

    Raises:
        ToolError: Java or the jar is missing; with the remedy.
    """
    java, version = find_java()
    return MeteorTools(java, version, find_jar())


def normalise(text: str) -> str:
    """Return text on one line with single spaces and without METEOR's field separator ``|||``."""
    return " ".join(_FIELD_SEPARATOR.sub(" ", text).split())


class Meteor:
    """One METEOR process for a run; a context manager.

    Args:
        tools: Java and jar, from :func:`find_meteor`.
        timeout_seconds: longest wait for one answer. The first answer includes loading the paraphrase table (about 10 s).
    """

    def __init__(self, tools: MeteorTools, *, timeout_seconds: float) -> None:
        self._tools = tools
        self._timeout = timeout_seconds
        self._timed_out = False

    def __enter__(self) -> Self:
        """Start Java."""
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        # The serial collector takes 0.6 GB where the default takes 1.5 GB, for the same time and scores (measured).
        options = ["-Dfile.encoding=UTF-8", "-Xmx2G", "-XX:+UseSerialGC"]
        command = [str(self._tools.java), *options, "-jar", str(self._tools.jar)]
        try:
            self._process = subprocess.Popen(
                [*command, "-", "-", "-stdio", "-l", "en", "-norm"],
                cwd=self._tools.jar.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            self._errors.close()
            raise ToolError(f"METEOR: {self._tools.java} does not start ({error}). {JAVA_REMEDY}.") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """End Java, whatever happened."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def score(
        self, references: Sequence[str], hypotheses: Sequence[str], *, what: str = "METEOR"
    ) -> tuple[float, list[float], NDArray[np.float64]]:
        """Score one reference per hypothesis.

        Args:
            references: N texts.
            hypotheses: N texts in the same order; an empty one scores 0.
            what: name for the progress line.

        Returns:
            METEOR of the corpus (from summed statistics, not the mean of the pairs), the N scores of the pairs, all 0..1, and
            (N, 23) statistics of the pairs for :func:`meteor_of_statistics`.

        Raises:
            ToolError: Java died, did not answer in time or answered with something else than numbers.
        """
        if not references:
            raise ValueError("METEOR: no pairs to score")
        statistics = []
        numbers = []
        pairs = zip(references, hypotheses, strict=True)
        for index, (reference, hypothesis) in enumerate(track(pairs, total=len(references), what=what, unit="pair")):
            fields = " ||| ".join(("SCORE", normalise(reference), normalise(hypothesis)))
            answer = self._ask(fields, 1)[0]
            numbers.append(_numbers([answer], f"pair {index}"))
            if len(numbers[-1]) != STATISTICS:
                raise ToolError(f"METEOR: pair {index}: answered '{answer[:200]}'; expected {STATISTICS} numbers.")
            statistics.append(answer)
        *pair_scores, corpus = _numbers(self._ask(" ||| ".join(("EVAL", *statistics)), len(statistics) + 1), "EVAL")
        return corpus, pair_scores, _without_perfect_chunks(np.array(numbers))

    def _ask(self, line: str, answers: int) -> list[str]:
        """Send one line and read so many lines; the watchdog's kill turns any wait into an end of file."""
        watchdog = threading.Timer(self._timeout, self._give_up)
        watchdog.start()
        try:
            assert self._process.stdin is not None and self._process.stdout is not None
            try:
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()
                received = [self._process.stdout.readline() for _ in range(answers)]
            except OSError as error:
                raise self._failure() from error
        finally:
            watchdog.cancel()
        if not all(received):
            raise self._failure()
        return [text.strip() for text in received]

    def _give_up(self) -> None:
        self._timed_out = True
        self._process.kill()

    def _failure(self) -> ToolError:
        """Say why Java gave no answer, with the end of what it wrote to its standard error."""
        self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().strip()[-500:] or "nothing"
        if self._timed_out:
            reason = f"no answer within {self._timeout:g} s (runtime.meteor_timeout_seconds); the Java process was ended"
        else:
            reason = f"the Java process ended with code {self._process.returncode}"
        return ToolError(
            f"METEOR: {reason}. Its standard error says: {said}. Expected one answer per pair; METEOR needs 2 GB of memory. "
            "Check with 'd2rnet doctor', or set evaluation.meteor to false to leave METEOR out."
        )


def meteor_of_statistics(statistics: ArrayLike) -> NDArray[np.float64]:
    """Compute METEOR from its statistics, as Java does; for resampled sums of them, which Java need not be asked for.

    Source: Denkowski & Lavie, WMT 2014, section 2. A SCORE answer holds the words and function words of hypothesis and
    reference, then for each of the stages exact, stem, synonym and paraphrase the matched content words of both and the
    matched function words of both, then chunks and the matched words of both.

    Args:
        statistics: (..., 23) of a pair, or summed over pairs, as :meth:`Meteor.score` gives them.

    Returns:
        (...) METEOR, 0 where nothing matches.
    """
    numbers = np.asarray(statistics, dtype=np.float64)
    lengths = numbers[..., :4]
    chunks = numbers[..., 20]
    stages = numbers[..., 4:20].reshape(*numbers.shape[:-1], 4, 4)  # (..., 4 stages, content and function words of both)
    precision, recall = (_weighted_share(lengths, stages, side) for side in (0, 1))
    matched = numbers[..., 21:].mean(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
        score = mean * (1 - GAMMA * (chunks / matched) ** BETA)
    return np.where(np.isfinite(score), score, 0.0)


def _without_perfect_chunks(statistics: NDArray[np.float64]) -> NDArray[np.float64]:
    """Set the one chunk of pairs that match as a whole to 0: Java does so, and such a pair is not fragmented."""
    words = statistics[:, :2]
    matched = statistics[:, 21:]
    perfect = (words == matched).all(axis=1) & (statistics[:, 20] == 1)
    statistics[perfect, 20] = 0
    return statistics


def _weighted_share(lengths: NDArray[Any], stages: NDArray[Any], side: int) -> NDArray[np.float64]:
    """Share of the words of one side (0 hypothesis, 1 reference) that match; content and function words weigh differently."""
    words = lengths[..., side]
    functions = lengths[..., 2 + side]
    matched = ((DELTA * stages[..., side] + (1 - DELTA) * stages[..., 2 + side]) * STAGE_WEIGHTS).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return matched / (DELTA * (words - functions) + (1 - DELTA) * functions)


def _numbers(lines: Sequence[str], where: str) -> list[float]:
    """Parse lines of space-separated numbers; an undefined score (NaN: no word in either text) counts as 0."""
    try:
        values = [float(word) for line in lines for word in line.split()]
    except ValueError as error:
        raise ToolError(f"METEOR: {where}: answered '{lines[0][:200]}'; expected numbers.") from error
    return [0.0 if math.isnan(value) else value for value in values]
