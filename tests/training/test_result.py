"""The result of a run shows its figures, and in a notebook the course of its loss."""

from __future__ import annotations

import json
from pathlib import Path

from medclip.training.result import PretrainResult

ROW = {"task": "retrieval", "metric": "image_to_text_r1", "value": 0.4, "low": 0.3, "high": 0.5, "chance": 0.1}


def test_a_data_frame_has_both_splits(tmp_path: Path) -> None:
    frame = PretrainResult(tmp_path, 5, 5, tmp_path / "pack", {"val_loss": 1.25}, (ROW,)).to_pandas()
    assert frame["split"].tolist() == ["val", "test"]
    assert frame["value"].tolist() == [1.25, 0.4]
    assert frame["low"].tolist()[1] == 0.3


def test_a_notebook_has_a_small_curve_of_the_loss(tmp_path: Path) -> None:
    result = PretrainResult(tmp_path, 3, 5, None)
    assert "<svg" not in result._repr_html_()
    steps = [{"kind": "step", "step": s, "loss": 3.0 / s} for s in (1, 2, 4)]
    log = [*steps, {"kind": "val", "step": 4, "val_loss": 9.0}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
    page = result._repr_html_()
    assert 'points="0.0,0.0 160.0,64.0 480.0,96.0"' in page
    assert "training loss, 3.000 at step 1 to 0.750 at step 4" in page


def test_the_interval_of_a_validation_stands_beside_its_figure(tmp_path: Path) -> None:
    figures = {"auroc": 0.8, "num_images": 40, "num_patients": 20, "auroc_low": 0.7, "auroc_high": 0.9}
    result = PretrainResult(tmp_path, 1, 1, None, figures)
    rows = {row["metric"]: (row["value"], row["low"], row["high"]) for row in result.to_pandas().to_dict("records")}
    assert set(rows) == {"auroc", "num_images", "num_patients"}
    assert rows["auroc"] == (0.8, 0.7, 0.9)
    assert "num_patients 20," in str(result._facts()["validation"])
