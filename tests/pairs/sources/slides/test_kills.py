"""Kills without warning while patches are embedded, chosen and captioned: the end is that of a run undisturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.kills import Forks, kill_at_random
from tests.kits.size import is_nightly, sized
from tests.kits.slides import damage_tile, make_worded_pathology_pack
from tests.kits.stained_slide import write_stained

KILLS = sized(10, least=3)
_SETUP = """
import medclip, medclip.models.packs.pack, open_clip, pyarrow.parquet, torch
import scipy.ndimage, skimage.measure, sklearn.cluster
from medclip.slides.stages import unfinished
unfinished._SAVE_S = 0

def run(root, out, pack):
    numbers = {"num_by_attributes": 8, "num_by_clusters": 24, "most_cosine": 1.0}
    medclip.pathgen(root, out, model=pack, size_px=64, organ="colon", workers=1, **numbers)
"""


@pytest.mark.slow
def test_kills_at_any_moment_change_no_byte_of_records_shards_or_vectors(tmp_path: Path):
    slides = tmp_path / "slides"
    slides.mkdir()
    write_stained(slides / "a.tiff", height=700, width=900)
    write_stained(slides / "b.tiff", seed=1, height=700, width=900)
    damage_tile(slides / "b.tiff", 1 * 4 + 1)
    (slides / "c.tiff").write_bytes((slides / "a.tiff").read_bytes()[:20_000])
    pack = make_worded_pathology_pack(tmp_path / "pack")
    reached = []

    def look(out: Path) -> None:
        embedded, captioned = ((out / name).exists() for name in ("slides/run.json", "records.parquet"))
        reached.append("captions" if embedded and not captioned else "vectors" if not embedded else "tables")

    with Forks(_SETUP, tmp_path / "log") as forks:
        expected = kill_at_random(
            lambda out, seconds: forks.run(slides, out, pack, seconds=seconds),
            tmp_path,
            num_kills=KILLS,
            seed=20,
            look=look,
        )
    assert sum(name.startswith("slides/features/") for name in expected) == 2
    assert {"slides.parquet", "records.parquet", "rejects.parquet", "shards/index.json"} <= set(expected)
    assert len(reached) == KILLS
    if is_nightly():  # three kills need not fall into both
        assert {"vectors", "captions"} <= set(reached), reached
