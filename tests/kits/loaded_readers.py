"""Reading processes as forks of one that has imported what they need, in place of programs anew.

A reading process needs 0.7 s of CPU, and most of that are imports: more than the reading itself, in most tests.
`LoadedReaders` starts one process that has done them. Whoever asks it for a reading process gets a child of its own:
the server forks twice, the process between ends, and the system hands the fork to the next ancestor that takes orphans.

It differs from a program anew in this: modules are imported already, their memory counts as its own, and the hash seed
is that of the server. At night every reading process is a program, and always where the fixture `real_readers` is used.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import pkgutil
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Self

_PDEATHSIG, _SUBREAPER = 1, 36
_ROOMS = ("adapters", "dicom", "ecg", "files", "imaging", "models.inputs", "sample", "shards.writing")
_BESIDE = (
    "medclip.runs.units.read_unit",
    "medclip.slides.stages.reading",
    "nibabel",
    "numpy.random",
    "PIL.Image",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "PIL.TiffImagePlugin",
    "pydicom",
    "pydicom.encaps",
    "scipy.ndimage",
    "scipy.signal",
    "tifffile",
    "wfdb",
)
_FD_LIMIT = 4096
_SOCKET = socket.socket
"""As it is before tests block sockets."""


class LoadedReaders:
    """The process that has imported what reading needs. Use as a context manager.

    Args:
        by_fork: Fork this process, which has imported it all and has one thread, in place of starting a program.
    """

    def __init__(self, *, by_fork: bool = False) -> None:
        self._address = f"\0medclip-readers-{os.getpid()}-{secrets.token_hex(8)}"  # leaves no file behind
        self._lock = threading.Lock()
        from medclip.files.readers import serving

        self.start_program = serving.start_python
        """What `start` stands for."""
        self._python_path = os.environ.get("PYTHONPATH")
        listener = _SOCKET(socket.AF_UNIX)
        listener.bind(self._address)
        listener.listen(64)
        self._program: subprocess.Popen[bytes] | None = None
        if by_fork:
            parent = os.getpid()
            if not os.fork():
                _serve(listener, parent)
        else:
            os.set_inheritable(listener.fileno(), True)
            env = {name: text for name, text in os.environ.items() if not name.startswith("MEDCLIP")}
            env |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            self._program = subprocess.Popen(
                [sys.executable, "-P", __file__, str(listener.fileno()), str(os.getpid())],
                env={**env, "PYTHONPATH": str(Path(__file__).parents[2])},
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._program is not None:
            self._program.kill()
            self._program.wait()

    def start(self, code: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start code in a fork, as `medclip.files.readers.serving.start_python` does it in a program."""
        if environment.get("PYTHONPATH") != self._python_path:  # it may bring a sitecustomize
            return self.start_program(code, environment)
        ours, theirs = [0, 0], [0, 0]
        theirs[0], ours[0] = os.pipe()
        ours[1], theirs[1] = os.pipe()
        body = json.dumps([os.getpid(), os.getcwd(), dict(environment), code]).encode()
        with self._lock, _SOCKET(socket.AF_UNIX) as connection:
            connection.connect(self._address)
            _control(_SUBREAPER, 1)  # as long as it takes: what others leave behind is not ours
            try:
                socket.send_fds(connection, [len(body).to_bytes(8, "little")], theirs)
                connection.sendall(body)
                pid = int.from_bytes(connection.recv(4), "little")
            finally:
                _control(_SUBREAPER, 0)
        for number in theirs:
            os.close(number)
        return _as_popen(pid, *ours)


def _as_popen(pid: int, jobs: int, answers: int) -> subprocess.Popen[bytes]:
    """Return a child that is there as if subprocess had started it."""
    child: Any = object.__new__(subprocess.Popen)
    child.args, child.pid, child.returncode = ["reader"], pid, None
    child.stdin, child.stdout, child.stderr = os.fdopen(jobs, "wb", 0), os.fdopen(answers, "rb", 0), None
    child._child_created, child._waitpid_lock, child._sigint_wait_secs = True, threading.Lock(), 0.25
    child._communication_started, child._input, child.text_mode = False, None, None
    return child


def _control(option: int, value: int) -> None:
    assert ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0


class _NoTorch:
    """Finds no torch, as if there were none."""

    @staticmethod
    def find_spec(name: str, *_: Any) -> None:
        """Refuse torch."""
        if name == "torch":
            raise ImportError(name, name=name)


def load() -> None:
    """Import what reading needs, and no torch: a reading process has none."""
    sys.meta_path.insert(0, _NoTorch)
    for name in _BESIDE:
        _import(name)
    for room in _ROOMS:
        package = import_module(f"medclip.{room}")
        for module in pkgutil.walk_packages(getattr(package, "__path__", []), f"medclip.{room}."):
            _import(module.name)
    sys.meta_path.remove(_NoTorch)
    assert "torch" not in sys.modules


def _import(name: str) -> None:
    """Import a module; one that needs a package of others that is not installed is left out."""
    try:
        import_module(name)
    except ImportError as e:
        if (e.name or "medclip").split(".")[0] == "medclip":
            raise


def _serve(listener: socket.socket, parent: int) -> None:
    """Fork for each client, until the parent ends."""
    _control(_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()
    while True:
        connection, _ = listener.accept()
        between = os.fork()
        if not between:
            _become(connection, listener)
        connection.close()
        os.waitpid(between, 0)


def _become(connection: socket.socket, listener: socket.socket) -> None:
    """Fork once more, and be the reading process of the client, once it has this process for a child."""
    size, streams, _, _ = socket.recv_fds(connection, 8, 2)
    body = b""
    while len(body) < int.from_bytes(size, "little"):
        body += connection.recv(1 << 20)
    client, folder, environment, code = json.loads(body)
    pid = os.fork()
    if pid:
        os._exit(0)
    while os.getppid() != client:
        time.sleep(0.0005)
    connection.sendall(os.getpid().to_bytes(4, "little"))
    connection.close()
    listener.close()
    null = os.open(os.devnull, os.O_RDWR)
    for number, stream in enumerate((*streams, null)):
        os.dup2(stream, number)
        if stream > 2:
            os.close(stream)
    os.closerange(3, _FD_LIMIT)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    try:
        exec(code, {"__name__": "__main__"})
    finally:
        os._exit(0)


if __name__ == "__main__":
    load()
    _serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
