"""Explain one unit: read it, compute its maps, check them, draw them.

- Re-initialised blocks: a map that stays the same when the weights are random shows the image and not the model
  (Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018).
- Insertion and deletion: the score should move faster along the map than in a random order (Petsiuk et al., RISE,
  BMVC 2018), and faster than along a map that knows only where the middle is.
- Prompt sensitivity: a map that is the same for the least related question answers no question.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medclip.errors import MedclipError, Reason
from medclip.explaining.explainers import ALL, NONE, QUICK, ExplainOptions
from medclip.explaining.explanation import (
    Curve,
    Explanation,
    HeatMap,
    Randomised,
    Sensitivity,
    image_share,
    share_on_padding,
)
from medclip.explaining.maps import Maps, compute_maps
from medclip.explaining.overlay import draw_overlay
from medclip.explaining.records import flat_lines, is_present
from medclip.explaining.seen import Seen
from medclip.explaining.target import Target
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.sample import Kind, Modality

if TYPE_CHECKING:
    from medclip.imaging.geometry import Placement
    from medclip.models.model import Model


NUM_STEPS = 20
"""Of a curve: 5 % of the patches each."""
_PASSES_OF_ORDER = 2 * (NUM_STEPS - 1)
"""Of an order of patches, inserted and removed, without the image and its blur; a random order and its reverse share
theirs, and all maps of an image share those of random and from the middle out."""
_MEASURED = 4
"""Images of one pass that is timed: those of a curve go together, too."""
_TIMED, _TIMES = 1.0, 4
"""Seconds and times after which a piece of work is not timed again."""
_SLOW = 5.0
"""A unit that takes longer is not explained again for its time: what is paid once matters little."""
_MOST_DEPTHS = 8
_BLUR = 16
"""Side of the model's input over the deviation of the blur that stands for a removed patch."""


def rank_correlation(one: NDArray[Any], other: NDArray[Any]) -> float | None:
    """Return Spearman's correlation of two maps; None where one is even all over.

    Example:
        >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 9.0]))
        1.0
    """
    from scipy.stats import spearmanr

    a, b = np.ravel(one), np.ravel(other)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return round(float(np.asarray(spearmanr(a, b))[0]), 6)


def randomisation(
    model: Any, image: Any, maps: Sequence[Maps], number: int, *, seed: int = 0, last_only: bool = False
) -> list[tuple[Randomised, ...]]:
    """Re-initialise the image tower from the top down and compare the maps of one image.

    Args:
        model: The loaded model; it is not changed.
        image: The one image, as `Preprocess.together` puts it.
        maps: Maps of each score, as they were computed.
        number: Number of the image among those of `maps`.
        seed: Seed of the random weights.
        last_only: Whether maps are computed of the tower that is random all over alone.

    Returns:
        For each score the depths, the highest first.
    """
    tower = copy.deepcopy(model.clip.visual)
    generator = torch.Generator().manual_seed(seed)
    targets, results = [one.target for one in maps], [[] for _ in maps]
    depths = _from_the_top(tower)
    for names in depths:
        for name in names:
            shuffle_weights(tower.get_parameter(name), generator)
        if last_only and names is not depths[-1]:
            continue
        again = compute_maps(model, image, targets, maps[0].method, visual=tower)
        for before, after, result in zip(maps, again, results, strict=True):
            result.append(Randomised(_block_of(names[-1]), rank_correlation(before.grids[number], after.grids[0])))
    return [tuple(result) for result in results]


def shuffle_weights(parameter: nn.Parameter, generator: torch.Generator) -> None:
    """Re-initialise weights in place by shuffling them: random, and of the size that the layers after them expect."""
    with torch.no_grad():
        order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))


def _from_the_top(tower: nn.Module) -> list[list[str]]:
    """Return the names of the parameters of each block, the last first, in `_MOST_DEPTHS` groups at most."""
    blocks: dict[str, list[str]] = {}
    for name, _ in tower.named_parameters():
        blocks.setdefault(_block_of(name), []).append(name)
    ordered = sorted(blocks.values(), key=lambda names: _depth(tower, names[0]), reverse=True)
    groups = np.array_split(np.arange(len(ordered)), min(_MOST_DEPTHS, len(ordered)))
    return [[name for n in group for name in ordered[n]] for group in groups]


def _block_of(name: str) -> str:
    """Return the block of a parameter: up to its first number, else its module."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: place + 1])
    return ".".join(parts[:-1]) or name


def _depth(tower: nn.Module, name: str) -> tuple[int, int]:
    """Return where a parameter stands from the image to the features: single tensors of the tower are at the bottom
    (tokens, positions), but for the projection.
    """
    names = [other for other, _ in tower.named_parameters()]
    bare = "." not in name or (name.count(".") == 1 and not name.endswith(("weight", "bias", "gamma")))
    return (2 if name == "proj" else 0 if bare else 1), names.index(name)


class Occlusions:
    """One image with some of its patches blurred, or an ECG with seconds of its leads flat.

    Each set of patches goes through the model once, whatever is asked.

    Args:
        model: The loaded model.
        image: Image as the model is shown it, uint8 [H, W, 3]; of an ECG int16 [12, T].
        inside: Whether each place of the map's grid shows image; those of padding stay as they are.
    """

    def __init__(self, model: Any, image: NDArray[np.uint8], inside: NDArray[np.bool_]) -> None:
        self.inside, self._model, self._image = inside, model, image
        self._blurred = _removed(image)
        self._cells = _cells((image.shape[0], image.shape[1]), (inside.shape[0], inside.shape[1]))
        self._features: dict[bytes, NDArray[np.float32]] = {}

    def features(self, shown_NP: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the features, float32 [N, D], of the image with these of its P places shown and the others blurred."""
        shown_NP = shown_NP | ~self.inside.ravel()
        keys = [visible.tobytes() for visible in shown_NP]
        missing = [(key, s) for key, s in dict(zip(keys, shown_NP, strict=True)).items() if key not in self._features]
        for start in range(0, len(missing), NUM_STEPS):
            part = missing[start : start + NUM_STEPS]
            axes = (...,) if self._image.ndim == 2 else (..., None)
            images = [np.where(visible[self._cells][axes], self._image, self._blurred) for _, visible in part]
            vectors = self._model.encode_image(self._model.preprocess.together(images))
            self._features.update(zip([key for key, _ in part], vectors, strict=True))
        return np.stack([self._features[key] for key in keys])


def _removed(image: NDArray[Any]) -> NDArray[Any]:
    """Return the image without what it shows: blurred; of an ECG flat lines."""
    if image.ndim == 2:
        return flat_lines(image)
    from PIL import Image, ImageFilter

    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(max(image.shape[:2]) / _BLUR)))


def curves(occlusions: Occlusions, grid: NDArray[np.float32], target: Target, *, seed: int = 0) -> tuple[Curve, ...]:
    """Compute insertion and deletion in the order of the map, at random and from the middle out.

    At random is the mean of an order and its reverse: what one inserts the other one leaves, so that both together cost
    as much as one.
    """
    places = np.flatnonzero(occlusions.inside)
    shuffled = np.random.default_rng(seed).permutation(places)
    orders = {
        "map": [places[np.argsort(-grid.ravel()[places], kind="stable")]],
        "random": [shuffled, shuffled[::-1]],
        "centre": [places[np.argsort(-centre_prior(occlusions.inside).ravel()[places], kind="stable")]],
    }
    results = []
    for name, several in orders.items():
        lines = []
        for order in several:
            inserted_NP = np.zeros((NUM_STEPS + 1, occlusions.inside.size), bool)
            for n, visible in enumerate(inserted_NP):
                visible[order[: round(len(order) * n / NUM_STEPS)]] = True
            values = target.score(occlusions.features(np.concatenate([inserted_NP, ~inserted_NP])))
            lines.append(np.split(values, 2))
        insertion, deletion = np.mean(lines, axis=0)
        results.append(Curve(name, tuple(map(_short, insertion)), tuple(map(_short, deletion))))
    return tuple(results)


def centre_prior(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return a map that knows nothing but where the middle of the image is: a bell over the places that show it.

    Example:
        >>> prior = centre_prior(np.ones((5, 5), bool))
        >>> int(prior.argmax()), float(prior.max())
        (12, 1.0)
    """
    rows, columns = np.nonzero(inside)
    middle = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
    spread = max(1e-9, np.ptp(rows) / 4), max(1e-9, np.ptp(columns) / 4)
    y, x = np.indices(inside.shape)
    return np.exp(-(((y - middle[0]) / spread[0]) ** 2 + ((x - middle[1]) / spread[1]) ** 2) / 2) * inside


def _cells(size: tuple[int, int], grid: tuple[int, int]) -> NDArray[np.intp]:
    """Return the number of the place that each pixel belongs to, [H, W]."""
    rows, columns = (np.arange(pixels) * places // pixels for pixels, places in zip(size, grid, strict=True))
    return rows[:, None] * grid[1] + columns


def _short(value: float) -> float:
    return round(float(value), 5)


@dataclass(frozen=True)
class Cost:
    """What maps cost, as measured on one image."""

    unit_s: float
    """Of a unit of one image: all of its maps, drawn, without checks."""
    map_s: float
    """Of one map of one image."""
    pass_s: float
    """Of one image through the model, without gradients."""
    random_s: float
    """Of making all weights random, once for the image that carries most."""

    def seconds(self, num_images: int, num_scores: int, checks: str) -> float:
        """Return the expected time of a unit's maps, and of their checks on the image that carries most."""
        maps_s = self.unit_s + (num_images - 1) * (num_scores * self.map_s + self.pass_s)
        if checks == NONE:
            return maps_s
        if checks == QUICK:
            return maps_s + 2 * num_scores * self.map_s + self.random_s
        num_passes = 2 + (2 + num_scores) * _PASSES_OF_ORDER
        return maps_s + (1 + _MOST_DEPTHS) * num_scores * self.map_s + num_passes * self.pass_s + self.random_s


def measure_cost(model: Model, seen: Seen, wanted: Asked, options: ExplainOptions) -> tuple[Cost, int]:
    """Explain the first image of a unit for its time, a few times if it is quick.

    Returns:
        The cost, and how many scores of the unit are explained.

    Raises:
        MedclipError: As `explain_unit`.
    """
    one = model.preprocess.together([seen.images[0]])
    first = replace(
        seen, images=one, sizes=seen.sizes[:1], shown=seen.shown[:1], labels=seen.labels[:1], boxes=seen.boxes[:1]
    )
    unchecked = replace(options, checks=NONE)
    targets = wanted.of(model.encode_image(one), seen.modality, seen.kind)

    def unit() -> object:
        return explain_unit(model, first, wanted, unchecked, row=1, file="")

    first_s = _seconds(unit)  # with what is paid once: libraries, words
    several = model.preprocess.together([seen.images[0]] * _MEASURED)
    cost = Cost(
        first_s if first_s > _SLOW else _usual(unit),
        _usual(lambda: compute_maps(model, one, targets[:1], options.method)),
        _usual(lambda: model.encode_image(several)) / _MEASURED,
        _randomising(model.clip.get_submodule("visual")),
    )
    return cost, len(targets)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _usual(work: Callable[[], object]) -> float:
    """Return the seconds of some work: the median of a few times within a second, as machines are busy now and then."""
    taken = [_seconds(work)]
    while sum(taken) < _TIMED and len(taken) < _TIMES:
        taken.append(_seconds(work))
    return statistics.median(taken)


def _randomising(tower: nn.Module) -> float:
    """Return the seconds of making all weights of a tower random, from those of its largest tensor."""
    parameters = list(tower.parameters())
    largest = copy.deepcopy(max(parameters, key=torch.numel))
    seconds = _seconds(lambda: shuffle_weights(largest, torch.Generator().manual_seed(0)))
    return seconds * sum(map(torch.numel, parameters)) / largest.numel()


class Asked(Protocol):
    """What is asked of a unit."""

    def of(self, features_VD: NDArray[np.float32], modality: Modality | None, kind: Kind) -> tuple[Target, ...]:
        """Return what is explained."""
        ...

    def least_related(self, target: Target, feature_D: NDArray[np.float32], modality: Modality | None) -> Target | None:
        """Return what can be asked that has least to do with it."""
        ...


def explain_unit(
    model: Model, seen: Seen, wanted: Asked, options: ExplainOptions, *, row: int, file: str, draw: bool = True
) -> Explanation:
    """Explain one unit.

    Args:
        model: The loaded model.
        seen: Unit as reading left it.
        wanted: Questions that are asked.
        options: Options of explaining.
        row: Number of the unit, from 1.
        file: Name of the unit's first file.
        draw: Whether the overlay is drawn.

    Raises:
        MedclipError: NO_TASK where no question fits; NON_FINITE; NOT_SUPPORTED_YET for a tower that is not understood.
    """
    features_VD = model.encode_image(seen.images)
    if not np.isfinite(features_VD).all():
        raise MedclipError(Reason.NON_FINITE, "the model's features of this image are not finite numbers.")
    targets = wanted.of(features_VD, seen.modality, seen.kind)
    places = tuple(model.preprocess.placement(*size) for size in seen.sizes)
    all_maps = compute_maps(model, seen.images, targets, options.method)
    checked = _checks(model, seen, features_VD, all_maps, places, wanted, options) if options.checks != NONE else {}
    heat_maps = [
        HeatMap(
            maps.target.name,
            maps.target.against,
            maps.target.title,
            maps.target.task,
            maps.target.unit_score(features_VD),
            tuple(map(float, maps.scores_V)),
            maps.grids,
            maps.empty,
            tuple(share_on_padding(grid, place) for grid, place in zip(maps.grids, places, strict=True)),
            maps.method,
            maps.layer,
            _top(maps),
            caution=maps.target.caution,
            figures=maps.target.figures,
            **checked.get(number, {}),
        )
        for number, maps in enumerate(all_maps)
    ]
    plain = Explanation(
        row=row,
        file=file,
        kind=str(seen.kind),
        modality=None if seen.modality is None else str(seen.modality),
        labels=seen.labels,
        placements=places,
        burned_in=seen.burned_in,
        sha256=seen.sha256,
        adapter=seen.adapter,
        preprocessing=seen.preprocessing,
        steps=seen.steps,
        maps=tuple(heat_maps),
        scale=options.scale,
        checks=options.checks,
    )
    if seen.sheet is not None:
        shares = {heat.title: _shares(heat.grids[0]) for heat in plain.maps}
        plain = replace(
            plain, seconds={title: [round(s, 4) for s in part.sum(0).tolist()] for title, part in shares.items()}
        )
        leads = {title: dict(zip(TWELVE, part.sum(1).round(4).tolist(), strict=True)) for title, part in shares.items()}
    else:
        leads = {} if seen.kind.value != "signal" else {h.title: share_on_leads(plain, h) for h in plain.maps}
    return replace(plain, overlay=draw_overlay(plain, seen) if draw else b"", leads=leads)


def _shares(grid: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return what each place of a map has of its sum; zeros for an empty map."""
    return grid.astype(np.float64) / max(float(grid.sum()), 1e-12)


def _top(maps: Maps) -> int:
    """Return which image carries most."""
    return int(np.argmax(maps.scores_V))


def _checks(
    model: Model,
    seen: Seen,
    features_VD: NDArray[np.float32],
    all_maps: Sequence[Maps],
    places: Sequence[Placement],
    wanted: Asked,
    options: ExplainOptions,
) -> dict[int, dict[str, Any]]:
    """Check of each score the map of the image that carries most, unless it is empty.

    What does not depend on what is asked is done once for all scores of an image.
    """
    results: dict[int, dict[str, Any]] = {}
    for top in sorted({_top(maps) for maps in all_maps}):
        numbers = [n for n, maps in enumerate(all_maps) if _top(maps) == top and not maps.empty[top]]
        if not numbers:
            continue
        of_image = [all_maps[n] for n in numbers]
        one = model.preprocess.together([seen.images[top]])
        inside = image_share(of_image[0].grids[top].shape, places[top]) > 0
        if seen.sheet is not None:
            inside &= is_present(seen.images[top])[:, None]
        occlusions = Occlusions(model, seen.images[top], inside)
        is_quick = options.checks != ALL
        randomised = randomisation(model, one, of_image, top, seed=options.seed, last_only=is_quick)
        for number, maps, depths in zip(numbers, of_image, randomised, strict=True):
            other = wanted.least_related(maps.target, features_VD[top], seen.modality)
            sensitivity = None
            if other is not None:
                elsewhere = compute_maps(model, one, [other], maps.method)[0].grids[0]
                sensitivity = Sensitivity(other.name, other.task, rank_correlation(maps.grids[top], elsewhere))
            results[number] = {
                "randomised": depths,
                "curves": () if is_quick else curves(occlusions, maps.grids[top], maps.target, seed=options.seed),
                "sensitivity": sensitivity,
            }
    return results


def share_on_leads(explanation: Explanation, heat: HeatMap) -> Mapping[str, float]:
    """Return how much of an ECG's maps lies on each lead: a cutting of the sheet shows three, one below the other.

    The images count by the sum of their maps; the shares sum to 1 unless all maps are empty.
    """
    sums: dict[str, float] = {}
    for number, label in enumerate(explanation.labels):
        names = label.removeprefix("leads ").split(", ") if label.startswith("leads ") else [label]
        values = np.nan_to_num(explanation.in_image(heat, number)) / max(1, explanation.placements[number].height)
        bands = np.array_split(values, len(names), axis=0)
        sums |= {name: float(band.sum()) for name, band in zip(names, bands, strict=True)}
    total = sum(sums.values())
    return {name: round(value / total, 4) if total > 0 else 0.0 for name, value in sums.items()}
