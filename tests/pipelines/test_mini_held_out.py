"""What medclip-mini is measured on: images that it was not trained on, and patients only where they are known."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medclip.models.packs.pack import find_pack, pack_card
from tests.kits.stages import load_stage

FOLDER = Path(__file__).parents[2] / "pipelines" / "mini"


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    return load_stage(FOLDER, "evaluate")


def test_the_files_that_the_figures_of_the_built_in_pack_are_of_were_not_trained_on() -> None:
    pack, card = find_pack("medclip-mini"), pack_card("medclip-mini")
    trained, tested = (
        {line.split()[0] for line in (pack / str(name)).read_text(encoding="utf-8").splitlines() if line}
        for name in (card.train_hashes_file, card.test_hashes_file)
    )
    assert len(trained) > 1000
    assert len(tested) > 500
    assert not trained & tested


@pytest.mark.parametrize("unknown", [(), ("brain_mri",)])
def test_a_figure_counts_patients_where_all_are_known_and_else_images_alone(
    evaluate: Any, unknown: tuple[str, ...]
) -> None:
    groups = np.array(["a", "a", "b", "c", "c", "d"])
    scores = np.array([0.1, 0.3, 0.2, 0.9, 0.4, 0.6])
    figure = evaluate.figure("auroc", np.array([0, 0, 0, 1, 1, 1]), scores, groups, 0.5, unknown=unknown)
    assert figure["num_images"] == 6
    assert figure["num_patients"] == (None if unknown else 4)
    assert figure["value"] == 1.0
