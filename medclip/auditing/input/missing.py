"""Rows that take no part: those without a score and those without a label, by group, and whether that is chance.

A row without a score is one that the model gives no help with. A row without a label is one whose truth nobody wrote
down, and figures hold for the others only: where labels are missing by the score, or by what a group has to do with it,
they are off by what no interval allows for. With labels missing by truth and score the 95 % interval of an AUROC held
the true value in 58 % of simulated cohorts (`benchmarks/interval_coverage.py --part unlabelled`). That labels are
missing by the truth cannot be seen in any table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from medclip.auditing.input.groups import CROSS, one_attribute
from medclip.auditing.input.joined_tables import Source
from medclip.auditing.input.options import ReadOptions
from medclip.errors import MedclipError
from medclip.files.tables.table import in_order
from medclip.statistics.cohort import ALL, Attribute, Label, Masks, Missing, Ordinal, Risk
from medclip.statistics.estimate import LEVEL
from medclip.statistics.significance import holm, share_difference
from medclip.wording import list_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_ROWS = 30
"""Smallest group whose share is stated in a note, and tested."""
_LEAST_GAP = 0.05
"""Smallest difference of shares that is stated in a note."""
_MOST_LABELS, _MOST_PLACES = 3, 2
"""Labels, and groups of each, that the note on labels names."""
BLANK, PARTLY_BLANK = "the score is blank", "blank for some of the labels"
THIRDS = "score (thirds)"
"""Attribute of the rows by their score, in the table of missing labels."""
PREDICTED = "predicted class"
"""The same by the class that a model of ordered classes names."""


def unscored_groups(
    source: Source,
    names: Sequence[str],
    options: ReadOptions,
    blank_N: NDArray[np.bool_],
    partly_N: NDArray[np.bool_],
    patient: tuple[str | None, Callable[[str], str] | None] = (None, None),
) -> tuple[Missing, ...]:
    """Count the labelled rows that lack a score, in everybody and in each group.

    Args:
        source: The joined tables.
        names: Attributes, without intersections; those that only the scores or header values have are left out, for
            rows without a score have neither.
        options: Options of reading the tables.
        blank_N: Whether each unit has no score for any label.
        partly_N: Whether each unit has no score for a label whose truth it has.
        patient: Column of the label table that names the patient, and function that takes the patient out of its cells;
            without a column each row counts as a patient.
    """
    rows = np.concatenate([source.label_row_M, source.lost_rows])
    why_N = np.where(blank_N, BLANK, np.where(partly_N, PARTLY_BLANK, ""))
    why_R = np.array([*why_N[source.unit_M], *source.lost_reasons], object)
    lost_R = np.concatenate([(blank_N | partly_N)[source.unit_M], np.ones(len(source.lost_rows), bool)])
    patients_R = _label_patients(source, rows, *patient)
    return tuple(
        _counted(attribute, group, inside_R, lost_R, patients_R, why_R=why_R)
        for attribute, group, inside_R in _groups(source, names, options, rows, patients_R)
    )


def unlabelled_groups(
    labels: Sequence[Label],
    ordinals: Sequence[Ordinal],
    risks: Sequence[Risk],
    masks: Sequence[Masks],
    attributes: Sequence[Attribute],
    patients_N: NDArray[np.int32],
    unmatched: Mapping[str, NDArray[np.float64]],
) -> tuple[Missing, ...]:
    """Count the scored rows whose truth is not known, for each label that has any: in everybody, groups and scores.

    Rows of scores without a row of labels have no group, and count for everybody and by score. Scores are divided into
    thirds, equal ones always together; ordered classes by the class that was predicted.

    Args:
        labels: Labels of the cohort.
        ordinals: Gradings of the cohort; a row without a class has no label.
        risks: Risks of the cohort; a row without any time has no label.
        masks: Masks of the cohort; a row that names no file of a true mask has no label.
        attributes: Attributes of the cohort; intersections are left out.
        patients_N: Patient of each row.
        unmatched: Scores of rows without a row of labels, by label; each of these rows counts as a patient.
    """
    none = np.zeros(0)
    answers = [
        *((x.name, ~np.isnan(x.score_N), np.isnan(x.truth_N), x.score_N) for x in labels),
        *(
            (o.name, o.predicted_N >= 0, o.truth_N < 0, Attribute(PREDICTED, o.classes, o.predicted_N))
            for o in ordinals
        ),
        *((r.name, ~np.isnan(r.risk_NK).any(axis=1), np.isnan(r.time_N), r.risk_NK[:, -1]) for r in risks),
        *((m.name, m.predicted_N != "", m.truth_N == "", m.share_N) for m in masks),
    ]
    groups: list[Missing] = []
    for name, scored_N, unknown_N, score in answers:
        lost_n = unknown_N[scored_N]
        more = unmatched.get(name, none)
        more = more[~np.isnan(more)]
        if not (lost_n.any() or len(more)):
            continue
        patients_n = in_order(patients_N[scored_N].astype(np.int64))[0].astype(np.int32)
        each_r = np.concatenate([patients_n, patients_n.max(initial=-1) + 1 + np.arange(len(more), dtype=np.int32)])
        lost_r = np.concatenate([lost_n, np.ones(len(more), bool)])
        by_score = score if isinstance(score, Attribute) else _thirds(np.concatenate([score[scored_N], more]))
        codes_r = by_score.codes_N if by_score is not score else by_score.codes_N[scored_N]
        groups.append(_counted(ALL, ALL, np.ones(len(lost_r), bool), lost_r, each_r, label=name))
        groups += _each(by_score, codes_r, lost_r, each_r, name)
        for attribute in attributes if lost_n.any() else ():
            if CROSS not in attribute.name:
                groups += _each(attribute, attribute.codes_N[scored_N], lost_n, patients_n, name)
    return tuple(groups)


def _each(
    attribute: Attribute,
    codes_R: NDArray[np.int16],
    lost_R: NDArray[np.bool_],
    patients_R: NDArray[np.int32],
    label: str,
) -> list[Missing]:
    return [
        _counted(attribute.name, group, codes_R == code, lost_R, patients_R, label=label)
        for code, group in enumerate(attribute.groups)
        if (codes_R == code).any()
    ]


def missing_notes(unscored: Sequence[Missing], unlabelled: Sequence[Missing]) -> list[str]:
    """Write a sentence for each attribute whose groups differ by five points or more in scores; one about all labels.

    Of labels, beyond chance only (Holm, all groups of all labels together). Shares are in whole per cent.
    """
    notes: list[str] = []
    for attribute in dict.fromkeys(one.attribute for one in unscored if one.attribute != ALL):
        large = [g for g in unscored if g.attribute == attribute and g.num_rows >= LEAST_ROWS]
        shares = [one.num_missing / one.num_rows for one in large]
        if len(shares) > 1 and max(shares) - min(shares) >= _LEAST_GAP:
            listed = ", ".join(f"{one.group} {share:.0%}" for one, share in zip(large, shares, strict=True))
            notes.append(
                f"CAUTION: scores are missing more often in some groups of {attribute}: {listed} of the labelled "
                "rows lack one, and the audit says nothing about how the model does for them."
            )
    return [*notes, *_of_labels(unlabelled)]


def _of_labels(unlabelled: Sequence[Missing]) -> Iterator[str]:
    sure = [
        one
        for one, p in zip(unlabelled, holm([one.p for one in unlabelled]), strict=True)
        if p <= 1 - LEVEL and one.difference[0] >= _LEAST_GAP
    ]
    if not sure:
        return
    worst: dict[str, list[Missing]] = {}
    for one in sorted(sure, key=lambda one: (one.attribute not in (THIRDS, PREDICTED), -one.difference[0])):
        worst.setdefault(one.label, []).append(one)
    everybody = {one.label: one for one in unlabelled if one.attribute == ALL}
    each = [
        f"{label} for {_share(everybody[label]):.0%} of scored rows ({'; '.join(map(_against, places[:_MOST_PLACES]))})"
        for label, places in worst.items()
    ]
    more = f" and {len(each) - _MOST_LABELS} more labels" if len(each) > _MOST_LABELS else ""
    yield (
        f"CAUTION: labels are missing, and not by chance: {list_of(each[:_MOST_LABELS])}{more}. Every figure is of the "
        "labelled rows only. What it is for the others cannot be known from these tables; no interval allows for it."
    )


def _share(one: Missing) -> float:
    return one.num_missing / one.num_rows


def _against(one: Missing) -> str:
    where = f"the {one.group} of scores" if one.attribute == THIRDS else f"{one.group} ({one.attribute})"
    return f"{_share(one):.0%} in {where}, {max(_share(one) - one.difference[0], 0.0):.0%} in all others"


def _thirds(score_N: NDArray[np.float64]) -> Attribute:
    """Divide rows by their score; where many scores are equal there are fewer than three groups."""
    ends = np.nanquantile(score_N, (1 / 3, 2 / 3), method="lower")
    codes_N = np.searchsorted(np.unique(ends), score_N, side="left").astype(np.int16)
    names = ("lowest third", "middle third", "highest third")
    return Attribute(THIRDS, names if ends[0] < ends[1] else (names[0], names[2]), codes_N)


def _groups(
    source: Source, names: Sequence[str], options: ReadOptions, rows: NDArray[np.intp], patients_R: NDArray[np.int32]
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    yield ALL, ALL, np.ones(len(rows), bool)
    for name in names:
        column = source.labels.find(name)
        if column is None:
            continue
        cells = source.labels.coded(column).take(rows)
        try:
            attribute, _ = one_attribute(name, cells, patients_R, options, source.labels.where)
        except MedclipError:  # cells that only the rows without a score have
            continue
        for code, group in enumerate(attribute.groups):
            yield name, group, attribute.codes_N == code


def _label_patients(
    source: Source, rows: NDArray[np.intp], column: str | None, part: Callable[[str], str] | None
) -> NDArray[np.int32]:
    if column is None:
        return np.arange(len(rows), dtype=np.int32)
    cells = source.labels.coded(column).take(rows)
    cells = cells.mapped(part) if part else cells
    return in_order(cells.codes_N.astype(np.int64))[0].astype(np.int32)


def _counted(
    attribute: str,
    group: str,
    inside_R: NDArray[np.bool_],
    lost_R: NDArray[np.bool_],
    patients_R: NDArray[np.int32],
    *,
    label: str = "",
    why_R: NDArray[np.object_] | None = None,
) -> Missing:
    share = share_difference(lost_R, inside_R, patients_R)
    tested = min(int(inside_R.sum()), int((~inside_R).sum())) >= LEAST_ROWS and bool(lost_R.any())
    return Missing(
        label=label,
        attribute=attribute,
        group=group,
        num_rows=int(inside_R.sum()),
        num_patients=len(np.unique(patients_R[inside_R])),
        num_missing=int((lost_R & inside_R).sum()),
        reasons={} if why_R is None else dict(Counter(str(why) for why in why_R[lost_R & inside_R])),
        interval=(share.low, share.high),
        difference=(share.difference, share.difference_low, share.difference_high),
        p=share.p if tested else float("nan"),
    )
