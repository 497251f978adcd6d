"""A malformed input, what became of it, and the watch that is kept meanwhile: memory, time, files.

The outcome is one of three: ``refused`` (an error of this package that names file and record), ``set aside`` (left out, listed
with its reason and counted) and ``read`` (nothing was lost; a changed byte may leave a file as good as it was). Anything else
fails the battery: another exception, a reader that takes more memory or time than stated, a file outside the output folder.
"""

import hashlib
import re
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from d2rnet.errors import D2RNetError

MEMORY_BOUND_MIB = 1024  # above what the process had before
SECONDS = 60
REFUSED, SET_ASIDE, READ = "refused", "set aside", "read"
Make = Callable[[Path], Path | None]


@dataclass(frozen=True)
class Outcome:
    """What a reader made of an input; ``kept`` and ``set_aside`` count records where the reader has records."""

    kind: str
    message: str
    kept: int = 0
    set_aside: int = 0


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        reader: key of READERS.
        name: what is wrong with it, in words; unique for its reader.
        make: writes it below a folder and returns the file that messages must name; None: the reader's usual one.
        record: text that the message must contain, such as the row.
        expected: kinds of outcome that are right.
        records: records that the input holds, all of which must be accounted for; 0 where there is none to count.
    """

    reader: str
    name: str
    make: Make
    record: str = ""
    expected: tuple[str, ...] = (REFUSED,)
    records: int = 0


@dataclass(frozen=True)
class Result:
    """A case with its outcome and the most memory that it took, MiB."""

    case: Case
    outcome: Outcome
    peak_mib: int


class BatteryError(AssertionError):
    """A reader did what no reader may do."""


def run_case(case: Case, read: Callable[[Path], Outcome], folder: Path) -> Result:
    """Make an input in ``folder/input``, read it, and check everything that must hold.

    Raises:
        BatteryError: it did not.
    """
    inputs, label = folder / "input", f"{case.reader}: {case.name}"
    inputs.mkdir(parents=True)
    file = case.make(inputs)
    before = snapshot(folder)
    with watched(label) as peak:
        try:
            outcome = read(inputs)
        except (D2RNetError, FileNotFoundError) as error:
            if isinstance(error, FileNotFoundError) and error.errno is not None:
                raise BatteryError(f"{label}: {error!r} comes from the operating system, not from a reader") from error
            outcome = Outcome(REFUSED, str(error))
        except Exception as error:
            raise BatteryError(f"{label}: {type(error).__name__} from inside: {str(error)[:300]}") from error
    check_outcome(case, outcome, file, label)
    after = snapshot(folder)
    strange = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    strange = [name for name in strange if not name.startswith("output")]
    if strange:
        raise BatteryError(f"{label}: changed {', '.join(strange)}")
    if peak[0] > MEMORY_BOUND_MIB:
        raise BatteryError(f"{label}: took {peak[0]} MiB, more than {MEMORY_BOUND_MIB}")
    return Result(case, Outcome(outcome.kind, shown(outcome.message, folder), outcome.kept, outcome.set_aside), peak[0])


def check_outcome(case: Case, outcome: Outcome, file: Path | None, label: str) -> None:
    """Compare an outcome with what the case wants.

    Raises:
        BatteryError: another kind, a message that names neither file nor record, or records that are not accounted for.
    """
    told = f"{label}: {outcome.kind}: {outcome.message[:500]}"
    if outcome.kind not in case.expected:
        raise BatteryError(f"{told}; expected {' or '.join(case.expected)}")
    if outcome.kind == REFUSED and file is not None and file.name not in outcome.message:
        raise BatteryError(f"{told}; names no {file.name}")
    if outcome.kind != READ and case.record not in outcome.message:
        raise BatteryError(f"{told}; does not name {case.record}")
    if outcome.kind != REFUSED and case.records and outcome.kept + outcome.set_aside != case.records:
        raise BatteryError(f"{told}; {outcome.kept} kept and {outcome.set_aside} set aside of {case.records}")
    if outcome.kind == SET_ASIDE and not (outcome.set_aside and outcome.message):
        raise BatteryError(f"{told}; set aside without count or reason")


@contextmanager
def watched(label: str) -> Iterator[list[int]]:
    """Watch a reader: its peak memory in MiB goes into the list; too much address space or time ends it.

    Raises:
        BatteryError: it did not come back in time.
    """

    def too_late(number: int, frame: object) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    peak = [0]
    at_start = reset_peak()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (status_mib("VmSize") + 4 * MEMORY_BOUND_MIB << 20, hard))
    previous = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(SECONDS)
    try:
        yield peak
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        peak[0] = max(0, status_mib("VmHWM") - at_start)


def reset_peak() -> int:
    """Let the kernel count the peak memory of this process afresh; return what it has now, MiB."""
    with suppress(OSError):  # not everywhere allowed; the peak then is that of all cases so far
        Path("/proc/self/clear_refs").write_text("5")
    return status_mib("VmRSS")


def status_mib(name: str) -> int:
    """Return a size of this process, MiB."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), flags=re.MULTILINE)
    return int(found[1]) // 1024 if found else 0


def snapshot(folder: Path) -> dict[str, str]:
    """Name -> content of everything below the folder that holds all cases' folders, so that a stray file shows."""
    found = {f"../{path.name}": "" for path in folder.parent.iterdir()}
    for path in folder.rglob("*"):
        is_plain = path.is_file() and not path.is_symlink()
        found[str(path.relative_to(folder))] = hashlib.md5(path.read_bytes()).hexdigest() if is_plain else ""
    return found


def shown(message: str, folder: Path) -> str:
    """Return a message as the table shows it: on one line, without the temporary folder, at most 160 characters."""
    text = " ".join(message.replace(f"{folder}/", "").replace(str(folder), ".").split())
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return text if len(text) <= 160 else text[:156].rpartition(" ")[0] + " ..."
