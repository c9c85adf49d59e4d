"""Views of one thing: planted things, projections, patients and sides are found, and what is unknown takes no part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.auditing.checks.embeddings.vectors import unit_vectors
from medclip.auditing.checks.embeddings.view_figures import KnownViews, known_views, view_figures
from medclip.shards.reading.samples import ShardReader
from medclip.statistics.cohort import MISSING, Attribute
from medclip.training.recipe.view_losses import Views
from tests.kits.training import make_shards

NUM_PATIENTS = 24
THING_N = np.repeat(np.arange(2 * NUM_PATIENTS), 2)
"""Two breasts of each woman, two views of each."""
VIEW_N = np.tile([0, 1], 2 * NUM_PATIENTS).astype(np.int16)


def known(projections: bool = True) -> KnownViews:
    of_views = {"projection": Attribute("projection", ("cc", "mlo", MISSING), VIEW_N)} if projections else {}
    return KnownViews(THING_N, THING_N // 2, of_views)


def random_vectors(seed: int = 0, num: int = len(THING_N)) -> np.ndarray:
    return unit_vectors(np.random.default_rng(seed).normal(size=(num, 32)))


def test_views_alike_have_no_spread_and_find_each_other() -> None:
    figures, _ = view_figures(known(), random_vectors(num=2 * NUM_PATIENTS)[THING_N], num_resamples=100)
    assert figures["spread"]["value"] == figures["distance"]["value"] == 0
    assert figures["recall_across_views"]["value"] == 1
    assert figures["recall_across_views"]["chance"] == pytest.approx(1 / 48, abs=1e-4)  # of the other projection
    assert figures["recall_across_views"]["num_patients"] == NUM_PATIENTS


def test_views_that_have_nothing_in_common_are_as_far_as_other_things() -> None:
    figures, notes = view_figures(known(), random_vectors(), num_resamples=100)
    assert figures["spread"]["low"] < 1 < figures["spread"]["high"]
    assert figures["recall_across_views"]["value"] < 0.1
    assert figures["re_identification"]["chance"] == pytest.approx(3 / 95, abs=1e-4)
    assert figures["re_identification"]["low"] < 0.1
    assert figures["probe"]["projection"]["low"] < 0.5 < figures["probe"]["projection"]["high"]
    assert notes[0].startswith("re-identification, ")


def test_spread_does_not_fall_when_all_vectors_come_together() -> None:
    apart = random_vectors(num=2 * NUM_PATIENTS)[THING_N] + 0.3 * random_vectors(1)
    near = apart + 10 * random_vectors(2)[:1]
    (wide, _), (close, _) = (view_figures(known(), unit_vectors(v), num_resamples=50) for v in (apart, near))
    assert close["distance"]["value"] < wide["distance"]["value"] / 10
    assert close["spread"]["value"] == pytest.approx(wide["spread"]["value"], rel=0.3)


def test_a_patient_is_found_by_what_all_her_images_share() -> None:
    vectors = unit_vectors(random_vectors(num=NUM_PATIENTS)[THING_N // 2] + 0.5 * random_vectors(3))
    figures, _ = view_figures(known(), vectors, num_resamples=100)
    assert figures["re_identification"]["value"] > 0.9
    assert figures["linkage"]["value"] > 0.5


def test_a_probe_reads_a_planted_projection_and_recall_looks_at_the_other_one_alone() -> None:
    of_thing = random_vectors(num=2 * NUM_PATIENTS)[THING_N]
    vectors = unit_vectors(np.hstack([of_thing, 4 * np.eye(2)[VIEW_N]]))
    figures, _ = view_figures(known(), vectors, num_resamples=100)
    assert figures["probe"]["projection"]["value"] > 0.95
    assert figures["recall_across_views"]["value"] > 0.9
    blind, _ = view_figures(known(projections=False), vectors, num_resamples=100)
    assert blind["recall_across_views"]["value"] < 0.1  # the nearest image is one of the same projection
    assert "probe" not in blind


def test_images_of_which_nothing_says_what_they_show_take_no_part() -> None:
    thing_N = THING_N.copy()
    thing_N[:4] = -1
    vectors = random_vectors(num=2 * NUM_PATIENTS)[THING_N]
    vectors[:4] = vectors[4]
    figures, _ = view_figures(KnownViews(thing_N, THING_N // 2, {}), vectors, num_resamples=50)
    assert figures["recall_across_views"]["value"] == 1
    assert figures["recall_across_views"]["num_images"] == figures["spread"]["num_images"] == len(THING_N) - 4


def test_things_by_label_are_of_many_patients_and_what_is_known_is_read_of_samples(tmp_path: Path) -> None:
    def columns(i: int) -> dict[str, str]:
        return {"view": "PA" if i % 3 else "AP", "source": f"site {i % 2}", "laterality": ""}

    shards = make_shards(tmp_path, num_test=12, columns=columns)
    with ShardReader(shards, "test") as reader:
        rows_N = np.arange(len(reader))
        patients = [row["patient"] for row in reader.provenance()]
        settings = Views(object=("modality",), label="chest_xray_findings")
        read = known_views(reader, settings, rows_N, patients)
        labels = [reader.record(i)[0].labels["chest_xray_findings"] for i in rows_N.tolist()]
    assert {frozenset(np.flatnonzero(read.thing_N == thing).tolist()) for thing in (0, 1)} == {
        frozenset(i for i, label in enumerate(labels) if label == {"pneumonia": has}) for has in (0, 1)
    }
    assert set(read.attributes) == {"projection", "source"}
    assert read.attributes["projection"].groups == ("ap", "pa", MISSING)
