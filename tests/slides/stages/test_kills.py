"""Kills without warning while slides are embedded: the end has the bytes of a run that nothing disturbed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.kits.kills import Forks, kill_at_random
from tests.kits.size import is_nightly, sized
from tests.kits.slides import damage_tile, draw_section, make_pathology_pack, write_pyramid

KILLS = sized(10, least=3)
_SETUP = """
import medclip, medclip.models.packs.pack, open_clip, pyarrow.parquet, torch
from medclip.settings import Settings
from medclip.slides.stages import unfinished
unfinished._SAVE_S = 0

def run(root, out, pack):
    medclip.slides.embed(root, out, model=pack, size_px=64, settings=Settings(workers=2), qc=True)
"""


@pytest.mark.slow
def test_kills_at_any_moment_change_no_byte(tmp_path: Path):
    slides = tmp_path / "slides"
    slides.mkdir()
    write_pyramid(slides / "a.tiff", draw_section())
    shutil.copy(slides / "a.tiff", slides / "b.tiff")
    damage_tile(slides / "b.tiff", 2 * 8 + 2)
    write_pyramid(slides / "c.tiff", draw_section(1300, 1500))
    pack = make_pathology_pack(tmp_path / "pack")
    inside = []
    with Forks(_SETUP, tmp_path / "log") as forks:
        expected = kill_at_random(
            lambda out, seconds: forks.run(slides, out, pack, seconds=seconds),
            tmp_path,
            num_kills=KILLS,
            seed=20,
            look=lambda out: inside.append((out / "unfinished").exists()),
        )
    assert sum(name.startswith("features/") for name in expected) == 3
    assert len(inside) == KILLS
    assert any(inside) or not is_nightly()  # some came in the middle of a slide
