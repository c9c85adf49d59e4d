"""Reading labelled units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.adaptation.data.heads import LinearHead
from medclip.adaptation.data.table import read_adapt_table
from medclip.adaptation.data.unit_features import examples_of, unit_logits
from medclip.models.encoding.unit_reader import UnitReader, encode_units
from medclip.models.packs.manifest import file_sha256
from medclip.models.packs.pack import load_model
from medclip.settings import Settings
from tests.kits.adapt_tables import KEY, make_table, tiny

__all__ = ["tiny"]


def test_units_are_read_as_scoring_reads_them_and_a_broken_one_stops_none(tiny: Path, tmp_path: Path):
    table = make_table(tmp_path, patients=3)
    (tmp_path / "clear/01_0.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    found = read_adapt_table(table, ["finding"], key=KEY)
    model = load_model(tiny)
    steps: list[int] = []
    with UnitReader(model, Settings(workers=1)) as reader:
        read = reader.read(found.units, steps.append)
    assert sum(steps) == len(read) == 6
    assert [r.problem is None for r in read] == [True, False, True, True, True, True]
    assert len(read[1].pixels) == len(read[1].features) == 0
    good = read[0]
    assert (good.sha256, good.way, good.pixels.shape) == (file_sha256(found.units[0].path), "xray", (1, 64, 64, 3))
    np.testing.assert_array_equal(good.features, model.encode_image(good.pixels))
    examples = examples_of(found.units, read, [2, 0], found.text)
    assert examples.targets.tolist() == [0, 0]
    np.testing.assert_array_equal(examples.features[1], good.features)
    np.testing.assert_array_equal(encode_units(model, [r.pixels for r in read if not r.problem])[0], good.features)


def test_further_models_see_the_same_pixels_which_need_not_be_kept(tiny: Path, tmp_path: Path):
    found = read_adapt_table(make_table(tmp_path, patients=1), ["finding"], key=KEY)
    model = load_model(tiny)
    with UnitReader(model, Settings(workers=1)) as reader:
        (first, _) = reader.read(found.units, lambda _: None, keep_pixels=False, others=[model])
    assert len(first.pixels) == 0
    np.testing.assert_array_equal(first.others[0], first.features)


def test_features_that_are_no_numbers_are_a_problem_of_their_unit(tiny: Path, tmp_path: Path, monkeypatch):
    found = read_adapt_table(make_table(tmp_path, patients=1), ["finding"], key=KEY)
    model = load_model(tiny)
    monkeypatch.setattr(model, "encode_image", lambda images: np.full((len(images), model.dim), np.nan, np.float32))
    with UnitReader(model, Settings(workers=1)) as reader:
        read = reader.read(found.units, lambda _: None)
    assert {str(r.problem.reason) for r in read} == {"non_finite"}


@pytest.mark.parametrize("num_views", [1, 3])
def test_a_unit_has_the_mean_of_its_views_logits(num_views: int):
    rng = np.random.default_rng(0)
    head = LinearHead(rng.normal(size=(5, 2)).astype(np.float32), np.zeros(2, np.float32))
    features = [rng.normal(size=(num_views, 5)).astype(np.float32) for _ in range(4)]
    expected = [(f @ head.weight_DC).mean(axis=0) for f in features]
    np.testing.assert_allclose(unit_logits(head, None, features), expected, rtol=1e-5)
