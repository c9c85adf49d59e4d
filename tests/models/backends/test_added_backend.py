"""A back-end is a row: what it needs of the machine is refused by the row, and its function lies where the row says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import medclip
from medclip.errors import MedclipError
from medclip.models.backends.known import BACKENDS, BackendKind
from medclip.models.backends.load import Encode
from medclip.models.model import Model
from tests.kits.scoring import make_pack, write_png


def encode_half_as_bright(model: Model, graph: bytes | None) -> Encode:
    """Compute images of half the values."""
    assert graph is None
    return lambda batch: model.image_tower(batch / 2)


def test_a_row_that_is_added_computes_the_images_of_a_run_and_its_notes_name_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    film, pack = write_png(tmp_path / "film.png", 3), make_pack(tmp_path / "pack")
    how = {"model": pack, "modality": "xray", "prompt": "mass", "settings": medclip.Settings(workers=1)}
    plain = medclip.score(film, **how)  # type: ignore[arg-type]
    with pytest.raises(MedclipError, match="half"):
        medclip.score(film, backend="half", **how)  # type: ignore[arg-type]
    row = BackendKind("half", "torch, half as bright", f"{__name__}:encode_half_as_bright")
    monkeypatch.setitem(BACKENDS, "half", row)  # type: ignore[arg-type]
    run = medclip.score(film, backend="half", **how)  # type: ignore[arg-type]
    assert any(note.startswith("Images were computed by torch, half as bright") for note in run.notes)
    before, after = (result.scores.to_pylist()[0]["logit"] for result in (plain, run))
    assert before != after
    monkeypatch.setitem(BACKENDS, "half", replace(row, flags=("no_such_flag",)))  # type: ignore[arg-type]
    with pytest.raises(MedclipError, match="the processor has none of no_such_flag"):
        medclip.score(film, backend="half", **how)  # type: ignore[arg-type]
