"""The back-ends there are: what each needs of the machine (processor, compiler, libraries), and how far it may move a
probability. No torch here.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.models.devices import DEVICES, kind_of
from medclip.wording import list_of

FLAGS = frozenset(
    {
        *("avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16"),
        *("amx_bf16", "amx_int8", "amx_tile"),
        *("asimd", "asimddp", "bf16", "i8mm", "sve"),
    }
)
"""Instruction sets that libraries choose their kernels by: another set gives other last bits, and other speeds."""
_CPUINFO = Path("/proc/cpuinfo")


@cache
def cpu_flags() -> frozenset[str]:
    """Return those of `FLAGS` that the processor has; none where the system does not list them."""
    return parse_flags(_cpuinfo())


@cache
def cpu_name() -> str:
    """Return what the processor calls itself."""
    names = (line.partition(":")[2].strip() for line in _cpuinfo().splitlines() if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def parse_flags(cpuinfo: str) -> frozenset[str]:
    r"""Read the text of Linux' /proc/cpuinfo: `flags` of x86, `Features` of ARM.

    Example:
        >>> sorted(parse_flags("processor : 0\nflags : fpu avx2 amx_tile"))
        ['amx_tile', 'avx2']
    """
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    words = next((line[2].split() for line in lines if line[0].strip() in ("flags", "Features")), [])
    return FLAGS.intersection(words)


def _cpuinfo() -> str:
    try:
        return _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


_ASK_S = 10.0


def lacks_compiler() -> str:
    """Return what a compiled tower lacks here, "" where there is all: torch takes $CXX, else g++."""
    if shutil.which(_compiler()) is None:
        return "there is no C++ compiler: neither CXX nor g++ names one"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return "" if header.is_file() else f"Python's headers are not installed ({header})"


@cache
def compiler_version() -> str:
    """Return the first line of what the compiler says of its version; "unknown" where it does not."""
    try:
        process = subprocess.run([_compiler(), "--version"], capture_output=True, text=True, timeout=_ASK_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return next(iter(process.stdout.splitlines()), "unknown")


def _compiler() -> str:
    return os.environ.get("CXX") or "g++"


FLOAT_BOUND = 1e-3
"""Largest change of a probability that is stood for in a back-end of floating point numbers."""
INT8_BOUND = 1e-2
"""The same for 8-bit integers, which have to leave decisions and ranks as they are besides."""
EAGER = "eager"
_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")
_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


@dataclass(frozen=True)
class BackendKind:
    """One way to compute an image tower."""

    name: str
    title: str
    encode: str = ""
    """module:function, of a `Model` and the graph (None for one that runs none) to `load.Encode`; "" for the reference,
    torch as it is."""
    libraries: Mapping[str, str] = field(default_factory=dict)
    """Module that is imported to name of its distribution."""
    runs_graph: bool = False
    """It computes an ONNX graph of the tower."""
    quantise: str = ""
    """module:function, of the graph in float32, the model, images and the weights of their answers (as `make_graph` has
    them) to the graph that it runs; "" for the one in float32."""
    extra: str = ""
    """Extra of medclip that installs them."""
    flags: tuple[str, ...] = ()
    """It needs one of these of the processor: without them it computes the same more slowly, or another result."""
    is_int8: bool = False
    needs_images: bool = False
    """Its numbers are set on images: it comes from a calibration and from nowhere else."""
    prepare_s: float = 0.0
    """Seconds of processor time that a calibration expects to need for it, besides the graph in float32: those that
    medclip-mini took."""
    compiles: bool = False
    """It is compiled anew at the start of each run: it needs a compiler, and time before the first image."""
    devices: tuple[str, ...] = ("cpu",)
    """Kinds of device that it computes on."""
    is_bfloat16: bool = False
    """Torch computes it with weights in bfloat16."""
    takes_patches: bool = False
    """It takes batches that are not one array: towers of native aspect ratios."""

    @property
    def bound(self) -> float:
        """Largest change of a probability that is stood for."""
        return INT8_BOUND if self.is_int8 else FLOAT_BOUND

    @property
    def is_reference(self) -> bool:
        """Whether it is what others are compared with, and computes as the model does of itself."""
        return not self.encode

    def lacking(self, device: str = "cpu") -> str:
        """Return what this machine lacks for it and what to do, "" where it lacks nothing.

        Args:
            device: Device that is to compute, as torch names it.
        """
        if kind_of(device) not in self.devices:
            return f"it computes on {' or '.join(self.devices)}, and not on the device {device}"
        missing = [name for name in self.libraries if find_spec(name) is None]
        if missing:
            return f"{list_of(missing)} cannot be imported; run: pip install 'medclip-imaging[{self.extra}]'"
        if self.compiles and (why := lacks_compiler()):
            return why
        if self.compiles and device != "cpu" and find_spec("triton") is None:
            return "triton, which compiles for cards, cannot be imported"
        if device == "cpu" and self.flags and not cpu_flags().intersection(self.flags):
            return f"the processor has none of {list_of(self.flags)}"
        return ""

    def versions(self) -> dict[str, str]:
        """Return the installed versions of torch and of its libraries, and of the compiler where it compiles."""
        compiler = {"c++": compiler_version()} if self.compiles else {}
        return {name: _version(name) for name in ("torch", *self.libraries.values())} | compiler


EXPORT_S = 10.0
"""Seconds of processor time that a calibration expects to need for the graph in float32 of all that run one."""
_ONNX = {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"}
_OPENVINO = {"onnx": "onnx", "onnxscript": "onnxscript", "openvino": "openvino"}
_LOAD = "medclip.models.backends.load:"
BACKENDS: Mapping[str, BackendKind] = {
    kind.name: kind
    for kind in (
        BackendKind(EAGER, "torch, float32", takes_patches=True, devices=DEVICES),
        BackendKind(
            "bf16",
            "torch, weights in bfloat16",
            f"{_LOAD}encode_bf16",
            flags=_BFLOAT16,
            is_bfloat16=True,
            devices=("cpu", "cuda"),
        ),
        BackendKind("tome", "torch, float32, with 13 of 196 tokens merged in each block (ToMe)", f"{_LOAD}encode_tome"),
        BackendKind(
            "pitome", "torch, float32, with 5 % of the tokens merged in each block (PiToMe)", f"{_LOAD}encode_pitome"
        ),
        BackendKind("onnx", "ONNX Runtime, float32", f"{_LOAD}encode_onnx", _ONNX, runs_graph=True, extra="onnx"),
        BackendKind(
            "onnx-int8",
            "ONNX Runtime, products of matrices in int8",
            f"{_LOAD}encode_onnx_int8",
            _ONNX,
            runs_graph=True,
            quantise=f"{_LOAD}quantise_products",
            extra="onnx",
            flags=_INT8,
            is_int8=True,
        ),
        BackendKind(
            "onnx-mixed",
            "ONNX Runtime, int8 but for the layers of most relevance",
            f"{_LOAD}encode_onnx_int8",
            _ONNX,
            runs_graph=True,
            quantise=f"{_LOAD}quantise_least_relevant",
            extra="onnx",
            flags=_INT8,
            is_int8=True,
            needs_images=True,
        ),
        BackendKind(
            "openvino", "OpenVINO, float32", f"{_LOAD}encode_openvino", _OPENVINO, runs_graph=True, extra="openvino"
        ),
        BackendKind(
            "openvino-bf16",
            "OpenVINO, bfloat16",
            f"{_LOAD}encode_openvino_bf16",
            _OPENVINO,
            runs_graph=True,
            extra="openvino",
            flags=_BFLOAT16,
        ),
        BackendKind(
            "openvino-int8",
            "OpenVINO, int8 with scales from the calibration's images",
            f"{_LOAD}encode_openvino",
            _OPENVINO | {"nncf": "nncf"},
            runs_graph=True,
            quantise=f"{_LOAD}quantise_with_images",
            extra="openvino",
            flags=_INT8,
            is_int8=True,
            needs_images=True,
            prepare_s=8.0,
        ),
        BackendKind(
            "compiled",
            "torch, float32, compiled for this machine",
            f"{_LOAD}encode_compiled",
            prepare_s=45.0,
            compiles=True,
            devices=("cpu", "cuda"),
        ),
        BackendKind(
            "bf16-compiled",
            "torch, weights in bfloat16, compiled for this card",
            f"{_LOAD}encode_bf16_compiled",
            compiles=True,
            is_bfloat16=True,
            devices=("cuda",),
        ),
    )
}
"""Name to back-end, the reference first."""


def find_backend(name: str) -> BackendKind:
    """Return a back-end by its name.

    Raises:
        MedclipError: WRONG_USE, naming those that there are.
    """
    if name not in BACKENDS:
        raise MedclipError(
            Reason.WRONG_USE, f"there is no back-end named {name!r}.", hint=did_you_mean(name, BACKENDS, "They are")
        )
    return BACKENDS[name]


def check_backend(kind: BackendKind, device: str = "cpu") -> None:
    """Refuse a back-end that this machine cannot compute with.

    Args:
        kind: The back-end.
        device: Device that is to compute, as torch names it.

    Raises:
        MedclipError: MISSING_CODEC where a library is missing, WRONG_USE where the device lacks what it needs, or is
            none that the back-end computes on.
    """
    lacking = kind.lacking(device)
    if not lacking:
        return
    problem, _, line = lacking.partition("; run: ")
    raise MedclipError(
        Reason.MISSING_CODEC if line else Reason.WRONG_USE,
        f"the back-end {kind.name} cannot be used here: {problem}.",
        hint=f"Run: {line}" if line else "Name another --device or machine for this run, or leave --backend out.",
    )


def scales_need_images(kind: BackendKind) -> MedclipError:
    """Return the error for a back-end that was named without a calibration, where it can only come from one."""
    return MedclipError(
        Reason.WRONG_USE,
        f"the scales of the back-end {kind.name} are set on images, in a calibration.",
        hint="Make one: `medclip models calibrate PACK --images FOLDER --out FOLDER`; and name its folder.",
    )


def usable(kinds: Iterable[BackendKind]) -> tuple[list[BackendKind], dict[str, str]]:
    """Part back-ends into those that this machine can compute with, and names of the others with what is lacking."""
    lacking = {kind.name: kind.lacking() for kind in kinds}
    return [BACKENDS[name] for name, why in lacking.items() if not why], {n: why for n, why in lacking.items() if why}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
