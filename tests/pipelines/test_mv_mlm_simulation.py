"""pipelines/mv_mlm/simulate.py: views that agree about where a lesion is, and follow-up that loses the risky first."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medclip.adapters.base import source_of
from medclip.adapters.registry import read_unit
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.statistics.metrics.concordance import concordance
from tests.kits.mammography_cohort import module_of, write_cohort

simulate = module_of("simulate")
MASS = simulate.Lesion("mass", True, "L", depth=0.5, outward=0.3, upward=0.2, radius_mm=8.0)


def test_the_same_seed_writes_the_same_bytes_and_another_one_others(tmp_path: Path) -> None:
    tables = [write_cohort(tmp_path / name, 2, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    files = [sorted(p.relative_to(t.parent) for p in t.parent.rglob("*.*")) for t in tables]
    assert files[0] == files[1]
    assert all((tables[0].parent / f).read_bytes() == (tables[1].parent / f).read_bytes() for f in files[0])
    assert tables[0].read_bytes() != tables[2].read_bytes()


def test_a_lesion_lies_equally_deep_in_both_views_and_where_the_body_has_it() -> None:
    bare = replace(simulate.draw_woman(3, 0), density=0, scattered=False, lesions=())
    woman = replace(bare, lesions=(MASS,))
    places = {}
    for position in simulate.POSITIONS:
        seen = np.zeros((160, 96))
        for seed in range(6):  # a view may hide it
            views = (simulate.draw_view(w, "L", position, seed).astype(float) for w in (woman, bare))
            seen += np.abs(next(views) - next(views)) > 40
        rows, columns = np.nonzero(seen)
        assert len(rows) > 50
        places[position] = (79.5 - rows.mean()) * 1.25, columns.mean() * 1.25
    up = {p: MASS.along(p) * woman.half_height_mm for p in simulate.POSITIONS}
    assert up["CC"] != pytest.approx(up["MLO"], abs=2)
    for position, (up_mm, deep_mm) in places.items():
        assert up_mm == pytest.approx(up[position], abs=3)
        assert deep_mm == pytest.approx(MASS.depth * woman.depth_mm, abs=3)


def test_the_chest_wall_is_at_the_left_edge_of_left_breasts_and_at_the_right_edge_of_right_ones() -> None:
    woman = simulate.draw_woman(0, 0)
    for position in simulate.POSITIONS:
        left, right = (simulate.draw_view(woman, side, position, 0) for side in "LR")
        assert left[80, :10].mean() > 20 > left[80, -5:].mean()
        assert right[80, -10:].mean() > 20 > right[80, :5].mean()


def test_labels_and_records_of_a_breast_are_those_of_what_was_planted(tmp_path: Path) -> None:
    with write_cohort(tmp_path, 40, height=20).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 160
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    for row in rows:
        findings = json.loads(row["findings"])
        assert {f["side"] for f in findings} <= {row["laterality"]}
        kinds = sorted({f["type"] for f in findings})
        subtype = {(): "none", ("calcification", "mass"): "both"}.get(tuple(kinds), *kinds[:1])
        assert row["label:mammography_subtype"] == subtype
        assert (row["label:mammography_malignancy"] == "normal") == (not findings)
        assert (row["cancer"] == "1") == (row["birads"] == "5")
    assert {row["label:mammography_subtype"] for row in rows} == {"none", "mass", "calcification", "both"}


def test_cancers_of_the_exam_are_found_within_half_a_year_and_later_ones_follow_the_planted_risk() -> None:
    women = [simulate.draw_woman(number, 0) for number in range(1500)]
    for woman in women:
        soon = woman.event_months is not None and woman.event_months <= 6
        assert soon == woman.malignant
        assert woman.event_months is None or woman.event_months <= woman.followup_months
    later = [woman for woman in women if not woman.malignant]
    time = [w.followup_months if w.event_months is None else w.event_months for w in later]
    event = [w.event_months is not None for w in later]
    score = np.array([w.score for w in later])
    assert 0.62 < concordance(time, event, score)[0] < 0.75
    followed = np.array([w.followup_months for w in later])
    assert followed[score > 1].mean() < 0.6 * followed[score < 0].mean()
    five = np.array([w.true_risks()[4] for w in later])
    assert 0.2 < five.mean() < 0.3


def test_a_dicom_file_is_read_as_the_image_that_was_drawn_with_its_side_and_view(tmp_path: Path) -> None:
    write_cohort(tmp_path, 1, dicom=True)
    for side, position in simulate.HANGING:
        name = f"00000_{side}_{position}"
        sample = read_unit(source_of(tmp_path / "dicom" / f"{name}.dcm", Settings()), Modality.MAMMOGRAPHY, Settings())
        assert [(v.laterality, v.position) for v in sample.views] == [(side, position)]
