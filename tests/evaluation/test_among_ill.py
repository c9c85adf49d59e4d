"""Two findings told from each other among images that have one of them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medclip.evaluation.among_ill import AMONG_ILL, FEWEST, measure_among_ill
from medclip.evaluation.shard_split import among_ill_figures
from medclip.text.vocabulary.load import load_task

TASK = load_task("chest_xray_findings")
NAMES = ("effusion", "atelectasis")
EFFUSION, ATELECTASIS, ILL = np.eye(3, dtype=np.float32)


class Encoder:
    """Knows effusion from atelectasis, or but that something is ill."""

    def __init__(self, *, knows_words: bool) -> None:
        self._knows_words = knows_words

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vector of each text."""
        if not self._knows_words:
            return np.stack([ILL for _ in texts])
        return np.stack(
            [ATELECTASIS if "atelecta" in t.lower() or "collapse" in t.lower() else EFFUSION for t in texts]
        )


def images(num: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return vectors and findings of `num` images with each finding, as many with both, and with nothing."""
    rng = np.random.default_rng(0)
    targets = np.repeat([[1, 0], [0, 1], [1, 1], [0, 0]], num, axis=0).astype(np.float64)
    vectors = targets @ np.stack([EFFUSION, ATELECTASIS]) + targets.max(axis=1)[:, None] * ILL
    return (vectors + rng.normal(0, 0.2, vectors.shape)).astype(np.float32), targets


@pytest.mark.parametrize(("knows_words", "area"), [(True, 1.0), (False, 0.5)])
def test_who_knows_but_that_something_is_ill_is_at_chance(knows_words: bool, area: float) -> None:
    vectors, targets = images(20)
    encoder = Encoder(knows_words=knows_words)
    figures = measure_among_ill(encoder, TASK, NAMES, vectors, targets, range(80), num_resamples=50)
    assert list(figures) == ["effusion against atelectasis"]
    assert figures["effusion against atelectasis"].value == pytest.approx(area, abs=0.02)


def test_findings_of_too_few_patients_and_unknown_ones_are_not_compared() -> None:
    vectors, targets = images(20)
    encoder = Encoder(knows_words=True)
    whose = [i % (FEWEST - 1) for i in range(80)]
    assert measure_among_ill(encoder, TASK, NAMES, vectors, targets, whose, num_resamples=50) == {}
    targets[:15, 1] = np.nan
    assert measure_among_ill(encoder, TASK, NAMES, vectors, targets, range(80), num_resamples=50) == {}


def test_a_split_has_such_figures_of_findings_beside_chance_for_each_model() -> None:
    vectors, targets = images(20)
    labels = [{TASK.name: dict(zip(NAMES, map(int, row), strict=True))} for row in targets]
    encoded: Any = SimpleNamespace(images_ND=vectors)
    models: Any = {"zero_shot": Encoder(knows_words=True), "start": Encoder(knows_words=False)}
    figures = among_ill_figures(TASK, labels, models, dict.fromkeys(models, encoded), list(range(80)), 50)
    own, before = (figures[AMONG_ILL]["effusion against atelectasis"][name] for name in models)
    assert own["low"] > own["chance"] == 0.5
    assert before["value"] == pytest.approx(0.5, abs=0.02)
    assert among_ill_figures(load_task("modality"), [], models, {}, [], 50) == {}
