"""Commands and snippets of Python in forks of one process that has imported the library, in place of programs anew.

A program of the docs needs three to six seconds of CPU, and most of that are imports. `LoadedPython` starts one process
that imports them, and writes a folder with programs named `medclip`, `python` and `python3`. First on PATH, these give
their arguments, folder, environment and standard streams to that process; it forks, and the fork does the work, ends as
the interpreter ends, and leaves its exit code. What it starts itself (reading processes) are real programs.

It differs from a program anew in this: modules are imported already and the hash seed is that of the server. So README,
tutorials and everything at night run in real programs.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import pkgutil
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, Self

from tests.kits.loaded_readers import LoadedReaders

# Beside all of medclip: what is imported when it is needed.
_PRELOADED = (
    "captum.attr",
    "highdicom",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "matplotlib.pyplot",
    "monai.transforms",
    "nibabel",
    "open_clip",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pydicom.encaps",
    "safetensors.torch",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.linear_model",
    "sklearn.metrics",
    "tifffile",
    "timm",
    "tokenizers",
    "torch",
    "torch.utils.data",
    "torchvision.transforms",
    "transformers",
)

REAL_READERS = "REAL_READERS"
"""Set for commands whose reading processes are to be programs of their own."""
_CLIENT = """\
#!{python} -IS
import json, os, signal, socket, sys
program = os.path.basename(sys.argv[0])
option = (sys.argv[1:2] or ["-"])[0]
if option == "-P":
    del sys.argv[1]
    option = sys.argv[1]
tool = option == "-m" and sys.argv[2].split(".")[0] in ("ensurepip", "pip", "venv")
if program != "medclip" and (tool or option.startswith("-") and option not in ("-", "-c", "-m")):
    os.execv({python!r}, [program, *sys.argv[1:]])
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
mask = os.umask(0)
os.umask(mask)
body = json.dumps([program, sys.argv[1:], os.getcwd(), dict(os.environ), mask]).encode()
socket.send_fds(connection, [len(body).to_bytes(8, "little")], [0, 1, 2])
connection.sendall(body)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _: connection.send(bytes([number])))
answer = connection.recv(4)
code = int.from_bytes(answer, "little", signed=True) if len(answer) == 4 else 99
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


class RealPython:
    """Programs as a user starts them: what LoadedPython stands for, and what runs at night.

    Attributes:
        python: The interpreter.
    """

    python = sys.executable

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return an environment in which `medclip` and `python` are programs of this installation."""
        return {**environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"}


class LoadedPython:
    """The process that has imported everything. Use as a context manager.

    Args:
        modules: Modules to import in place of everything.

    Attributes:
        folder: Where its programs `medclip`, `python` and `python3` are.
        python: The program that stands for the interpreter.
        log: What the process itself printed.
    """

    def __init__(self, *modules: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="medclip-bin-"))
        self.log = self.folder / "log.txt"
        self.python = str(self.folder / "python")
        address = str(self.folder / "socket")
        # Threads would not outlive a fork: one for each library that has its own.
        hidden = ("MEDCLIP", "HF_", "TRANSFORMERS_")
        env = {name: text for name, text in os.environ.items() if not name.startswith(hidden)}
        env |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HOME": str(self.folder)}
        env["PYTHONPATH"] = str(Path(__file__).parents[2])
        with self.log.open("w") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-P", __file__, address, *modules],
                cwd=self.folder,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._server.stdout is not None
        said = self._server.stdout.readline()
        assert said == "ready\n", self.log.read_text()
        for name in ("medclip", "python", "python3"):
            client = self.folder / name
            client.write_text(_CLIENT.format(python=sys.executable, address=address))
            client.chmod(0o755)

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return an environment in which `medclip` and `python` are forks, also in scripts that set a PATH."""
        programs = [self.folder / name for name in ("medclip", "python", "python3")]
        functions = {f"BASH_FUNC_{path.name}%%": f'() {{ {path} "$@"; }}' for path in programs}
        return {**environment, **functions, "PATH": f"{self.folder}{os.pathsep}{environment['PATH']}"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)


Programs = LoadedPython | RealPython
"""What the fixture `programs` gives."""


def _import_everything() -> None:
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):
            import_module(name)
    import medclip

    for module in pkgutil.walk_packages(medclip.__path__, "medclip."):
        with contextlib.suppress(ImportError):
            import_module(module.name)


def serve(address: str, *modules: str) -> Any:
    """Fork for each client until standard input ends; return, in a fork, what it has to do."""
    if modules:
        for name in modules:
            import_module(name)
    else:
        _import_everything()
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    # That of pyarrow's allocator starts anew in a fork.
    others = [name for name in threads if name != "jemalloc_bg_thd"]
    assert len(others) == 1, f"imports have started threads, and forks may hang: {threads}"
    gc.freeze()  # or the first collection of each fork copies every page
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    print("ready", flush=True)
    while True:
        there, _, _ = select.select([listener, 0], [], [])
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if 0 in there:
            os._exit(0)
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            return _supervise(connection)
        connection.close()


def _supervise(connection: socket.socket) -> Any:
    """Fork the one that works, tell its client how it ended, and give it the signals that the client gets."""
    size, streams, _, _ = socket.recv_fds(connection, 8, 3)
    body = b""
    while len(body) < int.from_bytes(size, "little"):
        body += connection.recv(1 << 20)
    child = os.fork()
    if not child:
        connection.close()
        return json.loads(body), streams
    for stream in (*streams, 0, 1, 2):
        os.close(stream)
    ended = os.pidfd_open(child)
    while True:
        there, _, _ = select.select([ended, connection], [], [])
        if ended in there:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            with contextlib.suppress(OSError):
                connection.send(struct.pack("<i", code))
            os._exit(0)
        os.kill(child, (connection.recv(1) or bytes([signal.SIGKILL]))[0])


def become(request: list[Any], streams: list[int]) -> tuple[str, str | None, ModuleType]:
    """Take over what a process has from its parent; return the code, the file it is from, and the module to run it in.

    Args:
        request: Program, arguments, folder, environment and umask.
        streams: Standard input, output and error.
    """
    program, arguments, folder, environment, mask = request
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.umask(mask)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    for name, number, mode, errors in (
        ("stdin", 0, "r", "strict"),
        ("stdout", 1, "w", "strict"),
        ("stderr", 2, "w", "backslashreplace"),
    ):
        # A line at a time where somebody reads along, as the interpreter does it.
        buffering = 1 if number == 2 or os.isatty(number) else -1
        opened = open(number, mode, buffering, closefd=False, errors=errors)  # noqa: SIM115
        setattr(sys, name, opened)
        setattr(sys, f"__{name}__", opened)
    main = ModuleType("__main__")
    main.__builtins__ = __builtins__  # type: ignore[attr-defined]
    sys.modules["__main__"] = main
    file: str | None = None
    if program == "medclip":
        sys.argv = [str(Path(sys.executable).with_name("medclip")), *arguments]
        first = str(Path(sys.executable).parent)
        code = "import sys\nfrom medclip.cli.main import main\nsys.exit(main())\n"
    elif arguments[:1] == ["-c"]:
        sys.argv, first, code = ["-c", *arguments[2:]], "", arguments[1]
    elif arguments[:1] == ["-m"]:
        sys.argv, first = ["-m", *arguments[2:]], os.getcwd()
        sys.modules.pop(arguments[1], None)  # which a program anew has not imported yet
        code = f"import runpy\nrunpy._run_module_as_main({arguments[1]!r})\n"
    elif not arguments or arguments[0] == "-":
        sys.argv, first, code = [*arguments] or [""], "", sys.stdin.read()
    else:
        sys.argv, file = list(arguments), arguments[0]
        first, code = str(Path(file).resolve().parent), Path(file).read_text(encoding="utf-8")
        main.__file__ = file
    entries = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = [first, *entries, *sys.path]
    for entry in entries:  # as `site` does it at the start of a program
        if (Path(entry) / "sitecustomize.py").exists():
            exec((Path(entry) / "sitecustomize.py").read_text(), {"__name__": "sitecustomize"})
            break
    if sys.platform == "linux" and REAL_READERS not in os.environ:
        from medclip.files.readers import serving

        serving.start_python = LoadedReaders(by_fork=True).start
    return code, file, main


def _end(error: BaseException | None) -> NoReturn:
    """End as the interpreter does, but leave the modules as they are: to clear them takes most of a second."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if code and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    elif error is not None:
        code = 1
        assert error.__traceback__ is not None
        sys.excepthook(type(error), error, error.__traceback__.tb_next)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()  # type: ignore[attr-defined]
    try:
        if not sys.stdout.closed:  # json.tool closes it
            sys.stdout.flush()
    except OSError:
        code = 120
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


if __name__ == "__main__":
    _code, _file, _main = become(*serve(*sys.argv[1:]))
    try:
        exec(compile(_code, _file or "<string>", "exec", dont_inherit=True), _main.__dict__)
    except BaseException as error:
        _end(error)
    _end(None)
