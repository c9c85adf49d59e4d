"""Labels in ordered classes: the truth as class names, the score as a predicted class or probabilities of all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from medclip.auditing.input.joined_tables import Source
from medclip.auditing.input.label_values import number_in
from medclip.auditing.input.match_columns import pair_up
from medclip.auditing.input.options import ReadOptions
from medclip.errors import MedclipError, Reason
from medclip.files.tables.table import Coded, is_blank, listed, plain_name
from medclip.statistics.cohort import Ordinal
from medclip.wording import count, list_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNKNOWN = -1
_PREDICTED = ("{}_predicted", "{}_prediction", "{}_pred", "predicted_{}", "pred_{}", "{}_score", "{}_class")
"""Names that the column of predicted classes may have where none is named."""


def read_ordinals(
    source: Source, options: ReadOptions, taken: Sequence[str]
) -> tuple[tuple[Ordinal, ...], tuple[str, ...]]:
    """Read every label in ordered classes that was declared.

    Args:
        source: The joined tables.
        options: Options of reading; `ordinal` has the classes, the lowest first, by "COLUMN" or "COLUMN:PREDICTED".
        taken: Columns that are no labels.

    Raises:
        MedclipError: WRONG_USE for fewer than three classes; TABLE_INVALID for columns that hold something else, and
            where there is neither a column of predicted classes nor a score for each class.
    """
    ordinals, notes = [], []
    for key, classes in options.ordinal.items():
        name, _, predicted = key.partition(":")
        column = source.labels.need(name.strip(), "of ordered classes")
        places = _places(classes, column)
        cells, differing = source.text(column)
        truth_N, num_others = _ranks(cells, places)
        if (truth_N == _UNKNOWN).all():
            raise _strange(column, cells, classes, source.labels.where)
        if differing:
            notes.append(f"{column}: {count(differing, 'study', 'studies')} in two classes do not count.")
        if num_others:
            notes.append(f"{column}: {count(num_others, 'row')} of another class than those named do not count.")
        graded = _predicted_column(source, column, predicted.strip())
        if graded is None:
            predicted_N = _likeliest(source, column, classes, places, options, taken)
        else:
            predicted_N, num_others = _ranks(graded, places)
            if (predicted_N == _UNKNOWN).all():
                raise _strange(predicted or f"predicted {column}", graded, classes, source.scores.where)
            if num_others:
                notes.append(
                    f"{column}: {count(num_others, 'row')} with another predicted class than those named do not count."
                )
        ordinals.append(Ordinal(column, tuple(classes), truth_N, predicted_N))
    return tuple(ordinals), tuple(notes)


def _places(classes: Sequence[str], column: str) -> dict[str | float, int]:
    places: dict[str | float, int] = {_as_read(text): place for place, text in enumerate(classes)}
    if len(places) < max(3, len(classes)):
        raise MedclipError(
            Reason.WRONG_USE,
            f"{column}: {list_of(list(classes))} are no three ordered classes or more, each once.",
            hint="Name them from the lowest to the highest, such as --ordinal density=A,B,C,D.",
        )
    return places


def _as_read(text: str) -> str | float:
    """Return what classes are compared by: 3 and 3.0 are one, and so are a and A."""
    number = number_in(text)
    return plain_name(text) if math.isnan(number) else number


def _ranks(cells: Coded, places: dict[str | float, int]) -> tuple[NDArray[np.int16], int]:
    """Return the rank of each row, −1 where it is not known; and how many rows have another class."""
    ranks = np.asarray([places.get(_as_read(v), _UNKNOWN) for v in cells.values] or [_UNKNOWN], np.int16)
    others = np.asarray([not is_blank(v) and _as_read(v) not in places for v in cells.values] or [False])
    return ranks[cells.codes_N], int(others[cells.codes_N].sum())


def _strange(column: str, cells: Coded, classes: Sequence[str], where: str) -> MedclipError:
    known = len([v for v in cells.used().values if not is_blank(v)])
    return MedclipError(
        Reason.TABLE_INVALID,
        f"the column {column!r} has {count(known, 'value')}, none of which is {list_of(list(classes), 'or')}.",
        where=where,
        hint="Name the classes as the column writes them, from the lowest to the highest.",
    )


def _predicted_column(source: Source, column: str, named: str) -> Coded | None:
    """Return the predicted classes of the N units; None where there is no column of them."""
    rows = source.scores.rows
    if named:
        return source.score_cells(rows.need(named, "of predicted classes"))
    names = [form.format(column) for form in _PREDICTED]
    if rows is not source.labels:
        names.insert(0, column)
    known = rows.find(names[0], *names[1:])
    if known is None or source.scores.own:
        return None
    return source.score_cells(known)


def _likeliest(
    source: Source,
    column: str,
    classes: Sequence[str],
    places: dict[str | float, int],
    options: ReadOptions,
    taken: Sequence[str],
) -> NDArray[np.int16]:
    """Return the class that the probabilities of all point to: the likeliest, or the one nearest to the mean."""
    alone = replace(options, score={}, label_columns={})
    others = [name for name in taken if plain_name(name) != plain_name(column)]
    try:
        pairs, _ = pair_up([column], source.scores, source.labels, alone, others)
    except MedclipError as e:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"{column}: there is no column of predicted classes and no score for each class. "
            f"{listed(source.scores.names, 'Scores')}",
            where=source.scores.where,
            hint=f"Name it with --ordinal {column}:PREDICTED={','.join(classes)}.",
        ) from e
    scores = {places[_as_read(word)]: p.score for p in pairs for word in p.words if _as_read(word) in places}
    missing = [text for text in classes if places[_as_read(text)] not in scores]
    if missing:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"{column}: {list_of(missing)} {'has' if len(missing) == 1 else 'have'} no score, or no row.",
            where=source.scores.where,
            hint="An order of classes needs the probability of each; name a column of predicted classes instead.",
        )
    chances_NC = np.stack(
        [source.scores.score_U(scores[rank])[source.score_unit_N] for rank in range(len(classes))], axis=1
    )
    known_N = ~np.isnan(chances_NC).any(axis=1)
    if options.grade == "expected":
        total_N = np.where(known_N, chances_NC.sum(axis=1), np.nan)
        mean_N = np.nan_to_num((chances_NC * np.arange(len(classes))).sum(axis=1)) / np.where(total_N > 0, total_N, 1)
        grade_N = np.floor(mean_N + 0.5)
    else:
        grade_N = np.nan_to_num(chances_NC, nan=-1.0).argmax(axis=1)
    return np.where(known_N, grade_N, _UNKNOWN).astype(np.int16)
