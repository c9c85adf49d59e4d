"""Measure what a head learns of a set's masks on each tower, by share of labels: Dice with intervals over patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.maps.decoders import margins, position_margin, train_head
from medclip.adaptation.maps.feature_maps import FeatureMaps, encode_maps
from medclip.errors import MedclipError, Reason
from medclip.evaluation.dense.figures import DenseCell, DenseExample, DenseFigures, Less
from medclip.evaluation.dense.masked_set import MaskedSet, drawn_share, held_out
from medclip.evaluation.dense.towers import OTHER, PACK, POSITION
from medclip.files.temporary_folder import TemporaryFolder
from medclip.progress import Progress
from medclip.settings import Settings
from medclip.statistics.estimate import DECIMALS, Change, Figure
from medclip.statistics.metrics.classification import numbered
from medclip.statistics.metrics.masks import dice_and_iou
from medclip.statistics.resampling.resampled import Resampled, bounded, difference, interval_of
from medclip.statistics.resampling.standard_errors import effective_patients
from medclip.statistics.resampling.sums import means
from medclip.statistics.resampling.weights import draw_weights
from medclip.wording import by_reason

if TYPE_CHECKING:
    import pyarrow as pa

    from medclip.models.model import Model

_AT_ONCE = 64
"""Feature maps that a head answers at once."""
DRAWN_PX = 512
"""Longest side of the examples."""


@dataclass(frozen=True, eq=False)
class Towers:
    """What a set is measured on."""

    models: Mapping[str, Model]
    """By name, the pack first; those with its preprocessing, and perhaps `OTHER` with another."""
    titles: Mapping[str, str]
    """What a table calls each, the baseline of position too."""
    seen: frozenset[str] | None
    """Hashes of the pack's training files; None where it does not list them."""


def measure_masks(
    towers: Towers,
    masked: MaskedSet,
    *,
    num_resamples: int,
    settings: Settings,
    progress: Progress,
) -> tuple[DenseFigures, pa.Table, dict[str, bytes]]:
    """Measure one set.

    Args:
        towers: Towers and their names.
        masked: Images and masks that are there.
        num_resamples: Resamples of patients.
        settings: Limits and reading processes.
        progress: Progress by images that were read, then by heads that were learned.

    Returns:
        The figures; Dice and IoU of each image held out, by tower, share and seed; and a PNG of each example by the
        name that the figures have of it.

    Raises:
        MedclipError: TABLE_INVALID where there are too few patients, or nothing is marked.
    """
    part, rows = masked.part, masked.rows
    with TemporaryFolder("maps") as folder:
        groups = [{n: m for n, m in towers.models.items() if n != OTHER}]
        groups += [{OTHER: towers.models[OTHER]}] if OTHER in towers.models else []
        progress.stage(part.id, len(rows) * len(groups))
        parts = []
        for number, group in enumerate(groups):
            place = Path(folder) / str(number)
            place.mkdir()
            parts.append(
                encode_maps(group, rows, str(part.modality), place, settings, progress.step, levels=part.levels)
            )
        return _measured(towers, masked, parts, num_resamples, settings, progress)


def _measured(
    towers: Towers,
    masked: MaskedSet,
    parts: Sequence[FeatureMaps],
    num_resamples: int,
    settings: Settings,
    progress: Progress,
) -> tuple[DenseFigures, pa.Table, dict[str, bytes]]:
    part, rows, first = masked.part, masked.rows, parts[0]
    problems = [next((p.images[n].problem for p in parts if p.images[n].problem), None) for n in range(len(rows))]
    good = np.flatnonzero([problem is None for problem in problems])
    has_patients = all(row.patient is not None for row in rows)
    patients = numbered([rows[n].patient if has_patients else rows[n].row for n in good])
    try:
        is_test = held_out(patients.tolist())
    except MedclipError as error:
        raise error.at(part.id) from None
    train, test = good[~is_test], good[is_test]
    marked = np.array([(first.labels[n] == 1).any() for n in train])
    if not marked.any():
        message = "nothing is marked in any of the masks to learn from."
        raise MedclipError(Reason.TABLE_INVALID, message, where=part.id, hint="A mask is white where something is.")
    truths = [first.images[n].mask() for n in test]
    if not any(truth.any() for truth in truths):
        message = "nothing is marked in any of the masks that are held out."
        raise MedclipError(Reason.TABLE_INVALID, message, where=part.id, hint="A mask is white where something is.")
    draws = {(s, d): train[drawn_share(marked, s, seed=d)] for s in part.shares for d in range(part.seeds)}
    names = [*towers.models, POSITION]
    progress.stage(f"{part.id}, heads", len(names) * len(draws))
    scores: dict[tuple[str, float, int], NDArray[np.float64]] = {}
    answers: list[NDArray[np.float32]] = []
    for name in names:
        of = parts[-1] if name == OTHER else first
        for (share, draw), chosen in draws.items():
            grids = _answers(of, name, chosen, test, draw)
            pairs = [_score(of, n, grid, truth) for n, grid, truth in zip(test, grids, truths, strict=True)]
            scores[name, share, draw] = np.array(pairs).T
            if (name, share, draw) == (PACK, part.shares[-1], 0):
                answers = grids
            progress.step(1)
    whose = numbered(patients[is_test].tolist())
    seen = np.array([towers.seen is not None and first.images[n].sha256 in towers.seen for n in test])
    cells, less = _figures(towers, scores, draws, whose, seen, num_resamples)
    best = scores[PACK, part.shares[-1], 0][0]
    examples, drawn = _examples(masked, first, test, best, answers, truths, settings)
    counts: dict[str, int] = {}
    for problem in problems:
        if problem is not None:
            counts[str(problem.reason)] = counts.get(str(problem.reason), 0) + 1
    model = towers.models[PACK]
    grid = next(iter(first.maps.values())).shape[2:]
    notes = [part.note] if part.note else []
    notes += ["The head reads maps of several depths."] if part.levels else []
    notes += [f"Not read: {by_reason(counts)}."] if counts else []
    figures = DenseFigures(
        id=part.id,
        group=part.group,
        modality=str(part.modality),
        title=part.title or part.id.replace("_", " "),
        titles={name: towers.titles[name] for name in names},
        shares=part.shares,
        images_learned={f"{s:g}": len(draws[s, 0]) for s in part.shares},
        num_seeds=part.seeds,
        num_images=len(rows),
        num_left_out=masked.num_left_out,
        num_train=len(train),
        num_test=len(test),
        num_test_patients=len(set(whose.tolist())),
        names_patients=masked.names_patients,
        num_in_training=None if towers.seen is None else int(seen.sum()),
        num_empty=sum(not truth.any() for truth in truths),
        grid=(int(grid[0]), int(grid[1])),
        size_px=model.preprocess.size_px,
        problems=dict(sorted(counts.items())),
        cells=tuple(cells),
        less=tuple(less),
        examples=tuple(examples),
        notes=tuple(notes),
    )
    return figures, _table(masked, first, test, scores), drawn


def _answers(of: FeatureMaps, name: str, chosen: NDArray[np.int64], test: NDArray[np.int64], seed: int) -> list:
    """Return for each image held out what is above 0 where a mask is expected, on a grid."""
    if name == POSITION:
        return [position_margin(np.array(of.labels[np.sort(chosen)]))] * len(test)
    head = train_head(of.maps[name], of.labels, chosen, seed=seed)
    pieces = [margins(head, of.maps[name][test[start : start + _AT_ONCE]]) for start in range(0, len(test), _AT_ONCE)]
    return [grid for piece in pieces for grid in piece]


def _predicted(of: FeatureMaps, number: int, grid: NDArray[np.float32]) -> NDArray[np.bool_]:
    shown = of.images[number].shown
    assert shown is not None
    return shown.to_mask(grid)


def _score(of: FeatureMaps, number: int, grid: NDArray[np.float32], truth: NDArray[np.bool_]) -> tuple[float, float]:
    return dice_and_iou(_predicted(of, number, grid), truth)


def _figures(
    towers: Towers,
    scores: Mapping[tuple[str, float, int], NDArray[np.float64]],
    draws: Mapping[tuple[float, int], NDArray[np.int64]],
    patients_N: NDArray[np.int64],
    seen_N: NDArray[np.bool_],
    num_resamples: int,
) -> tuple[list[DenseCell], list[Less]]:
    weights_PB = draw_weights(int(patients_N.max()) + 1, num_resamples, seed=0)
    shares = list(dict.fromkeys(share for share, _ in draws))
    num_seeds = len(draws) // len(shares)
    fresh_N = ~np.isin(patients_N, patients_N[seen_N])
    cells, less = [], []
    for share in shares:
        dices: dict[str, Resampled] = {}
        for name in [*towers.models, POSITION]:
            runs = [scores[name, share, draw] for draw in range(num_seeds)]
            dice, iou = (mean_over_runs([run[k] for run in runs], patients_N, weights_PB) for k in (0, 1))
            dices[name] = dice
            of_seeds = [float(np.nanmean(run[0])) for run in runs]
            unseen = None
            if seen_N.any() and len(set(patients_N[fresh_N].tolist())) > 1:
                who = numbered(patients_N[fresh_N].tolist())
                weights = draw_weights(int(who.max()) + 1, num_resamples, seed=0)
                unseen = Figure.of(interval_of(mean_over_runs([run[0][fresh_N] for run in runs], who, weights)))
            cells.append(
                DenseCell(
                    name,
                    share,
                    Figure.of(interval_of(dice)),
                    Figure.of(interval_of(iou)),
                    tuple(round(value, DECIMALS) for value in of_seeds),
                    unseen,
                )
            )
        others = [name for name in dices if name != PACK]
        less += [Less(name, share, Change.of(difference(dices[name], dices[PACK]))) for name in others]
    return cells, less


def mean_over_runs(
    runs: Sequence[NDArray[np.float64]], patients_N: NDArray[np.int64], weights_PB: NDArray[np.integer]
) -> Resampled:
    """Take the mean over images in which something is true and seeds, with what its interval is made of."""
    counted = ~np.isnan(runs[0])
    points_R, drawn_RB = means(patients_N, weights_PB, [(counted, run) for run in runs])
    value, drawn_B = float(points_R.mean()), drawn_RB.mean(axis=0)
    return bounded(value, drawn_B, patients=effective_patients(patients_N[counted]), runs_SI=points_R[:, None])


def _examples(
    masked: MaskedSet,
    of: FeatureMaps,
    test: NDArray[np.int64],
    dices: NDArray[np.float64],
    grids: Sequence[NDArray[np.float32]],
    truths: Sequence[NDArray[np.bool_]],
    settings: Settings,
) -> tuple[list[DenseExample], dict[str, bytes]]:
    """Draw the worst, the median and the best image held out by their Dice with all labels, among those marked."""
    from medclip.evaluation.dense.overlay import draw_example

    marked = [n for n in np.argsort(dices, kind="stable") if truths[n].any()]
    examples, drawn = [], {}
    if marked:
        for what, n in (("worst", marked[0]), ("median", marked[len(marked) // 2]), ("best", marked[-1])):
            number = int(test[n])
            row, answer = masked.rows[number], _predicted(of, number, grids[n])
            image = draw_example(row.path, str(masked.part.modality), truths[n], answer, settings)
            if image is not None:
                drawn[what] = image
            examples.append(DenseExample(what, row.row, round(float(dices[n]), DECIMALS), image is not None))
    return examples, drawn


def _table(
    masked: MaskedSet,
    of: FeatureMaps,
    test: NDArray[np.int64],
    scores: Mapping[tuple[str, float, int], NDArray[np.float64]],
) -> pa.Table:
    """One row for each image held out, tower, share and seed; no path, the patient as a keyed hash."""
    import pyarrow as pa

    columns: dict[str, list[object]] = {
        name: [] for name in ("set", "row", "sha256", "patient", "tower", "share", "seed", "dice", "iou")
    }
    for (name, share, draw), (dice_N, iou_N) in scores.items():
        for n, dice, iou in zip(test, dice_N, iou_N, strict=True):
            row = masked.rows[n]
            figures = (None if np.isnan(figure) else figure for figure in (dice, iou))
            cells = (masked.part.id, row.row, of.images[n].sha256, row.patient, name, share, draw, *figures)
            for column, cell in zip(columns.values(), cells, strict=True):
                column.append(cell)
    kinds = (pa.string(), pa.int64(), pa.string(), pa.string(), pa.string(), pa.float64(), pa.int64())
    types = (*kinds, pa.float64(), pa.float64())
    return pa.table({n: pa.array(v, t) for (n, v), t in zip(columns.items(), types, strict=True)})
