"""A method of heat maps is a row: what it explains is refused by the row, and its function lies where the row says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import medclip
from medclip.errors import MedclipError
from medclip.explaining.explainers import EXPLAINERS, Explainer
from medclip.explaining.maps import Work, WorkMaps
from tests.kits.scoring import make_pack, write_png


def brightness_maps(work: Work) -> WorkMaps:
    """How bright each place of the grid is."""
    rows, columns = work.traced.grid
    images = work.batch.detach().mean(1).unflatten(-1, (columns, -1)).unflatten(-3, (rows, -1)).mean((-3, -1))
    return list(images.clamp_min(0).float().cpu().numpy() + np.float32(1)), "the image itself"


def test_a_row_that_is_added_explains_images_and_what_it_does_not_explain_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    film, pack = write_png(tmp_path / "film.png", 3), make_pack(tmp_path / "pack")
    how = {"prompt": "mass", "model": pack, "modality": "xray", "checks": "none", "method": "brightness"}
    with pytest.raises(MedclipError, match="brightness"):
        medclip.explain(film, **how)  # type: ignore[arg-type]
    row = Explainer("how bright it is", f"{__name__}:brightness_maps", ("convolution",), follows_gradient=False)
    monkeypatch.setitem(EXPLAINERS, "brightness", row)  # type: ignore[arg-type]
    explained = medclip.explain(film, **how, out=tmp_path / "out")  # type: ignore[arg-type]
    (heat,) = explained[0].maps
    assert (heat.method, heat.layer) == ("brightness", "the image itself")
    assert heat.grids[0].min() >= 1
    assert "how bright it is, read at" in (tmp_path / "out" / "explain.html").read_text()
    other = Explainer("how bright it is", row.target, ("record",))
    monkeypatch.setitem(EXPLAINERS, "brightness", other)  # type: ignore[arg-type]
    with pytest.raises(MedclipError, match="is of models of ECGs, and this model takes images"):
        medclip.explain(film, **how)  # type: ignore[arg-type]
