"""The memory of a run over a large slide: what all of its processes hold together stays below what was allowed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import pytest

from medclip.slides.slide_store import open_slide_store
from tests.kits.slides import make_pathology_pack, write_giant

MEMORY_MB = 720
SIDE_PX = 16_384
"""Decoded it is 805 MB: two caches of their ordinary 256 MiB would fill, and take all processes to 850 MB."""


def anonymous_mb(root: int) -> float:
    """Return the memory of a process and of all below it that is neither a file's nor shared, in MB."""
    children = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children[int(stat.read_text().rpartition(")")[2].split()[1])].append(int(stat.parent.name))
    waiting, held = [root], 0
    while waiting:
        process = waiting.pop()
        waiting += children[process]
        with suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Private_Dirty:"):
                    held += int(line.split()[1])
    return held * 1024 / 1e6


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what each process holds")
def test_all_processes_of_a_run_over_a_large_slide_stay_below_what_was_allowed(tmp_path: Path):
    slide = write_giant(tmp_path / "giant.tiff", SIDE_PX, SIDE_PX)
    pack = make_pathology_pack(tmp_path / "pack")
    command = [sys.executable, "-m", "medclip.cli.main", "slides", "embed", str(slide), "--out", str(tmp_path / "o")]
    command += ["--model", str(pack), "--size-px", "240", "--workers", "2", "--memory", f"{MEMORY_MB}MB", "--json"]
    peak_mb = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        while run.poll() is None:
            peak_mb = max(peak_mb, anonymous_mb(run.pid))
            time.sleep(0.1)
        assert run.stderr is not None
        assert run.returncode == 0, run.stderr.read()
    store = open_slide_store(tmp_path / "o")
    assert store.rows[0].num_patches == (SIDE_PX // 240) ** 2
    assert 200 < peak_mb < MEMORY_MB
