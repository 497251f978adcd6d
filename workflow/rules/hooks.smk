"""What happens before the first job, after a run that failed, and after one that did not; no rules here."""

import atexit
import importlib.util
import subprocess

from snakemake.logging import logger

from d2rnet.cli.run_failures import failure_lines
from d2rnet.cli.run_lock import hold_run
from d2rnet.cxr.settings import trainings_of
from d2rnet.cxr.warm_start import check_warm_start

# wing -> command that tries its trainings, what that reads, what it cannot do without, and the rule that looks at the sources,
# with which it is worth the while where no training is planned, too
TRIED = {
    "cxr": ("verify-training", trainings_of(CONFIG.cxr), "detectron2", "verify_inputs"),
    "ct": ("verify-ct-training", CONFIG.ct, "isal", "verify_ct_inputs"),
}


def try_trainings(wing, planned):
    """End with what would end a training, before anything costly runs; once for each configuration.

    In a process of its own, as Snakemake's needs no torch. Weights and batches are tried wherever Snakemake runs with torch, the
    GPU and limits of this machine where a training is planned on it.

    Args:
        wing: whose trainings.
        planned: names of the wing's rules that have something to do.
    """
    command, settings, package, verify = TRIED[wing]
    trained = any(name.startswith("train_") for name in planned)
    if not trained and verify not in planned:
        return
    if not all(map(importlib.util.find_spec, ("torch", package))):
        print("trainings are not tried: Snakemake runs without torch", file=sys.stderr)
        return
    settings = settings_file(command, settings.to_json())
    options = ["--device", DEVICE, "--processes", str(max(1, CONFIG.runtime.gpus))]
    options += runtime_options(command).split()
    if not trained or workflow.non_local_exec:
        options.append("--elsewhere")
    output = Path("logs/verify_training", fingerprint([settings, options]))
    if (output / "run.json").exists():
        return
    logger.info(f"Trying what the trainings of {wing} need, once for a configuration")
    options += ["--settings", settings, "--output", str(output), "--quiet"]
    source = [f"{workflow.basedir}/src", *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "d2rnet", command, *options],
        env=os.environ | {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(source)},
    )
    if done.returncode:
        sys.exit(1)


def check_warm_starts(planned):
    """End where a report model that is planned is to start from a detector of another kind, which may take days to train.

    Args:
        planned: names of the rules that have something to do.
    """
    starts = {}
    if "train_report_model" in planned:
        starts["cxr.report"] = CONFIG.cxr.report
    if "train_ablation_cell" in planned:
        for arm in ARMS.arms:
            starts[f"{DESIGN}: arm {arm}"] = cell_settings(
                CONFIG.cxr.report, ARMS, arm=arm, seed=0
            )
    for what, report in starts.items():
        check_warm_start(CONFIG.cxr.detector.model, report.model, what=what)


onstart:
    planned = {job.rule for job in workflow.dag.needrun_jobs()}
    with explained():
        hold_run(Path.cwd())
        check_warm_starts({rule.name for rule in planned})
    for wing in TRIED:  # a rule lies in the folder of its wing
        own = (rule for rule in planned if Path(rule.snakefile).parent.name == wing)
        try_trainings(wing, {rule.name for rule in own})
    write_text(SHARDS, json.dumps(SHARDS_NOW))


onerror:
    # What Snakemake says after this hook buries the reason, so it is told at the very end.
    WHY = [
        line
        for file in ([log] if isinstance(log, str) else log)
        for line in failure_lines(Path.cwd(), Path(file))
    ]
    DOCTOR = shlex.join(
        [
            str(Path(sys.executable).with_name("d2rnet")),
            "doctor",
            "--run",
            os.getcwd(),
        ]
    )
    atexit.register(
        print,
        "",
        *WHY,
        f"what to do: {DOCTOR}",
        sep="\n",
        file=sys.stderr,
        flush=True,
    )


onsuccess:
    if CONFIG.runtime.delete_after_success:
        shell(
            f"python -m d2rnet clean --kinds {','.join(CONFIG.runtime.delete_after_success)} --delete"
        )
