"""Kills without warning while slides are embedded: the end has the bytes of a run that nothing disturbed."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kits.slides import damage_tile, draw_section, make_pathology_pack, write_pyramid

KILLS = 10
_DRIVER = """
import json, os, signal, sys, threading
from pathlib import Path
import medclip, medclip.models.packs.pack, open_clip, pyarrow.parquet, torch
from medclip.settings import Settings
from medclip.slides.stages import unfinished
unfinished._SAVE_S = 0

def run(root, out, pack, seconds):
    if seconds:
        threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    medclip.slides.embed(root, out, model=pack, size_px=64, settings=Settings(workers=2), qc=True)

for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            run(*json.loads(line))
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def left_behind(out: Path) -> dict[str, bytes]:
    """All files of a run but its ledger, which holds times of files."""
    paths = (path for path in sorted(out.rglob("*")) if path.is_file() and "ledger" not in path.name)
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_ten_kills_at_any_moment_change_no_byte(tmp_path: Path):
    slides = tmp_path / "slides"
    slides.mkdir()
    write_pyramid(slides / "a.tiff", draw_section())
    shutil.copy(slides / "a.tiff", slides / "b.tiff")
    damage_tile(slides / "b.tiff", 2 * 8 + 2)
    write_pyramid(slides / "c.tiff", draw_section(1300, 1500))
    pack = make_pathology_pack(tmp_path / "pack")
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-c", _DRIVER]
        driver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    with driver:
        assert driver.stdin is not None
        assert driver.stdout is not None

        def start(out: Path, seconds: float = 0) -> int:
            print(json.dumps([str(slides), str(out), str(pack), seconds]), file=driver.stdin, flush=True)
            code = int(driver.stdout.readline())  # pyright: ignore[reportOptionalMemberAccess]
            assert code in (0, -signal.SIGKILL), (tmp_path / "log").read_text()
            return code

        assert start(tmp_path / "warm") == 0
        began = time.monotonic()
        assert start(tmp_path / "undisturbed") == 0
        seconds = time.monotonic() - began
        expected = left_behind(tmp_path / "undisturbed")
        assert sum(name.startswith("features/") for name in expected) == 3
        rng = random.Random(20)
        kills, num_inside, num_ended = 0, 0, 0
        out = tmp_path / "out0"
        while kills < KILLS:
            code = start(out, rng.uniform(0.3, 1.0) * seconds)
            kills += code != 0
            num_inside += (out / "unfinished").exists()
            if code == 0:
                assert left_behind(out) == expected
                num_ended += 1
                out = tmp_path / f"out{num_ended}"
        assert start(out) == 0
        assert left_behind(out) == expected
        assert num_inside  # some came in the middle of a slide
        driver.stdin.close()
