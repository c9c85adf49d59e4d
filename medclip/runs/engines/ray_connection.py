"""A run's connection to Ray: a process of its own talks to it, and all that goes wrong there has one sentence.

Where no cluster is named one is started on the loopback address for this run, and ends with it. On a busy machine that
fails now and then: it is tried three times, each with more time, and what a failed start has left is ended before the
next. A run that is told to end waits for nothing of it: what was started is killed, and its folder removed.
"""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.readers.worker import frame, receive
from medclip.files.temporary_folder import TemporaryFolder
from medclip.runs.engines.ray_host import DONE, FAILED, LOST, READY, REFUSED
from medclip.wording import count

STARTS_S = (60.0, 120.0, 240.0)
"""How long each try to start waits for Ray; a quiet machine needs about 5 s."""
PAUSES_S = (3.0, 15.0)
"""Before the second and the third."""
_LEAVE_S = 10.0
_STORE_BYTES = 256 << 20
"""Of the object store of a cluster of our own: plans and rows are small, and pixels never cross."""
_LONGEST_TEMP = 18
"""A longer folder leaves no room for Ray's names of sockets, which end at 107 bytes."""
_NO_REPORTS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
_OWN_NODE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # its other meaning: a node of our own listens on the loopback only
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A busy machine is slow, not dead: Ray gives its own processes 5 to 60 s, and a node five looks. A raylet whose
    # agents need longer to start ends itself.
    "RAY_gcs_server_port_wait_time_s": "240",
    "RAY_raylet_start_wait_time_s": "240",
    "RAY_gcs_rpc_server_connect_timeout_s": "60",
    "RAY_py_gcs_connect_timeout_s": "120",
    "RAY_agent_register_timeout_ms": "240000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_health_check_failure_threshold": "60",
}
_STARTER = "import sys; sys.path[:] = {path!r}; from medclip.runs.engines.ray_host import main; main()"


class WorkerLostError(Exception):
    """A worker is gone, and what it had to do is not done."""


def _gone(kind: str) -> MedclipError:
    return MedclipError(
        Reason.UNREACHABLE,
        f"the engine Ray failed while it worked for this run ({kind}).",
        hint="What is finished is kept, and the same command goes on; --engine local needs no Ray.",
    )


@dataclass(frozen=True)
class Worker:
    """A worker of the cluster, by its number: `worker.method.remote(...)` calls a method of it, as with Ray."""

    number: int
    submit: Callable[..., int]

    def __getattr__(self, method: str) -> Any:
        """Return what calls a method there; that returns a number for `Connection.wait` and `get`."""
        return _Remote(partial(self.submit, self.number, method))


@dataclass(frozen=True)
class _Remote:
    remote: Callable[..., Any]


class Connection:
    """What a run has of Ray: nodes, workers and calls, in Ray's own words. Any thread may use it.

    Args:
        how: Arguments of `ray.init`.
        environment: Environment of the process that talks to Ray.
    """

    def __init__(self, how: dict[str, Any], environment: dict[str, str], seconds: float) -> None:
        path = [entry for entry in sys.path if entry]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _STARTER.format(path=path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._results = self._process.stdin, self._process.stdout
        self._numbers = itertools.count()
        self._answers: dict[int | None, tuple[str, Any]] = {}
        self._end: MedclipError | None = None
        self._why = ""
        self._changed, self._sending = threading.Condition(), threading.Lock()
        self._thread = threading.Thread(target=self._listen, name="medclip-ray", daemon=True)
        self._thread.start()
        self._send("start", how, seconds)

    def started(self, seconds: float) -> tuple[str, str]:
        """Wait for the start; return how it ended, and the kind of error, where one is known."""
        with self._changed:
            self._changed.wait_for(lambda: None in self._answers or self._end is not None, seconds)
            return self._answers.pop(None, (FAILED, self._why or f"no answer in {seconds:g} s"))

    def close(self) -> None:
        """Have the process leave Ray that talks to it."""
        with suppress(OSError):
            self._requests.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LEAVE_S)

    def kill(self) -> None:
        """End that process at once; a second time nothing happens."""
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for stream in (self._requests, self._results):
            with suppress(OSError):
                stream.close()

    def nodes(self) -> list[dict[str, Any]]:
        """Return the nodes, as `ray.nodes` does."""
        number = next(self._numbers)
        self._send("nodes", number)
        return self.get(number)

    def remote(self, **options: Any) -> Callable[[type], Any]:
        """Return a function from a class to what hires a worker of it, as `ray.remote` does."""
        return lambda kind: _Remote(partial(self._hire, kind, options))

    def wait(self, refs: Sequence[int], num_returns: int = 1, timeout: float | None = None) -> tuple[list[int], list]:
        """Wait until some calls are answered, or for some seconds; return those that are, and the others.

        Raises:
            MedclipError: UNREACHABLE where Ray has ended.
        """

        def ready() -> list[int]:
            return [ref for ref in refs if ref in self._answers]

        with self._changed:
            self._changed.wait_for(lambda: len(ready()) >= num_returns or self._end is not None, timeout)
            if self._end is not None:
                raise self._end
            answered = ready()
        return answered, [ref for ref in refs if ref not in answered]

    def get(self, ref: int) -> Any:
        """Return what came of a call.

        Raises:
            WorkerLostError: The worker is gone.
            MedclipError: UNREACHABLE where Ray has ended.
            RuntimeError: What was called raised an error; it has its text.
        """
        self.wait([ref])
        with self._changed:
            kind, value = self._answers.pop(ref)
        if kind == DONE:
            return pickle.loads(value)  # noqa: S301 - of our own run
        if kind == LOST:
            raise WorkerLostError(value)
        if kind == FAILED:
            raise _gone(value)
        raise RuntimeError(value)

    def _hire(self, kind: type, options: dict[str, Any], *arguments: Any) -> Worker:
        number = next(self._numbers)
        self._send("hire", number, kind.__name__, options, pickle.dumps((kind, arguments)))
        return Worker(number, self._call)

    def _call(self, worker: int, method: str, *arguments: Any) -> int:
        number = next(self._numbers)
        self._send("call", number, worker, pickle.dumps((method, arguments)))
        return number

    def _send(self, *request: Any) -> None:
        content = frame(request)
        try:
            with self._sending:
                self._requests.write(content)
                self._requests.flush()
        except (OSError, ValueError):  # its end is heard by whoever waits
            return

    def _listen(self) -> None:
        """Take answers until the process ends, or says that Ray did."""
        why = "it ended"
        with suppress(OSError, ValueError):
            while (answer := receive(self._results)) is not None:
                kind, *rest = pickle.loads(answer)  # noqa: S301 - written by our own process
                number, value = rest or (None, "")
                with self._changed:
                    if number is None and kind not in (READY, REFUSED, FAILED):
                        why = value
                        break
                    self._answers[number] = (kind, value)
                    self._changed.notify_all()
        with self._changed:
            self._end, self._why = _gone(why), why
            self._changed.notify_all()


_current: Connection | None = None


@contextmanager
def connected(note: Callable[[str], None] = lambda _: None) -> Iterator[Connection]:
    """Yield a connection to the cluster of RAY_ADDRESS, to one that this process uses, or to one of our own.

    Ray's usage statistics and dashboard are off. A cluster of a run's own keeps its logs in a temporary folder, which
    goes with it. Inside another connection it is that one.

    Args:
        note: Function called with a sentence for the user, where a start is tried again.

    Raises:
        MedclipError: UNREACHABLE where no start succeeds, WRONG_USE for an address that is none.
    """
    global _current
    if _current is not None:
        yield _current
        return
    address = _address()
    folder = TemporaryFolder("ray")
    connection = None
    try:
        connection = _connect(address, folder, note)
        _current = connection
        yield connection
    finally:
        _current = None
        if connection is not None and address:
            connection.close()
        folder.end_programs()
        if connection is not None:
            connection.kill()
        folder.close()


def _address() -> str:
    """Return the address of a cluster that is there: that which this process uses, or RAY_ADDRESS; "" for none."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        return ray.get_runtime_context().gcs_address
    return os.environ.get("RAY_ADDRESS", "")


def _connect(address: str, folder: TemporaryFolder, note: Callable[[str], None]) -> Connection:
    how: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "configure_logging": False}
    if not address:
        how |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    settings = _NO_REPORTS | ({} if address else _OWN_NODE)
    outcome, kind = FAILED, ""
    for number, seconds in enumerate(STARTS_S):
        if number:
            pause_s = PAUSES_S[number - 1]
            note(f"Ray did not start ({kind}); it is tried again in {pause_s:g} s, with {seconds:g} s to start in.")
            time.sleep(pause_s)
        if not address and len(tempfile.gettempdir()) <= _LONGEST_TEMP:
            # Ray opens its folder to everybody; the one above stays shut.
            how["_temp_dir"] = str(folder.path / str(number))
        try:
            connection = Connection(how, {**settings, **os.environ, **folder.environment}, seconds)
        except OSError as error:  # no process or no memory to spare
            kind = error.strerror or type(error).__name__
            continue
        try:
            outcome, kind = connection.started(seconds)
        except BaseException:
            connection.kill()
            raise
        if outcome == READY:
            return connection
        folder.end_programs()
        connection.kill()
        if outcome == REFUSED:
            break
    if not address:
        raise MedclipError(
            Reason.UNREACHABLE,
            f"the engine Ray did not start in {count(len(STARTS_S), 'try', 'tries')} ({kind}).",
            hint="The machine may be busy or short of memory: the same command goes on later, or with --engine local.",
        )
    raise MedclipError(
        Reason.WRONG_USE if outcome == REFUSED else Reason.UNREACHABLE,
        f"no Ray cluster can be reached ({kind}).",
        where=address,
        hint="Check RAY_ADDRESS, or leave it out for a cluster of this run's own.",
    )
