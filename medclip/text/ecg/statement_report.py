"""Reports written of SCP-ECG statements, English or German: for records that have codes and no words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medclip.text.ecg.cleaning import ENGLISH, GERMAN
from medclip.text.ecg.statements import Statement, statements
from medclip.text.vocabulary.prompts import without_article

if TYPE_CHECKING:
    from numpy.random import Generator

WRITTEN_IN = (ENGLISH, GERMAN)
_TRIES = 20


def distinct_statement_reports(
    codes: Sequence[str], n: int, rng: Generator, language: str = ENGLISH
) -> tuple[str, ...]:
    """Write `n` reports of what is stated: rhythm, diagnoses, forms, each once, in lower case as cleaned reports are.

    Args:
        codes: SCP-ECG statements; others than the 71 are passed over.
        n: Number of reports that are wanted.
        rng: Source of chance.
        language: en or de.

    Returns:
        At most `n`, no two alike; none without a statement.

    Example:
        >>> import numpy as np
        >>> sorted(distinct_statement_reports(["AFIB"], 9, np.random.default_rng(0), "de"))
        ['absolute arrhythmie bei vorhofflimmern', 'vorhofflimmern']
    """
    known = [statements()[c] for c in codes if c in statements()]
    known.sort(key=lambda s: (not s.rhythm, not s.diagnostic))
    reports: dict[str, None] = {}
    for _ in range(n * _TRIES if known else 0):
        reports[". ".join(_wording(s, rng, language) for s in known)] = None
        if len(reports) == n:
            break
    return tuple(reports)


def _wording(statement: Statement, rng: Generator, language: str) -> str:
    words = statement.german if language == GERMAN else statement.english
    return without_article(words[int(rng.integers(len(words)))]).lower()
