"""Distances to the images that a pack was measured on, watched over runs."""

from __future__ import annotations

from pathlib import Path

import medclip
from tests.kits.watched import write_run


def test_distances_to_what_the_pack_was_measured_on_are_watched_where_runs_have_them(tmp_path: Path) -> None:
    before = write_run(tmp_path / "a", patients=range(100), distance=0.7)
    now = write_run(tmp_path / "b", patients=range(200, 300), seed=1, distance=1.2)
    watched = medclip.monitor(now, reference=before, num_resamples=200)
    distances = {one.measure: one for one in watched.changes if one.about == "distance"}
    assert distances["mean"].size == distances["share far away"].size == "large"
    assert distances["share far away"].value > 0.9
