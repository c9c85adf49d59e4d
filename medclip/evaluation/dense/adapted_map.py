"""How near an adapted map comes to the masks of the test patients, beside position alone; intervals over patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from medclip.adaptation.maps.learn import MapRun, TestedMap
from medclip.models.packs.card import training_hashes
from medclip.statistics.estimate import NUM_RESAMPLES, Change, Figure
from medclip.statistics.metrics.classification import numbered
from medclip.statistics.metrics.masks import DISTANCES, TITLES, dice_and_iou, mask_figures, mask_mean
from medclip.statistics.resampling.resampled import difference, interval_of
from medclip.statistics.resampling.weights import draw_weights
from medclip.wording import count, estimate

FEWEST = 2
"""Test patients, of fewer of whom nothing is measured."""
_POSITION = "position"


@dataclass(frozen=True)
class MapFigures:
    """All figures of an adaptation to a map."""

    figures: Mapping[str, Figure]
    """By metric, of `medclip.statistics.metrics.masks.TITLES`: means over images in which something is true, of their
    own pixels; the last over those in which nothing is, where there are any."""
    position: Figure
    """Dice of the masks' mean, which sees no image."""
    above_position: Change
    """Dice less that, paired."""
    num_images: int
    num_patients: int
    num_empty: int
    """Images in which nothing is true."""
    num_in_training: int | None
    """Test images that the base was trained on, without masks; None where it lists no files."""

    @property
    def line(self) -> str:
        """The first figure in words."""
        return f"Dice {_shown(self.figures['dice'])}, position alone {_shown(self.position)}"

    @property
    def metrics(self) -> dict[str, Any]:
        """Return the figures as a card holds them."""
        counts = {"num_patients": self.num_patients, "num_images": self.num_images}
        entries: dict[str, Any] = {name: {"adapted": asdict(one) | counts} for name, one in self.figures.items()}
        entries["dice"]["position_alone"] = asdict(self.position)
        return entries

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the table that stands for the run."""
        every = {**self.figures, "dice of position alone": self.position, "dice less position": self.above_position}
        return [{"metric": name, "value": one.value, "low": one.low, "high": one.high} for name, one in every.items()]

    def lines(self) -> tuple[str, ...]:
        """Return a table in plain text, and what has to be known beside it."""
        rows = [(TITLES[name], _shown(one)) for name, one in self.figures.items()]
        rows += [("Dice of position alone", _shown(self.position)), ("difference", _shown(self.above_position))]
        width = max(len(title) for title, _ in rows)
        of = f"{count(self.num_images, 'image')} of {count(self.num_patients, 'patient')}"
        lines = [f"{title:{width}}  {text}" for title, text in rows]
        lines.append(f"Over {of} that nothing was learned from, in their own pixels; intervals resample patients.")
        if self.above_position.low is None or self.above_position.low <= 0:
            lines.append("It is not told from the mean of the masks, which never sees an image: do not use it.")
        if self.num_empty:
            lines.append(f"In {count(self.num_empty, 'image')} nothing is true: they count for their own figure alone.")
        if self.num_in_training:
            lines.append(f"{count(self.num_in_training, 'image')} of them trained the base, without masks.")
        return tuple(lines)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


def measure_map(run: MapRun, *, num_resamples: int = NUM_RESAMPLES) -> MapFigures | None:
    """Measure a run on its test patients.

    Args:
        run: Finished run, from `medclip.adapt` with masks.
        num_resamples: Resamples of patients.

    Returns:
        The figures; None for fewer than two test patients with a structure.
    """
    patients_N = numbered([one.patient for one in run.tested])
    num_patients = len(set(patients_N.tolist()))
    scores = [_scores(one) for one in run.tested]
    values = {name: np.array([one[name] for one in scores]) for name in (scores[0] if scores else ())}
    if not values or len(set(patients_N[~np.isnan(values["dice"])].tolist())) < FEWEST:
        return None
    weights_PB = draw_weights(num_patients, num_resamples, seed=0)
    shown = [name for name in TITLES if name not in DISTANCES and not np.isnan(values[name]).all()]
    means = {name: mask_mean(name, values[name], patients_N, weights_PB) for name in shown}
    dice, position = means["dice"], mask_mean("dice", values[_POSITION], patients_N, weights_PB)
    figures = {name: Figure.of(interval_of(one)) for name, one in means.items()}
    model = run.adapted.model
    seen = training_hashes(model.path, model.card)
    return MapFigures(
        figures=figures,
        position=Figure.of(interval_of(position)),
        above_position=Change.of(difference(position, dice)),
        num_images=len(run.tested),
        num_patients=num_patients,
        num_empty=int((~np.isnan(values["empty_marked"])).sum()),
        num_in_training=None if seen is None else sum(one.image.sha256 in seen for one in run.tested),
    )


def _scores(one: TestedMap) -> dict[str, float]:
    """Return the figures of one image, and the Dice of position."""
    truth, shown = one.image.mask(), one.image.shown
    assert shown is not None
    of_position = dice_and_iou(shown.to_mask(one.position_LL), truth)[0]
    return mask_figures(shown.to_mask(one.margin_hw), truth) | {_POSITION: of_position}


def _shown(one: Figure | Change) -> str:
    return estimate(one.value, one.low, one.high, decimals=2)
