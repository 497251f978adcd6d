"""A private SLURM on this machine: munged, slurmctld and four slurmd from Debian's packages, in one folder, without systemd.

Two of the four nodes have two GPUs each: character devices that nothing reads, which is enough for SLURM to hand them out and
to set CUDA_VISIBLE_DEVICES. Everything lies in a folder of its own; nothing under /etc is read or written. Stand-ins on PATH:

* ``sbatch`` notes its arguments, ``srun`` finds the private configuration again (the jobstep plugin drops SLURM_CONF);
* ``squeue``, if asked for, answers Snakemake when one more job has ended: its own looks are 10 s further apart each time that
  they find nothing, which is longer than most jobs of the tests take;
* ``sacctmgr`` knows one account and ``sacct`` fails at once, since there is no accounting database (the real one would wait).
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "setpriv")
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
NODES = ("n1", "n2", "n3", "n4")
GPU_NODES = NODES[2:]
GPU_MODEL = "a100"
ACCOUNT = "project"
CORES, MEMORY_MB = 8, 512_000
SLURMS_OWN_DELAY_SECONDS = 3  # from the submission of a batch job to the look for a node
STARTED_WITHIN_SECONDS, STOPPED_WITHIN_SECONDS = 30.0, 20.0
FIELD, RECORD = "\x1f", "\x1e"  # between the arguments of a recorded sbatch line, and between lines
CONFIGURATION = """
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control_port}
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket,cred_expire=5
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool.%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={root}/task_prolog
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay={delay}
DefMemPerCPU=500
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
MinJobAge=3600
KillWait=10
MpiDefault=none
MailProg=/bin/true
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[0]} CPUs={cores} RealMemory={memory_mb}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cores} RealMemory={memory_mb}
NodeName=n3 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cores} RealMemory={memory_mb} Gres=gpu:{gpu}:2
NodeName=n4 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[3]} CPUs={cores} RealMemory={memory_mb} Gres=gpu:{gpu}:2
PartitionName=cpu Nodes=n1,n2,n3,n4 Default=YES LLN=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=n3,n4 MaxTime=INFINITE State=UP
"""
TASK_PROLOG = """#!/bin/sh
echo "$SLURM_JOB_ID ${{SLURM_STEP_ID:-batch}} $SLURMD_NODENAME ${{CUDA_VISIBLE_DEVICES:--}}" >> {root}/tasks.log
"""
PROMPT_SQUEUE = r"""case "$*" in *--states=all*) ;; *) exec /usr/bin/squeue "$@" ;; esac
for run; do :; done
known=$(cat "{root}/ended.$run" 2>/dev/null || echo 0)
for look in $(seq 160); do  # 40 s: Snakemake drops a question after 60 s
  answer=$(/usr/bin/squeue "$@") || exit
  ended=$(printf '%s\n' "$answer" | grep -Ec 'COMPLETED|CANCELLED|FAILED|TIMEOUT|NODE_FAIL|OUT_OF_MEMORY')
  [ "$ended" -gt "$known" ] && break
  sleep 0.25
done
echo "$ended" > "{root}/ended.$run"
printf '%s\n' "$answer"
"""
STAND_INS = {
    "sbatch": 'line=$(printf \'%s\\037\' "$@"); printf \'%s\\036\' "$line" >> {root}/sbatch.log; exec /usr/bin/sbatch "$@"',
    "srun": 'SLURM_CONF={root}/slurm.conf exec /usr/bin/srun "$@"',
    "sacctmgr": "echo {account}",
    "sacct": "echo 'no accounting database' >&2; exit 1",
}


@dataclass(frozen=True)
class Job:
    """A job as the controller remembers it: of which run, what was granted, how it ended, times in seconds since 1970."""

    number: str
    folder: Path
    rule: str
    state: str
    node: str
    submitted: float
    start: float
    end: float
    restarts: int


@dataclass(frozen=True)
class Task:
    """A task that a node started in a job step: where, and which GPUs it was shown ("-" for none)."""

    job: str
    step: str
    node: str
    gpus: str


def why_not() -> str:
    """Say why no cluster can be brought up here; "" if it can."""
    if os.geteuid() != 0:
        return "a private SLURM needs root"
    missing = [name for name in PROGRAMS if shutil.which(name, path=SYSTEM_PATH) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (apt-get install slurmctld slurmd slurm-client munge)"
    return ""


class Cluster:
    """The daemons of one private cluster, their folder, and what a client needs to talk to them."""

    def __init__(self, *, prompt: bool = False) -> None:
        """Choose a folder; if ``prompt``, jobs start at once, and the queue answers Snakemake when one has ended."""
        self.scheduling_delay = 0 if prompt else SLURMS_OWN_DELAY_SECONDS
        self.stand_ins = STAND_INS | ({"squeue": PROMPT_SQUEUE} if prompt else {})
        self.root = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: a socket's path has at most 107 bytes
        self.environment = os.environ | {
            "PATH": f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}{os.pathsep}{SYSTEM_PATH}",
            "SLURM_CONF": str(self.root / "slurm.conf"),
        }
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Write the configuration, start every daemon and wait until all nodes are idle."""
        self._write_files()
        munge = self.root / "munge"
        places = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self._spawn("munged", "--foreground", "--force", *(f"--{name}={munge / place}" for name, place in places.items()))
        self._until(lambda: (munge / "socket").exists(), "munged to listen")
        self._spawn("slurmctld", "-D", "-c", "-f", str(self.root / "slurm.conf"))
        for node in NODES:
            self.start_node(node)
        self._until(lambda: self._idle_nodes() == len(NODES), "all nodes to be idle")

    def _write_files(self) -> None:
        for name in ("munge", "state", "bin", "devices", *(f"spool.{node}" for node in NODES)):
            (self.root / name).mkdir(mode=0o700)
        (self.root / "munge" / "key").write_bytes(os.urandom(128))
        (self.root / "munge" / "key").chmod(0o600)
        control_port, *ports = _free_ports(1 + len(NODES))
        text = CONFIGURATION.format(
            host=socket.gethostname().split(".")[0],
            root=self.root,
            control_port=control_port,
            ports=ports,
            cores=CORES,
            memory_mb=MEMORY_MB,
            gpu=GPU_MODEL,
            delay=self.scheduling_delay,
        )
        (self.root / "slurm.conf").write_text(text)
        devices = []
        for node in GPU_NODES:
            for number in range(2):
                device = self.root / "devices" / f"{node}_gpu{number}"
                os.mknod(device, 0o20666, os.makedev(1, 3))
                devices.append(f"NodeName={node} Name=gpu Type={GPU_MODEL} File={device}")
        (self.root / "gres.conf").write_text("\n".join(devices) + "\n")
        scripts = {f"bin/{name}": f"#!/bin/sh\n{text}\n" for name, text in self.stand_ins.items()} | {
            "task_prolog": TASK_PROLOG
        }
        for name, text in scripts.items():
            (self.root / name).write_text(text.format(root=self.root, account=ACCOUNT))
            (self.root / name).chmod(0o755)

    def _spawn(self, name: str, *arguments: str) -> None:
        """Start a daemon in the foreground; it ends with this process, even if that is killed."""
        program = shutil.which(name.split(".")[0], path=SYSTEM_PATH)
        with (self.root / f"{name}.out").open("ab") as output:
            command = ["setpriv", "--pdeathsig", "KILL", str(program), *arguments]
            self._daemons[name] = subprocess.Popen(
                command, stdout=output, stderr=output, env=self.environment, start_new_session=True
            )

    def start_node(self, node: str) -> None:
        """Start the slurmd of a node."""
        self._spawn(f"slurmd.{node}", "-D", "-N", node, "-f", str(self.root / "slurm.conf"))

    def _idle_nodes(self) -> int:
        for name, daemon in self._daemons.items():
            if daemon.poll() is not None:
                words = (self.root / f"{name}.out").read_text(errors="replace")[-1000:]
                raise RuntimeError(f"{name} ended with exit code {daemon.returncode}: {words}")
        try:
            return self.run("sinfo", "--noheader", "--Node", "--partition", "cpu", "--format", "%T").split().count("idle")
        except subprocess.CalledProcessError:  # the controller does not listen yet
            return 0

    def run(self, *command: str) -> str:
        """Run a SLURM client and return what it prints."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=STARTED_WITHIN_SECONDS
        ).stdout

    def submissions(self, directory: Path) -> list[list[str]]:
        """Arguments of every sbatch call so far that was made for a run in a folder."""
        log = self.root / "sbatch.log"
        lines = log.read_text().split(RECORD)[:-1] if log.exists() else []
        return [words for words in (line.split(FIELD)[:-1] for line in lines) if str(directory) in words]

    def jobs(self, directory: Path | None = None) -> list[Job]:
        """Jobs so far, of the run in a folder or of all, in the order of submission."""
        found = [_job(line) for line in self.run("scontrol", "show", "job", "--oneliner").splitlines() if "JobId=" in line]
        chosen = (job for job in found if directory is None or job.folder == directory)
        return sorted(chosen, key=lambda job: int(job.number))

    def tasks(self) -> list[Task]:
        """Every task that a node has started, in the order of starting."""
        log = self.root / "tasks.log"
        return [Task(*line.split()) for line in log.read_text().splitlines()] if log.exists() else []

    def processes_of(self, job: str, sub_command: str) -> list[int]:
        """Processes of a job that run a sub-command of ``python -m d2rnet``."""
        wanted = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_CONF={self.root}/slurm.conf".encode()}
        return [pid for pid in _pids() if wanted <= _words(pid, "environ") and sub_command.encode() in _words(pid, "cmdline")]

    def cut_power(self, node: str) -> None:
        """Kill everything on a node, daemons first, as a power loss does: nothing can be reported any more."""
        _kill([self._daemons[f"slurmd.{node}"].pid, *self._step_daemons(node)])
        self._daemons.pop(f"slurmd.{node}").wait()
        here = f"SLURMD_NODENAME={node}".encode()
        own = f"SLURM_CONF={self.root}/slurm.conf".encode()
        _kill([pid for pid in _pids() if {here, own} <= _words(pid, "environ")])

    def _step_daemons(self, node: str) -> list[int]:
        """The slurmstepd of a node: they keep the node's log open."""
        log = str(self.root / f"slurmd.{node}.log")
        found = []
        for pid in _pids():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/exe").readlink().name.startswith("slurmstepd"):
                    found += [pid] * any(str(fd.readlink()) == log for fd in Path(f"/proc/{pid}/fd").iterdir())
        return found

    def stop(self) -> None:
        """Cancel what runs, end every daemon that was started, and remove the folder; works after a failed start too."""
        if "slurmctld" in self._daemons:
            with contextlib.suppress(subprocess.SubprocessError):
                self.run("scancel", "--signal=KILL", "--full", "--user=root")
                self.run("scancel", "--user=root")
        for name in [name for name in self._daemons if name.startswith("slurmd.")]:
            with contextlib.suppress(ProcessLookupError):
                self.cut_power(name.removeprefix("slurmd."))
        for daemon in self._daemons.values():
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(STOPPED_WITHIN_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.root, ignore_errors=True)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(condition, what, STARTED_WITHIN_SECONDS)


def wait_until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it did not come true.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _job(line: str) -> Job:
    """Read a line of ``scontrol show job --oneliner``."""
    fields = dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", line))
    folder = re.search(r" WorkDir=(.*?) (?:Comment|StdErr)=", line)  # may have spaces
    assert folder is not None, line
    return Job(
        number=fields["JobId"],
        folder=Path(folder[1]),
        rule=fields.get("Comment", "").removeprefix("rule_").partition("_wildcards_")[0],
        state=fields["JobState"],
        node=fields.get("NodeList", ""),
        submitted=_seconds(fields["SubmitTime"]),
        start=_seconds(fields["StartTime"]),
        end=_seconds(fields["EndTime"]),
        restarts=int(fields["Restarts"]),
    )


def _seconds(text: str) -> float:
    """Read a time of scontrol's; 0 for one that is not known."""
    with contextlib.suppress(ValueError):
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    return 0.0


def _pids() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _words(pid: int, file: str) -> set[bytes]:
    """Arguments ("cmdline") or variables ("environ") of a process; none once it is gone."""
    with contextlib.suppress(OSError):
        return set(Path(f"/proc/{pid}/{file}").read_bytes().split(b"\0"))
    return set()


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
