"""Runs that are killed without warning: one driver imports what they need, and forks a child for each run."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self


def children_of(pid: int) -> list[int]:
    """Return the processes that a process started, on Linux, but for the server of `tests.kits.loaded_readers`.

    A thread of it may end while it is looked at.
    """
    children = set[int]()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children.update(int(child) for child in (task / "children").read_text().split())
    return sorted(child for child in children if not _is_server(child))


def _is_server(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"loaded_readers.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


_DRIVER = """
import json, os, signal, sys, threading, traceback
{setup}
def die():
    os.kill(os.getpid(), signal.SIGKILL)

for line in sys.stdin:
    seconds, values = json.loads(line)
    child = os.fork()
    if not child:
        try:
            if seconds:
                threading.Timer(seconds, die).start()
            run(*values)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
_ANEW = """
import json, os, signal, sys, threading
{setup}
threading.Timer({seconds}, os.kill, (os.getpid(), signal.SIGKILL)).start()
run(*json.loads(sys.argv[1]))
os._exit(0)
"""


class Forks:
    """A driver. Use as a context manager.

    Args:
        setup: Python that imports, and defines `run` of values that JSON can hold.
        log: File for what the children print.
    """

    def __init__(self, setup: str, log: Path) -> None:
        self._log = log
        with log.open("w") as file:
            self._driver = subprocess.Popen(
                [sys.executable, "-c", _DRIVER.format(setup=setup)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._driver.communicate()

    def run(self, *values: Any, seconds: float = 0) -> bool:
        """Run once, killed after some seconds unless it ends before; return whether it ended."""
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        print(json.dumps([seconds, [str(value) for value in values]]), file=self._driver.stdin, flush=True)
        code = int(self._driver.stdout.readline())
        assert code in (0, -signal.SIGKILL), self._log.read_text()
        return code == 0


def run_anew(setup: str, *values: Any, seconds: float, python: str = sys.executable) -> bool:
    """Run once in a process of its own, killed some seconds after its setup; return whether it ended.

    Args:
        setup: As `Forks` takes it; what it does not import, the run has to.
        values: What `run` is called with.
        seconds: Until the kill.
        python: The interpreter: that of the fixture `programs` forks where everything is imported already.
    """
    code = _ANEW.format(setup=setup, seconds=seconds)
    command = [python, "-c", code, json.dumps([str(value) for value in values])]
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode == 0


def left_behind(out: Path) -> dict[str, bytes]:
    """All files of a run but its ledger and its journal, which hold times."""
    paths = (path for path in sorted(out.rglob("*")) if path.is_file())
    kept = (path for path in paths if path.name.split(".")[0] not in ("ledger", "journal"))
    return {str(path.relative_to(out)): path.read_bytes() for path in kept}


def differing(files: dict[str, bytes], expected: dict[str, bytes]) -> dict[str, str]:
    """Return how the files of two runs differ, by name; nothing where they are equal."""
    kinds = dict.fromkeys(files.keys() - expected.keys(), "is too much")
    kinds |= dict.fromkeys(expected.keys() - files.keys(), "is missing")
    return kinds | {name: "has other bytes" for name in files.keys() & expected.keys() if files[name] != expected[name]}


def kill_at_random(
    start: Callable[[Path, float], bool], folder: Path, *, num_kills: int, seed: int, look: Callable[[Path], None]
) -> dict[str, bytes]:
    """Kill runs of a command at random until it was killed often enough, each going on where the last was killed.

    Args:
        start: Runs the command into an output folder, killed after some seconds or (0) never.
        folder: Where the outputs go.
        num_kills: How often.
        seed: Of the moments.
        look: Called with the output folder after each kill.

    Returns:
        What a run leaves that nothing disturbed: every other ended in the same bytes.
    """
    assert start(folder / "warm", 0)
    begun = time.monotonic()
    assert start(folder / "undisturbed", 0)
    seconds = time.monotonic() - begun
    expected = left_behind(folder / "undisturbed")
    rng = random.Random(seed)
    kills, num_ended = 0, 0
    out = folder / "out0"
    while kills < num_kills:
        if start(out, rng.uniform(0.3, 1.0) * seconds):
            assert differing(left_behind(out), expected) == {}
            num_ended += 1
            out = folder / f"out{num_ended}"
        else:
            kills += 1
            look(out)
    assert start(out, 0)
    assert differing(left_behind(out), expected) == {}
    return expected
