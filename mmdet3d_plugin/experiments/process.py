"""Commands of the repository in processes of their own, and what their logs say."""
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Callable, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from ..locking import LAUNCHER, name_holder

ROOT = Path(__file__).resolve().parents[2]  # commands run here


class Processes:
    """Runs commands, from any number of threads; ``stop`` ends all of them.

    A tool also ends within seconds where this process was killed; see :func:`.engine.cli.run_tool`.
    """

    def __init__(self) -> None:
        self._running: Set[int] = set()
        self._lock, self._stopped = threading.Lock(), False

    def stop(self) -> None:
        """Ask what runs, and what is started afterwards, to end."""
        with self._lock:
            self._stopped = True
            for pid in self._running:
                os.kill(pid, signal.SIGTERM)

    def run(self, command: Sequence[str], log: Path, show: Callable[[str], None],
            env: Mapping[str, str], lock: int) -> Tuple[int, int]:
        """Run a command of Python to its end.

        Args:
            command: arguments of Python.
            log: file to which the output is appended.
            show: gets every line with its end: a newline, or a carriage return in a progress bar.
            env: the environment.
            lock: file descriptor that the process inherits; see :func:`.locking.locked`.

        Returns:
            tuple: Exit code (negative: the signal that ended it) and peak memory in kB.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, 'a', encoding='utf-8') as file:
            file.write(f'$ {shlex.join(["python", *command])}\n')
            file.flush()
            process = self._start(command, env, lock)
            try:
                for line in io.TextIOWrapper(process.stdout, 'utf-8', 'replace', newline=''):
                    file.write(line.replace('\r', '\n'))
                    file.flush()
                    show(line)
            except BaseException:
                process.terminate()
                raise
            finally:
                usage = self._wait(process)
        return process.returncode, usage.ru_maxrss

    def _start(self, command, env, lock) -> subprocess.Popen:
        with self._lock:
            process = subprocess.Popen(
                [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                cwd=ROOT, env={**env, LAUNCHER: str(os.getpid())}, pass_fds=(lock, ))
            self._running.add(process.pid)
            name_holder(lock, os.getpid(), process.pid)
            if self._stopped:
                process.terminate()
        return process

    def _wait(self, process: subprocess.Popen):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:  # until here its number is its own
            self._running.remove(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return usage


def reason(log: Path) -> str:
    """The line of a log that tells why a command failed."""
    lines = [line.strip() for line in log.read_text(errors='replace').splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r'\berror: |^\w*(Error|Interrupt)\b', line)]
    return (errors or lines or ['no output'])[-1].removeprefix('error: ')[:400]


class Step(NamedTuple):
    """What a line of a training's log says: ``[ 50/400]``, its numbers, loss and seconds left."""

    text: str
    done: int
    total: int
    loss: str
    seconds_left: Optional[int]


def training_step(line: str) -> Optional[Step]:
    """The step that a line of a training's log reports, if it does."""
    step = re.search(r'\(train\).*?(\[ *(\d+)/(\d+)\])', line)
    if not step:
        return None
    loss = re.search(r' loss: (\S+)', line)
    eta = re.search(r'eta: (?:(\d+) days?, )?(\d+):(\d+):(\d+)', line)
    left = None
    if eta:
        days, hours, minutes, seconds = (int(n or 0) for n in eta.groups())
        left = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return Step(step[1], int(step[2]), int(step[3]), loss[1] if loss else '?', left)


def clock(seconds: float) -> str:
    """Hours (where there are any), minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02d}:{rest:02d}' if hours else f'{minutes}:{rest:02d}'
