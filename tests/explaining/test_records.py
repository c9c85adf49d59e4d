"""Maps of ECGs: which second of which lead raises a score."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import medclip
from medclip.adapters.registry import preprocessing_of
from medclip.errors import MedclipError, Reason
from medclip.explaining.maps import compute_maps
from medclip.explaining.records import flat_lines, flattened, seconds_of
from medclip.explaining.target import Target
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.recording import MISSING
from medclip.models.inputs.signal_input import SignalInput
from medclip.settings import ReadPolicy
from tests.kits.ecg import beats, write_wfdb
from tests.kits.scoring import make_pack

SIGNAL = SignalInput(sampling_hz=50, seconds=4)


class LooksAtV1(nn.Module):
    """A tower whose first number is the height of lead V1 between 2 and 3 s."""

    def forward(self, records_B1LT: torch.Tensor) -> torch.Tensor:
        height_B = records_B1LT[:, 0, 6, 100:150].amax(1)
        return torch.stack([height_B, torch.ones_like(height_B)], dim=1)


def _model() -> Any:
    def normalise(records: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(records.astype(np.float32))[:, None] / 1000

    preprocess = SimpleNamespace(signal=SIGNAL)
    return SimpleNamespace(
        clip=SimpleNamespace(visual=LooksAtV1()), normalise=normalise, batch_size=7, preprocess=preprocess
    )


def _record() -> np.ndarray:
    record = np.tile(np.arange(200, dtype=np.int16) % 50 * 20, (12, 1))
    record[11] = MISSING
    return record


TARGET = Target("high", "", "t", lambda f: f[:, 0].astype(np.float64), np.float64, lambda f: float(f[0, 0]))


def test_the_map_lies_where_the_model_looks_and_nowhere_else() -> None:
    (maps,) = compute_maps(_model(), _record()[None], [TARGET])
    (grid,) = maps.grids
    assert grid.shape == (12, 4)
    assert (np.argwhere(grid > 0) == [[6, 2]]).all()
    assert (maps.method, maps.empty) == ("occlusion", ("",))


def test_another_tower_draws_another_map_and_a_score_that_nothing_raises_an_empty_one() -> None:
    class Constant(nn.Module):
        def forward(self, records_B1LT: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(records_B1LT), 2)

    (maps,) = compute_maps(_model(), _record()[None], [TARGET], visual=Constant())
    assert not maps.grids[0].any()
    assert maps.empty == ("nothing raises it",)


def test_a_second_becomes_a_flat_line_and_missing_leads_stay_missing() -> None:
    record = _record()
    second_T = seconds_of(record, 4)
    assert np.bincount(second_T).tolist() == [50] * 4
    pieces = list(flattened(record, second_T))
    assert len(pieces) == 11 * 4
    lead, second, changed = pieces[5]
    assert (lead, second) == (1, 1)
    assert np.ptp(changed[1, 50:100]) == 0
    changed[1, 50:100] = record[1, 50:100]
    np.testing.assert_array_equal(changed, record)
    assert (flat_lines(record)[11] == MISSING).all()


def test_methods_of_images_are_refused() -> None:
    with pytest.raises(MedclipError, match="takes ECGs") as caught:
        compute_maps(_model(), _record()[None], [TARGET], "grad-cam")
    assert caught.value.reason is Reason.WRONG_USE


def test_a_record_is_explained_by_lead_and_second_with_its_checks(tmp_path: Path) -> None:
    ways = {"ecg:signal": preprocessing_of("ecg:signal", ReadPolicy(ecg=SIGNAL.options))}
    pack = make_pack(tmp_path / "pack", ways, signal=SIGNAL, modalities=["ecg"], tasks={})
    header = write_wfdb(tmp_path, {lead: line for lead, line in beats(5000).items() if lead != "V6"})
    explained = medclip.explain(header, prompt="a bright bone", model=pack, out=tmp_path / "out", checks="all")
    (unit,) = explained
    facts = unit.facts()
    (heat,) = unit.maps
    assert facts["maps"][0]["grid"] == [12, 4]
    shares = facts["share_of_map_on_each_lead"][heat.title]
    assert list(shares) == list(TWELVE)
    assert shares["V6"] == 0
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)
    assert sum(facts["share_of_map_on_each_second"][heat.title]) == pytest.approx(1, abs=0.01)
    assert heat.randomised
    assert {curve.order for curve in heat.curves} == {"map", "random", "centre"}
    assert unit.in_image(heat, 0).shape == (12, 200)
    assert unit.overlay.startswith(b"\x89PNG")
    assert "Share on each second" in (tmp_path / "out" / "explain.html").read_text()
