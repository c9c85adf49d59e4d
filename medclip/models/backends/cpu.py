"""What the processor can do, as far as it decides how a tower is computed."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

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
