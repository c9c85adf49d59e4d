"""The process that talks to Ray for a run, so that however Ray ends, no run ends with it.

Ray ends the process that it works in where its head does not answer, takes SIGTERM for itself, and keeps what a start
that failed has left. So a run asks this process, over two pipes, in frames as reading processes have them
(`medclip.files.readers.worker`); what workers get and return are bytes that are not opened here. Requests are

- ("start", arguments of `ray.init`, seconds): answered by READY, or by REFUSED or FAILED with the kind of error;
- ("hire", worker, name, options, content): a worker;
- ("call", call, worker, content): answered by DONE with its content, by LOST where the worker is gone, by FAULT where
  what it computes raised an error, or by FAILED where Ray did;
- ("nodes", call): answered by DONE.

ENDED says that a process of Ray's own has ended, and is the last word. The end of the requests is the end of all.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from medclip.files.readers.worker import frame, receive
from medclip.files.temporary_folder import VARIABLE, remove_left

READY, REFUSED, FAILED, DONE, LOST, FAULT, ENDED = "ready", "refused", "failed", "done", "lost", "fault", "ended"
LOSSES = ("RayActorError", "OutOfMemoryError", "NodeDiedError", "WorkerCrashedError", "ObjectLostError")
"""What Ray raises where a worker is gone, or what it had returned went with its node. The first is not above the
others: a worker that Ray's memory monitor has killed is an `OutOfMemoryError` alone."""
_VITAL = ("gcs_server", "raylet")
"""Ray's processes without which nothing goes on. Others it starts anew, or does without."""
_UNNEEDED = ("start_monitor", "start_log_monitor")
"""What else a node of our own would start: it has nothing to scale, and nobody reads its logs. Each takes a second of
CPU, and on a busy machine a start fails for less."""
_LOOK_S, _NOTICE_S, _LEAVE_S, _END_S = 1.0, 0.3, 5.0, 0.5


class Host:
    """A worker: it makes an object, and calls its methods.

    Args:
        content: Class and arguments, pickled by `medclip.runs.engines.ray_connection` of the same version.
    """

    def __init__(self, content: bytes) -> None:
        kind, arguments = pickle.loads(content)  # noqa: S301 - of our own run
        self._object = kind(*arguments)

    def call(self, content: bytes) -> bytes:
        """Call a method; name and arguments come pickled, and so does what it returns."""
        method, arguments = pickle.loads(content)  # noqa: S301 - of our own run
        return pickle.dumps(getattr(self._object, method)(*arguments), protocol=pickle.HIGHEST_PROTOCOL)


def main() -> None:
    """Serve requests until there are no more. Standard output and error go to the null device: Ray writes to both."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    _Talk(requests, answers).serve()


class _Talk:
    """What was asked, and what is answered."""

    def __init__(self, requests: Any, answers: Any) -> None:
        self._requests, self._answers = requests, answers
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._workers: dict[int, Any] = {}
        self._vital: dict[int, str] = {}
        self._ray: Any = None
        self._is_ours = False

    def answer(self, *words: Any) -> None:
        """Write one answer, whole."""
        rest = memoryview(frame(words))
        with self._lock, suppress(OSError):  # nobody listens any more
            while rest:
                rest = rest[self._answers.write(rest) :]

    def serve(self) -> None:
        """Start, then do what is asked for."""
        threading.Thread(target=self._listen, name="medclip-requests", daemon=True).start()
        _, how, seconds = self._waiting.get()
        self._is_ours = how["address"] == "local"
        threading.Thread(target=self._watch, name="medclip-watch", daemon=True).start()
        self._start(how, seconds)
        while True:
            request = self._waiting.get()
            try:
                self._do(*request)
            except Exception as error:
                self.answer(FAILED, request[1], type(error).__name__)

    def _listen(self) -> None:
        """Take requests; at their end leave, whatever Ray is about."""
        while (request := receive(self._requests)) is not None:
            self._waiting.put(pickle.loads(request))  # noqa: S301 - written by the process that started this one
        if self._ray is not None and not self._is_ours:
            leaving = threading.Thread(target=self._ray.shutdown, daemon=True)
            leaving.start()
            leaving.join(_LEAVE_S)
        if VARIABLE in os.environ:  # of a run that was killed; a living one holds its folder, and ends all itself
            remove_left(os.environ[VARIABLE], _END_S)
        os._exit(0)

    def _start(self, how: dict[str, Any], seconds: float) -> None:
        """Connect to Ray; what cannot be is answered, and is the end."""
        try:
            import ray
            import ray.exceptions

            if self._is_ours:
                _make_patient(time.monotonic() + seconds)
            ray.init(**how)
            self._ray = ray
        except BaseException as error:
            kind = REFUSED if isinstance(error, ValueError) and not self._is_ours else FAILED
            self.answer(kind, None, type(error).__name__)
            os._exit(1)
        self.answer(READY)

    def _do(self, what: str, number: int, *rest: Any) -> None:
        if what == "hire":
            name, options, content = rest
            kind = type(name, (Host,), {})  # so that it has its name in lists of processes
            self._workers[number] = self._ray.remote(**options)(kind).remote(content)
        elif what == "nodes":
            self.answer(DONE, number, pickle.dumps(self._ray.nodes()))
        else:
            worker, content = rest
            ref = self._workers[worker].call.remote(content)
            ref.future().add_done_callback(lambda future: self._hand_on(number, future))

    def _hand_on(self, number: int, future: Any) -> None:
        """Answer a call with what came of it."""
        error = future.exception()
        exceptions = self._ray.exceptions
        if error is None:
            self.answer(DONE, number, future.result())
        elif isinstance(error, tuple(getattr(exceptions, name) for name in LOSSES)):
            time.sleep(_NOTICE_S)  # where all are gone with their node, no chunk is blamed
            self._look()
            self.answer(LOST, number, type(error).__name__)
        elif isinstance(error, exceptions.RayTaskError):
            self.answer(FAULT, number, str(error))
        else:
            self.answer(FAILED, number, type(error).__name__)

    def _watch(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            self._look()

    def _look(self) -> None:
        """Leave where a process of our own cluster has ended without which nothing goes on."""
        if not self._is_ours:
            return
        living, ended = _vital_children()
        ended |= {pid: name for pid, name in self._vital.items() if pid not in living}
        self._vital = living
        for name in ended.values():
            self.answer(ENDED, None, f"its {name} ended")
            os._exit(1)


def _vital_children() -> tuple[dict[int, str], dict[int, str]]:
    """Return the names of the vital processes that this one has started, as Linux lists them: living ones, ended ones.

    An ended one is listed until Ray asks how it ended.
    """
    living: dict[int, str] = {}
    ended: dict[int, str] = {}
    with suppress(OSError), os.scandir("/proc") as entries:
        for entry in entries:
            with suppress(OSError, ValueError):
                pid = int(entry.name)
                name, _, state = Path(entry.path, "stat").read_text().partition(" (")[2].rpartition(") ")
                status, parent, *_ = state.split()
                if name in _VITAL and int(parent) == os.getpid():
                    (ended if status in "ZX" else living)[pid] = name
    return living, ended


def _make_patient(deadline: float) -> None:
    """Have Ray wait for its own node as long as we do, where it would for 30 s.

    Ray has no setting for it (`raylet_start_wait_time_s` in `ray/_private/node.py` of 2.60); a Ray that is made in
    another way waits as it likes.
    """
    try:
        from ray._private import node, services
    except ImportError:
        return

    get_node = services.get_node

    def patient(*arguments: Any, **options: Any) -> Any:
        while True:
            try:
                return get_node(*arguments, **options)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise _NotStartedError from None
                time.sleep(_NOTICE_S)

    services.get_node = patient
    for name in _UNNEEDED:
        if hasattr(node.Node, name):
            setattr(node.Node, name, lambda _: None)


class _NotStartedError(Exception):
    """A node of our own is not there in time."""
