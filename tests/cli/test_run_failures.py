"""Failed jobs out of Snakemake's log, each with the reason that its own log gives."""

from pathlib import Path

import pytest

from d2rnet.cli.run_failures import failed_jobs, failure_lines, reason_of

BLOCK = """[Mon Jan  1 00:00:00 2026]
Error in rule {rule}:
    message: None
    jobid: {jobid}
    output: a.json, b.json
    log: {logs} (check log file(s) for error details)
    shell:
        python -m d2rnet {rule}
        (command exited with non-zero exit code)
Trying to restart job {jobid}.
"""


def snakemake_log(folder: Path, *blocks: str) -> Path:
    path = folder / "snakemake.log"
    path.write_text("".join(blocks))
    return path


def block(rule: str, jobid: int, *logs: str) -> str:
    return BLOCK.format(rule=rule, jobid=jobid, logs=", ".join(logs))


def test_a_job_that_ended_well_at_a_further_attempt_has_not_failed(tmp_path: Path) -> None:
    log = snakemake_log(
        tmp_path,
        block("train_detector", 3, "logs/t.log"),
        block("convert_labelled", 5, "logs/c.log"),
        block("train_detector", 3, "logs/t.log"),
        "Finished jobid: 5 (Rule: convert_labelled)\n",
    )
    assert [(job.rule, job.logs) for job in failed_jobs(log)] == [("train_detector", ("logs/t.log",))]


def test_several_jobs_and_the_log_of_the_scheduler(tmp_path: Path) -> None:
    (tmp_path / "1.log").write_text(
        "09:00:00 training on cpu\n09:00:01 train-detector: /data/x.png: black.\n  Take another.\n"
    )
    (tmp_path / "slurm.log").write_text("slurmstepd: error: Detected 1 oom_kill event\n")
    log = snakemake_log(tmp_path, block("one", 1, "1.log"), block("two", 2, "2.log", str(tmp_path / "slurm.log")))
    lines = list(failure_lines(tmp_path, log))
    assert lines[:4] == [
        "one failed:",
        "  train-detector: /data/x.png: black.",
        "    Take another.",
        f"  log: {tmp_path}/1.log",
    ]
    assert lines[4] == "two failed:" and "killed, most often for lack of memory" in lines[5]
    assert lines[6] == "  slurmstepd: error: Detected 1 oom_kill event"
    assert lines[7:] == [f"  log: {tmp_path}/2.log", f"  log: {tmp_path}/slurm.log"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("09:00:00 read: bad\n\n", ["read: bad"]),
        (
            "09:00:00 train-detector: old message\n09:00:01 resuming\n",
            ["09:00:00 train-detector: old message", "09:00:01 resuming"],
        ),
        (
            "09:00:00 verify-inputs: unexpected error\nTraceback (most recent call last):\n  File x\nKeyError: 'a'\n",
            ["verify-inputs: unexpected error", "KeyError: 'a'"],
        ),
    ],
    ids=["message", "no message at the end", "traceback"],
)
def test_reason(tmp_path: Path, text: str, reason: list[str]) -> None:
    (tmp_path / "a.log").write_text(text)
    assert reason_of([tmp_path / "a.log"])[-len(reason) :] == reason


def test_a_long_list_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("09:00:00 verify-inputs: many\n" + "".join(f"  {number}\n" for number in range(40)))
    reason = reason_of([tmp_path / "a.log"])
    assert reason[0] == "verify-inputs: many" and reason[-1] == "  39" and len(reason) == 15
    assert reason[-2] == "  (27 more lines)"


def test_no_log_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    assert reason_of([tmp_path / "gone.log"])[0].endswith("; no log")
    (tmp_path / "a.log").write_bytes(b"\xff\xfe 09:00:00 odd\n")
    assert "most often for lack of memory" in reason_of([tmp_path / "a.log"])[0]
    assert list(failure_lines(tmp_path, snakemake_log(tmp_path, "Error in rule", "\n  jobid: 3\n"))) == []
