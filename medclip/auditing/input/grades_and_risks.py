"""Labels in ordered classes and risks by year.

Of the former the truth is a column of class names, the score a predicted class or probabilities of all; of the latter
there are the probability of an event by the end of each year, and months to the event and of follow-up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from medclip.auditing.input.joined_tables import Source
from medclip.auditing.input.label_values import number_in, read_times
from medclip.auditing.input.labels import checked_scores
from medclip.auditing.input.match_columns import pair_up
from medclip.auditing.input.options import ReadOptions
from medclip.errors import MedclipError, Reason
from medclip.files.tables.table import Coded, is_blank, listed, plain_name
from medclip.statistics.cohort import Ordinal, Risk
from medclip.text.vocabulary.task import EVENT, FOLLOWUP
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
    num_values = len([v for v in cells.used().values if not is_blank(v)])
    return MedclipError(
        Reason.TABLE_INVALID,
        f"the column {column!r} has {count(num_values, 'value')}, none of which is {list_of(list(classes), 'or')}.",
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
    predicted = rows.find(names[0], *names[1:])
    if predicted is None or source.scores.is_medclip:
        return None
    return source.score_cells(predicted)


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


_YEAR = re.compile(r"[\s_.:-]*(?:year|yr|y)?[\s_.:-]*(\d+)$", re.IGNORECASE)


def read_risks(source: Source, options: ReadOptions) -> tuple[tuple[Risk, ...], tuple[str, ...]]:
    """Read every risk that was named.

    Args:
        source: The joined tables.
        options: Options of reading; `risk` has the columns of scores by the risk's name; none: found by their names.

    Returns:
        The risks and notes. Rows whose follow-up ends before their event have no time, and a note counts them.

    Raises:
        MedclipError: TABLE_INVALID for scores or times that are not there or cannot be; WRONG_USE for logits.
    """
    risks, notes = [], []
    for name, columns in options.risk.items():
        years, scores = _columns(source, name, columns)
        units = [source.scores.score_U(score)[source.score_unit_N] for score in scores]
        checked = [
            checked_scores(u, s, "probabilities", source.scores.where) for u, s in zip(units, scores, strict=True)
        ]
        risk_NK = np.stack([one for one, _ in checked], axis=1)
        event_N, followup_N = (_months(source, name, field) for field in (EVENT, FOLLOWUP))
        if event_N is None or np.isnan(event_N).all():
            what = "no column" if event_N is None else "no row"
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"{name}: {what} says when the event was.",
                where=source.labels.where,
                hint=f"Name it {EVENT}: months from the examination, blank without one; and {FOLLOWUP} beside it.",
            )
        followup_N = event_N if followup_N is None else followup_N
        short_N = event_N > followup_N
        if short_N.any():
            event_N, followup_N = (np.where(short_N, np.nan, months) for months in (event_N, followup_N))
            notes.append(
                f"{name}: {count(int(short_N.sum()), 'row')} with a follow-up that ends before the event; they do not "
                "count."
            )
        falling = int((np.diff(risk_NK, axis=1) < -1e-6).any(axis=1).sum())
        if falling:
            notes.append(f"{name}: CAUTION: in {count(falling, 'row')} the risk falls from one year to a later one.")
        risk = Risk(name, risk_NK, years, event_N, followup_N)
        unknown = int(np.isnan(risk.time_N).sum() - short_N.sum())
        if unknown:
            notes.append(f"{name}: {count(unknown, 'row')} without any time, which do not count.")
        notes += [note for _, sentences in checked[:1] for note in sentences]
        risks.append(risk)
    return tuple(risks), tuple(notes)


def _columns(source: Source, name: str, columns: object) -> tuple[tuple[int, ...], list[str]]:
    """Return years and names of scores."""
    names = source.scores.names
    named = list(columns) if isinstance(columns, list | tuple) else []
    if named:
        missing = [c for c in named if c not in names]
        if missing:
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"{name}: there is no score {list_of(missing, 'or')}.",
                where=source.scores.where,
                hint=listed(names, "Scores"),
            )
        return tuple(range(1, len(named) + 1)), named
    by_year: dict[int, str] = {}
    for score in names:
        match = _YEAR.search(score)
        if match and plain_name(score[: match.start()]) == plain_name(name):
            by_year.setdefault(int(match.group(1)), score)
    years = sorted(by_year)
    if not years:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"no scores are called {name}_1, {name}_2, ..., one for each year.",
            where=source.scores.where,
            hint=f"Name them: --risk {name}=COLUMN,COLUMN. {listed(names, 'Scores')}",
        )
    return tuple(years), [by_year[year] for year in years]


def _months(source: Source, name: str, field: str) -> NDArray[np.float64] | None:
    """Return a column of months for the N units; None where there is none."""
    column = source.labels.find(f"label:{name}:{field}", f"{name}:{field}", f"{name}_{field}", field)
    if column is None:
        return None
    if source.several and source.text(column)[1]:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"files of one study have different cells in {column!r}.",
            where=source.labels.where,
        )
    first_N = source.label_row_M[source.first_row_N]
    return read_times(source.labels.numbers(column, "a time")[first_N], column, source.labels.where)
