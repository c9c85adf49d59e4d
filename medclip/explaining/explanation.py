"""What is known of units after they were explained: maps, scores and checks of the maps; what `explain` returns."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import Problem
from medclip.exit_codes import ExitCode
from medclip.explaining.explainers import NONE, OWN, Empty
from medclip.imaging.geometry import Placement
from medclip.result import Result, named_counts
from medclip.wording import capital, figure, list_of, percent

INSENSITIVE = 0.9
"""Correlation with the map of another question from which on a map counts as insensitive to the words."""
STUCK = 0.5
"""Correlation with the map of an all-random tower from which on a map is said to show the image and not the model."""


@dataclass(frozen=True)
class Randomised:
    """The map after the upper part of the tower was re-initialised."""

    from_block: str
    """Everything from here to the top has random weights."""
    correlation: float | None
    """Spearman's, with the map of the model as it is; None where a map is even."""


@dataclass(frozen=True)
class Curve:
    """The score while patches come or go, in one order."""

    order: str
    """"map", "random" or "centre"."""
    insertion: tuple[float, ...]
    """Score with 0 %, 5 %, ... 100 % of the patches on a blurred image."""
    deletion: tuple[float, ...]
    """Score without them."""

    @property
    def insertion_area(self) -> float:
        """Mean score of the insertion: the higher, the better the order."""
        return _area(self.insertion)

    @property
    def deletion_area(self) -> float:
        """Mean score of the deletion: the lower, the better the order."""
        return _area(self.deletion)

    @property
    def gain(self) -> float:
        """Whether the score rises early and falls early along the order, both together: orders are compared by it."""
        return self.insertion_area - self.deletion_area


def _area(curve: Sequence[float]) -> float:
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))


@dataclass(frozen=True)
class Sensitivity:
    """The map against that of the least related question."""

    other: str
    """The class of that question, or its prompt."""
    task: str
    """Its task, which need not be about findings: a pack may know nothing less related than another view or grade."""
    correlation: float | None
    """Spearman's; None where a map is even all over."""

    @property
    def is_insensitive(self) -> bool:
        """Whether both maps are so alike that the map does not depend on what is asked."""
        return self.correlation is not None and self.correlation >= INSENSITIVE

    @property
    def question(self) -> str:
        """The other question in words: a class with its task.

        Example:
            >>> Sensitivity("pa", "chest_xray_view", 0.9).question
            '“pa” (chest xray view)'
        """
        return f"“{self.other.replace('_', ' ')}” ({self.task.replace('_', ' ')})"


@dataclass(frozen=True)
class Verdict:
    """What one check says of a map."""

    check: str
    """"random weights", "insertion and deletion" or "least related question"."""
    passed: bool
    sentence: str


@dataclass(frozen=True, eq=False)
class HeatMap:
    """The maps of one score."""

    name: str
    """The prompt or the class."""
    against: str
    title: str
    """Both in one line."""
    task: str
    score: float
    """Logit of the unit, as scoring has it."""
    scores: tuple[float, ...]
    """Of each image."""
    grids: tuple[NDArray[np.float32], ...]
    """[rows, columns] of the tower's grid, from 0."""
    empty: tuple[Empty, ...]
    padding: tuple[float, ...]
    """Share of each map's sum that lies on padding, where there is no image."""
    method: str
    layer: str
    top: int
    """The image that carries most: of the highest score."""
    randomised: tuple[Randomised, ...] = ()
    """Of the top image's map; () where checks were left out or the map is empty."""
    curves: tuple[Curve, ...] = ()
    sensitivity: Sensitivity | None = None
    caution: str = ""
    """Why the answer is grey, as the tables of a run have it: "within its source only (nih_cxr)", "Not learned: ...";
    empty for one like any other."""
    figures: tuple[Mapping[str, Any], ...] = ()
    """What the card says of how good such answers are, as `Target.figures`."""

    @property
    def probability(self) -> float | None:
        """As scoring gives it; None where the score is compared with nothing."""
        return float(1 / (1 + np.exp(-self.score))) if self.against else None

    @property
    def is_empty(self) -> bool:
        """Whether no image has a map."""
        return all(self.empty)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What each check that was made says of the map."""
        verdicts = []
        if self.sensitivity is not None:
            other, stuck = self.sensitivity, self.sensitivity.is_insensitive
            verdicts.append(
                Verdict(
                    "least related question",
                    not stuck,
                    f"Text-insensitive: the map of {other.question}, the least related question, is almost the same "
                    f"(correlation {figure(other.correlation)})."
                    if stuck
                    else f"The map depends on what is asked: that of {other.question}, the least related question, has "
                    f"a correlation of {figure(other.correlation)} with it, and from {INSENSITIVE} on it would not.",
                )
            )
        if self.randomised:
            correlation = self.randomised[-1].correlation
            stuck = (correlation or 0.0) >= STUCK
            verdicts.append(
                Verdict(
                    "random weights",
                    not stuck,
                    f"The map hardly changes when all weights are random (correlation {figure(correlation)}): it shows "
                    "the image, not the model."
                    if stuck
                    else f"The map changes with the weights: with all of them random its correlation is "
                    f"{figure(correlation)}, below {STUCK}.",
                )
            )
        if curves := {curve.order: curve for curve in self.curves}:
            names = {"random": "a random order", "centre": "going from the middle outwards"}
            worse = [names[other] for other in names if not curves["map"].gain > curves[other].gain]
            verdicts.append(
                Verdict(
                    "insertion and deletion",
                    not worse,
                    f"The score does not follow the map better than {list_of(worse, 'or')}."
                    if worse
                    else f"The score follows the map better than {list_of(list(names.values()))}.",
                )
            )
        return tuple(verdicts)

    def facts(self) -> dict[str, Any]:
        """Return all but the arrays, as JSON holds it."""
        return {
            "prompt": self.name,
            "against": self.against or None,
            "task": self.task,
            "score": round(self.score, 6),
            "probability": None if self.probability is None else round(self.probability, 6),
            "caution": self.caution or None,
            "card_figures": [dict(one) for one in self.figures],
            "score_of_each_image": [round(score, 6) for score in self.scores],
            "method": self.method,
            "layer": self.layer,
            "grid": [list(grid.shape) for grid in self.grids][:1][0],
            "map_is_empty": [why or None for why in self.empty],
            "share_of_map_on_padding": [round(share, 6) for share in self.padding],
            "image_that_carries_most": self.top,
            "verdicts": [vars(one) for one in self.verdicts],
            "sanity_check": [vars(one) for one in self.randomised],
            "prompt_sensitivity": None
            if self.sensitivity is None
            else {**vars(self.sensitivity), "text_insensitive": self.sensitivity.is_insensitive},
            "insertion_and_deletion": [
                {**vars(c), "insertion_area": round(c.insertion_area, 6), "deletion_area": round(c.deletion_area, 6)}
                for c in self.curves
            ],
        }


@dataclass(frozen=True, eq=False)
class Explanation:
    """One unit: an image, a series, a slide, a record."""

    row: int
    """Its number, from 1."""
    file: str
    """Name of its first file, as it was found."""
    kind: str = ""
    modality: str | None = None
    labels: tuple[str, ...] = ()
    """What each image is; "" for the only one."""
    placements: tuple[Placement, ...] = ()
    """Where each image lies in what the model was shown of it."""
    burned_in: bool = False
    sha256: str = ""
    adapter: str = ""
    preprocessing: str = ""
    steps: tuple[tuple[str, str], ...] = ()
    maps: tuple[HeatMap, ...] = ()
    scale: str = OWN
    checks: str = NONE
    """Which checks were made: one of `CHECKS`."""
    overlay: bytes = field(default=b"", repr=False)
    """PNG."""
    leads: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Of an ECG: share of each prompt's map that lies on each lead."""
    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Of an ECG that the model takes as a signal: share of each prompt's map that lies on each second."""
    problem: Problem | None = None

    @property
    def status(self) -> str:
        """Either explained, empty (no map shows anything), skipped or failed."""
        if self.problem is not None:
            return str(self.problem.status)
        return "empty" if all(heat.is_empty for heat in self.maps) else "explained"

    @property
    def message(self) -> str:
        """Why there is no map; "" where there is one."""
        if self.problem is not None:
            return self.problem.message
        reasons = dict.fromkeys(_EMPTY[why] for heat in self.maps for why in heat.empty if why)
        return capital("; ".join(reasons)) if self.status == "empty" else ""

    def in_image(self, heat: HeatMap, number: int) -> NDArray[np.float32]:
        """Return a map in the image's own coordinates, float32 [H, W]: NaN where the model saw nothing.

        Of an ECG that the model takes as a signal these are leads and samples.
        """
        place, grid = self.placements[number], heat.grids[number]
        if self.seconds:  # a lead is no neighbour of the next
            return grid[:, np.arange(place.width) * grid.shape[1] // place.width]
        return place.map_to_image(grid)

    def in_images(self) -> dict[str, tuple[NDArray[np.float32], ...]]:
        """Return the maps of each prompt in the coordinates of its images."""
        return {h.title: tuple(self.in_image(h, n) for n in range(len(h.grids))) for h in self.maps}

    def facts(self) -> dict[str, Any]:
        """Return all but the arrays, as JSON holds it."""
        problem = self.problem
        row: dict[str, Any] = {
            "row": self.row,
            "file": self.file,
            "status": self.status,
            "reason": None if problem is None else str(problem.reason),
            "message": self.message or None,
        }
        if problem is not None:
            return row
        return {
            **row,
            "kind": self.kind,
            "modality": self.modality,
            "sha256": self.sha256,
            "images": [
                {
                    "what": label or None,
                    "size_px": [place.height, place.width],
                    "share_seen_by_the_model": round(place.share_seen, 6),
                }
                for label, place in zip(self.labels, self.placements, strict=True)
            ],
            "coordinates": "leads (I, II, III, aVR, aVL, aVF, V1 to V6) and samples behind the adapter's steps"
            if self.seconds
            else "rows and columns of the image behind the adapter's steps",
            "adapter": self.adapter,
            "preprocessing": self.preprocessing,
            "steps": [list(step) for step in self.steps],
            "colour_scale": self.scale,
            "checks": self.checks,
            "maps": [heat.facts() for heat in self.maps],
            **({"share_of_map_on_each_lead": self.leads} if self.leads else {}),
            **({"share_of_map_on_each_second": self.seconds} if self.seconds else {}),
        }


_EMPTY: Mapping[str, str] = {
    "zero gradient": "the gradient of the score is zero everywhere in the image, so that there is no map",
    "nothing raises it": "nothing in the image raises the score, so that the map is empty",
}


def share_on_padding(grid: NDArray[np.float32], place: Placement) -> float:
    """Return the share of a map's sum that lies on padding; cells that reach into it count in part."""
    total = float(grid.sum())
    return 0.0 if total <= 0 else float((grid * (1 - image_share(grid.shape, place))).sum()) / total


def image_share(grid: Sequence[int], place: Placement) -> NDArray[np.float64]:
    """Return how much of each cell of a grid shows image: [rows, columns], from 0 to 1."""
    box = place.filled
    rows, columns = (
        np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None) / (edges[1] - edges[0])
        for edges, low, high in (
            (np.linspace(0, place.shown_height, grid[0] + 1), box.top, box.bottom),
            (np.linspace(0, place.shown_width, grid[1] + 1), box.left, box.right),
        )
    )
    return rows[:, None] * columns


_SHOWN = 8
"""Overlays in a notebook."""
_MOSTLY = 0.5
"""Share of a map on padding from which on it is said of the whole result."""


def padding_notes(units: Iterable[Explanation]) -> tuple[str, ...]:
    """Write which maps lie mostly where there is no image, by the image that carries most of the score."""
    return tuple(
        f"Row {unit.row}: {percent(heat.padding[heat.top])} of the map of {heat.title} lies on padding, where there is "
        "no image: it does not show what the score rests on."
        for unit in units
        for heat in unit.maps
        if heat.padding[heat.top] > _MOSTLY
    )


@dataclass(frozen=True, repr=False, eq=False)
class Explained(Result):
    """Heat maps of what scores rest on."""

    units: tuple[Explanation, ...]
    model: str
    """Name and version of the pack."""
    pack: str
    """Hash of its manifest."""
    notes: tuple[str, ...] = ()
    """What is worth knowing of what was asked, such as a prompt that was cut."""
    out: Path | None = None
    """Folder that was written."""

    def __len__(self) -> int:
        return len(self.units)

    def __iter__(self) -> Iterator[Explanation]:
        return iter(self.units)

    def __getitem__(self, index: int) -> Explanation:
        return self.units[index]

    @property
    def maps(self) -> tuple[dict[str, tuple[NDArray[np.float32], ...]], ...]:
        """For each unit the maps of each prompt, one for each image: float32 [H, W] in the image's own coordinates.

        NaN stands where the model saw nothing.
        """
        return tuple(unit.in_images() for unit in self.units)

    @property
    def counts(self) -> dict[str, int]:
        """Units by status: explained, empty, skipped, failed."""
        return dict(Counter(unit.status for unit in self.units))

    @property
    def exit_code(self) -> ExitCode:
        """0 where every unit has a map; 3 where one failed or its maps are empty."""
        bad = any(unit.status in ("failed", "empty") for unit in self.units)
        return ExitCode.SOME_FAILED if bad else ExitCode.COMPLETE

    def facts(self) -> dict[str, Any]:
        """Return all but the arrays and images, as explain.json holds it."""
        return {
            "model": self.model,
            "pack": self.pack,
            "what_it_is": "model attention evidence: no localisation, no cause, no diagnosis",
            "notes": list(self.notes),
            "counts": self.counts,
            "rows": [unit.facts() for unit in self.units],
        }

    def _facts(self) -> dict[str, object]:
        heats = [heat for unit in self.units for heat in unit.maps]
        grey = dict.fromkeys(f"{heat.name}: {heat.caution}" for heat in heats if heat.caution)
        return {
            "units": named_counts(self.counts),
            "prompts": "; ".join(dict.fromkeys(heat.title for heat in heats)) or "none",
            **({"grey": "; ".join(grey)} if grey else {}),
            "method": ", ".join(dict.fromkeys(f"{heat.method} at {heat.layer}" for heat in heats)) or "none",
            "model": self.model,
            "notes": "; ".join(self.notes) or "none",
            "out": self.out or "nothing was written",
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for unit in self.units:
            shared = {"row": unit.row, "modality": unit.modality, "kind": unit.kind, "status": unit.status}
            if not unit.maps:
                nothing = dict.fromkeys(("prompt", "against", "score"))
                rows.append({**shared, **nothing, "message": unit.message, "caution": None})
            for heat in unit.maps:
                what = {"prompt": heat.name, "against": heat.against, "score": heat.score}
                rows.append({**shared, **what, "message": unit.message, "caution": heat.caution or None})
        return rows[:most]

    def _caution(self, row: Mapping[str, Any]) -> str:
        return row["caution"] or ""

    def _repr_html_(self) -> str:
        """Return the overlays before the facts."""
        images = "".join(
            f'<img style="max-width:100%" alt="Heat map of row {unit.row}" '
            f'src="data:image/png;base64,{base64.b64encode(unit.overlay).decode()}">'
            for unit in self.units[:_SHOWN]
            if unit.overlay
        )
        warning = "Model attention evidence: no localisation, no cause, no diagnosis."
        return f"{images}<p>{escape(warning)}</p>{super()._repr_html_()}"
