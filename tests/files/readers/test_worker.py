"""Reading processes end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_PARENT = """
import sys, time
from medclip.files.readers import worker
from medclip.files.readers.pool import ReadingPool
pool = ReadingPool(2, timeout_s=600)
jobs = [pool.submit({function}, {argument}) for _ in range(2)]
while pool._queue.num_processes() < 2:
    time.sleep(0.01)
pids = [server.pid for server in pool._queue._servers]
time.sleep({delay})
print(*pids, flush=True)
time.sleep(600)
"""
BUSY = ("sum", "range(10**12)")
"""Never leaves C, and keeps the interpreter's lock."""


@pytest.mark.parametrize("delay", [0.0, 1.5], ids=["while they start", "while they work in C"])
def test_a_parent_that_is_killed_leaves_no_process_behind(delay: float) -> None:
    pids = _pids_of_a_killed_parent(delay)
    assert _alive_after(pids, 2.0) == []


def _pids_of_a_killed_parent(delay: float) -> list[int]:
    function, argument = BUSY
    script = _PARENT.format(function=function, argument=argument, delay=delay)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2
    return pids


def test_where_the_system_has_no_signal_for_it_a_thread_sees_that_the_parent_is_gone(tmp_path: Path) -> None:
    """The thread's part alone: the worker's own parent ends by itself."""
    script = (
        "import os, time\n"
        "from medclip.files.readers.worker import _watch\n"
        "parent = os.getpid()\n"
        "if os.fork() == 0:\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "    _watch(parent)\n"
        f"while not os.path.exists({str(tmp_path / 'pid')!r}):\n"
        "    time.sleep(0.01)\n"
        "os._exit(0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60)
    time.sleep(0.1)
    pid = int((tmp_path / "pid").read_text())
    assert _alive_after([pid], 5.0) == []


def _alive_after(pids: list[int], seconds: float) -> list[int]:
    """Return which processes still live; those that have ended and are not waited for do not."""
    end = time.monotonic() + seconds
    while (alive := [pid for pid in pids if _lives(pid)]) and time.monotonic() < end:
        time.sleep(0.02)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    return alive


def _lives(pid: int) -> bool:
    done = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] not in ("", "Z")
