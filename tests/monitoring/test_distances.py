"""Distances to the images that a pack was measured on, watched over runs."""

from __future__ import annotations

from pathlib import Path

import medclip
from tests.kits.watched import write_run


def test_distances_to_what_the_pack_was_measured_on_are_watched_where_runs_have_them(tmp_path: Path) -> None:
    before = write_run(tmp_path / "a", patients=range(100), distance=0.7)
    now = write_run(tmp_path / "b", patients=range(200, 300), seed=1, distance=1.2)
    watched = medclip.monitor(now, before=before, num_resamples=200)
    distances = {one.measure: one for one in watched.changes if one.about == "distance"}
    assert distances["mean"].size == distances["share far away"].size == "large"
    assert distances["share far away"].value > 0.9


def test_images_from_elsewhere_are_named_though_the_reference_is_as_far_or_they_are_too_few_to_compare(
    tmp_path: Path,
) -> None:
    first = write_run(tmp_path / "a", patients=range(60), distance=1.4)
    second = write_run(tmp_path / "b", patients=range(200, 260), seed=1, distance=1.4)
    watched = medclip.monitor(second, before=first, num_resamples=200)
    assert not [one for one in watched.changes if one.about == "distance" and one.size]
    (note,) = [note for note in watched.notes if "lie far" in note]
    assert "images (xray, 100 %)" in note

    home = write_run(tmp_path / "c", patients=range(100), distance=0.7)
    few = write_run(tmp_path / "d", patients=range(300, 315), seed=2, distance=1.4)
    watched = medclip.monitor([home, few], period="run", num_resamples=200)
    assert not watched.changes
    (note,) = [note for note in watched.notes if "lie far" in note]
    assert "images of d (" in note


def test_images_from_home_have_no_note_of_being_far(tmp_path: Path) -> None:
    before = write_run(tmp_path / "a", patients=range(100), distance=0.7)
    now = write_run(tmp_path / "b", patients=range(200, 300), seed=1, distance=0.7)
    watched = medclip.monitor(now, before=before, num_resamples=200)
    assert [one for one in watched.changes if one.about == "distance"]
    assert not [note for note in watched.notes if "lie far" in note]
