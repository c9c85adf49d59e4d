"""Risks by year: the probability of an event by the end of each year, and months to the event and of follow-up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from medclip.auditing.input.joined_tables import Source
from medclip.auditing.input.label_values import read_times
from medclip.auditing.input.labels import checked_scores
from medclip.auditing.input.options import ReadOptions
from medclip.errors import MedclipError, Reason
from medclip.files.tables.table import listed, plain_name
from medclip.statistics.cohort import Risk
from medclip.text.vocabulary.task import EVENT, FOLLOWUP
from medclip.wording import count, list_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
        notes += [note for _, own in checked[:1] for note in own]
        risks.append(risk)
    return tuple(risks), tuple(notes)


def _columns(source: Source, name: str, columns: object) -> tuple[tuple[int, ...], list[str]]:
    """Return years and names of scores."""
    known = source.scores.names
    named = list(columns) if isinstance(columns, list | tuple) else []
    if named:
        missing = [c for c in named if c not in known]
        if missing:
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"{name}: there is no score {list_of(missing, 'or')}.",
                where=source.scores.where,
                hint=listed(known, "Scores"),
            )
        return tuple(range(1, len(named) + 1)), named
    by_year: dict[int, str] = {}
    for score in known:
        match = _YEAR.search(score)
        if match and plain_name(score[: match.start()]) == plain_name(name):
            by_year.setdefault(int(match.group(1)), score)
    years = sorted(by_year)
    if not years:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"no scores are called {name}_1, {name}_2, ..., one for each year.",
            where=source.scores.where,
            hint=f"Name them: --risk {name}=COLUMN,COLUMN. {listed(known, 'Scores')}",
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
