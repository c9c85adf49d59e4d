"""Which score answers which label: by name, or as the caller says."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medclip.auditing.input.label_values import elements, is_binary, not_understood
from medclip.auditing.input.options import ReadOptions
from medclip.auditing.input.score_table import ScoreTable
from medclip.errors import MedclipError, Reason
from medclip.files.tables.table import (
    Coded,
    Table,
    has_decimal_comma,
    is_blank,
    listed,
    no_such,
    number_in,
    plain_name,
)
from medclip.wording import count

_AFFIX = re.compile(
    r"^(score|prob|probability|pred|prediction|p|logit)[\s_.:-]+|[\s_.:-]+(score|prob|probability|pred|prediction|p|logit)$",
    re.IGNORECASE,
)
_ONLY_SCORE = frozenset({"score", "probability", "prob", "prediction", "pred", "logit", "risk", "p"})
_MOST_SHOWN = 20
_OF_SHARDS = "label:"
"""Begins the columns of truths in tables for shards: label:TASK and label:TASK:CLASS."""


@dataclass(frozen=True)
class Pair:
    """One question: a score, and where its truth is."""

    name: str
    score: str
    column: str
    """Column of the label table."""
    kind: str
    """"binary" (a column of yes and no), "list" (an element of a list) or "class" (a column of class names)."""
    words: tuple[str, ...] = ()
    """The element, or how the class is written in the column."""
    group: str = ""
    """The column of a multi-class question, whose scores belong together."""
    among: tuple[str, ...] = ()
    """All classes of that question as the column writes them; what is none of them is not known."""


def pair_up(
    wanted: Sequence[str] | None,
    scores: ScoreTable,
    labels: Table,
    options: ReadOptions,
    taken: Collection[str],
) -> tuple[list[Pair], list[str]]:
    """Find score and truth of every label.

    Args:
        wanted: Labels; "SCORE=COLUMN" where names differ; None for all that have a score and a truth of one name.
        scores: The scores.
        labels: The label table.
        options: Column maps, list of findings.
        taken: Columns that are no labels: keys, patients, groups.

    Returns:
        The pairs. And, where no label is named, a sentence for each that has a score and a column of truths and is
        still none of them, with counts of the cells that are not understood; a column that both tables merely carry (an
        age, a view) is none of these.

    Raises:
        MedclipError: TABLE_INVALID for a label without score or truth, with names that are like it.
    """
    book = _Book(scores, labels, options, {plain_name(t) for t in taken})
    names = list(wanted or ())
    if not names:
        names = list(dict.fromkeys((*options.score, *options.label_columns)))
    pairs = [p for name in names for p in book.pairs(name, only=len(names) == 1)] if names else book.all_pairs()
    passed = [] if names else book.passed_by(pairs)
    if not pairs:
        raise MedclipError(
            Reason.TABLE_INVALID,
            " ".join(
                [
                    "no label has both a score and a truth of the same name.",
                    *book.passed_by([])[:_MOST_SHOWN],
                    listed(book.score_names, "Scores"),
                    listed(labels.names, "Columns of the labels"),
                ]
            ),
            where=labels.where,
            hint="Say which belong together, such as --label SCORE=COLUMN.",
        )
    names = [p.name for p in pairs]
    twice = {n for n in names if names.count(n) > 1}
    pairs = [p if p.name not in twice else _renamed(p) for p in pairs]
    names = [p.name for p in pairs]
    if len(set(names)) < len(names):
        raise MedclipError(Reason.WRONG_USE, "a label is asked for twice.", hint="Name every label once.")
    return pairs, passed


def _renamed(pair: Pair) -> Pair:
    return replace(pair, name=f"{pair.group or pair.score}: {pair.name}")


class _Book:
    """Looks names up on both sides."""

    def __init__(self, scores: ScoreTable, labels: Table, options: ReadOptions, taken: set[str]) -> None:
        self.scores, self.labels, self.options = scores, labels, options
        self.taken = taken
        self.same = scores.rows is labels  # one table for both: a column is either
        self.score_names = [n for n in scores.names if plain_name(n) not in taken]
        self.lists = {}
        if options.label_list is not None:
            self.list_column = labels.need(options.label_list, "of lists of findings")
            self.lists = elements(labels.coded(self.list_column), options.separator)

    def all_pairs(self) -> list[Pair]:
        """Pair everything whose names agree; what does not look like a score or a truth is passed by."""
        pair_of: dict[str, Pair] = {}
        single = [s for s in self.score_names if s not in self.multiclass_scores()]
        for score in sorted(single, key=lambda s: not _AFFIX.search(s)):  # a truth may stand beside its score
            for name in (_class_of(score, self.scores.is_medclip), _AFFIX.sub("", score)):
                column = self._truths(name, score)
                if self.lists and plain_name(name) in self.lists:
                    element = self.lists[plain_name(name)]
                    pair_of.setdefault(element, Pair(element, score, self.list_column, "list", (element,)))
                elif column and self._is_truth(column, score):
                    pair_of.setdefault(column, Pair(_plain(column), score, column, "binary"))
        pairs = list(pair_of.values())
        for task, inside in self.scores.tasks.items():
            column = self._truths(task)
            if column is not None:
                pairs += self._classes(column, inside, task)
        return pairs

    def passed_by(self, pairs: Sequence[Pair]) -> list[str]:
        """Return why columns that have a score are not among the pairs."""
        used, answered = {p.score for p in pairs}, {p.column for p in pairs}
        reasons: dict[str, str] = {}
        for score in self.score_names:
            if score in used or score in self.multiclass_scores():
                continue
            for name in (_class_of(score, self.scores.is_medclip), _AFFIX.sub("", score)):
                column = self._truths(name, score)
                if column is None or plain_name(column) in self.taken or (self.same and column == score):
                    continue
                why = self._why_not(column, score, answered=column in answered)
                if why:
                    what = f"the score {score!r}" if column in answered else column
                    reasons.setdefault(score, f"CAUTION: {what} is left out: {why}")
        return list(reasons.values())

    def _why_not(self, column: str, score: str, *, answered: bool) -> str:
        """Return what is wrong with a score, else with the truths; "" where nothing is, or neither looks like one."""
        cells = self.labels.coded(column).used()
        numeric = self.scores.is_medclip or self._scored(score)
        if is_binary(cells):
            return "" if numeric else self._no_numbers(score)
        blank = sum(int(n) for v, n in zip(cells.values, cells.counts(), strict=True) if is_blank(v))
        num_filled = len(cells) - blank
        strange, samples = not_understood(cells)
        if answered or (2 * strange > num_filled and not (numeric and self._is_own_score(cells, score))):
            return ""
        if strange:
            are = "is" if strange == 1 else "are"
            what = f"{strange:,} of its {count(num_filled, 'cell')} {are} neither 1, 0, yes, no nor -1: {samples}."
            commas = self.labels.form is not None and any(has_decimal_comma(v) for v in cells.values)
            return what + " Decimals with a comma are read with --decimal comma." * commas
        return f"none of its {count(len(cells), 'cell')} says yes or no ({blank:,} are blank)."

    def _is_own_score(self, cells: Coded, score: str) -> bool:
        """Whether a score says something else than the cells of its name: most of its values are not among them."""
        if score not in self.scores.rows.names:
            return True
        values = {_as_number(v) for v in self.scores.rows.coded(score).used().values if not is_blank(v)}
        return 2 * len(values & {_as_number(v) for v in cells.values}) < len(values)

    def _no_numbers(self, score: str) -> str:
        try:
            scores_U = self.scores.score_U(score)
        except MedclipError as e:
            return f"{e.message} {e.hint}"
        num_scores = len(scores_U) - int(np.isnan(scores_U).sum())
        what = f"are yes and no ({num_scores:,} of them), not numbers" if num_scores else "are all blank"
        return f"the cells of the score {score!r} {what}."

    def multiclass_scores(self) -> set[str]:
        """Return the scores that belong to a question of which one class is true."""
        return {name for inside in self.scores.tasks.values() for name in inside}

    def _truths(self, name: str, score: str = "") -> str | None:
        """Find the column of truths of a name, of a score of ours else under the name that tables for shards have."""
        of_shards = (f"{_OF_SHARDS}{score or name}",) if self.scores.is_medclip else ()
        return self.labels.find(name, *of_shards)

    def _is_truth(self, column: str, score: str) -> bool:
        if plain_name(column) in self.taken or (self.same and column == score):
            return False
        return is_binary(self.labels.coded(column)) and (self.scores.is_medclip or self._scored(score))

    def _scored(self, name: str) -> bool:
        table = self.scores.rows
        return name not in table.names or table.is_numeric(name)

    def pairs(self, name: str, *, only: bool) -> list[Pair]:
        """Find one label; several pairs for a question of many classes."""
        first, equals, second = (part.strip() for part in name.partition("="))
        label = second if equals else first
        column_name = (
            self.options.label_columns.get(label) or (self.options.event if self.options.time else "") or label
        )
        score_name = first if equals else self.options.score.get(label, label)
        if self.options.label_list is not None:
            element = self.lists.get(plain_name(column_name))
            if element is None:
                raise no_such(column_name, list(self.lists.values()), self.labels.where, "in the lists of findings")
            return [Pair(label, self._score(score_name, only), self.list_column, "list", (element,))]
        column = self._truths(column_name) or self.labels.need(column_name, "of truths")
        cells = self.labels.coded(column)
        if is_binary(cells):
            task = self._task(score_name)
            if task is not None:
                raise MedclipError(
                    Reason.TABLE_INVALID,
                    f"{score_name} has several classes, and the column {column!r} says only yes and no.",
                    where=self.labels.where,
                    hint=f"Name a class, such as {self.scores.tasks[task][0]}={column}.",
                )
            return [Pair(label, self._score(score_name, only, column), column, "binary")]
        task = self._task(score_name)
        one = None if task or not equals else self._one_class(score_name, column, cells)
        if one is not None:
            return [one]
        inside = self.scores.tasks[task] if task else self._inside(score_name)
        if inside:
            return self._classes(column, inside, column)
        self._refuse(column, cells)
        return []

    def _one_class(self, score_name: str, column: str, cells: Coded) -> Pair | None:
        """Pair the score of one class with a column of class names: that class against all others that are named."""
        score = self._score(score_name, False, column)
        name = _class_of(score, self.scores.is_medclip)
        words = [
            v for v in cells.used().values if plain_name(v) in (plain_name(name), plain_name(_AFFIX.sub("", name)))
        ]
        return Pair(words[0], score, column, "class", tuple(words)) if words else None

    def _refuse(self, column: str, cells: Coded) -> None:
        strange, samples = not_understood(cells)
        says = f"{samples} in {strange:,} of {len(cells):,} cells" if strange else "nothing"
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"the column {column!r} says {says}, which is neither yes or no nor a class that has a score.",
            where=self.labels.where,
            hint=listed(self.score_names, "Scores"),
        )

    def _task(self, name: str) -> str | None:
        plain = {plain_name(t): t for t in self.scores.tasks}
        return plain.get(plain_name(name))

    def _inside(self, name: str) -> tuple[str, ...]:
        """Return the scores that a column of class names may be about: those of the task, else every column."""
        if self.scores.is_medclip:
            meant = [names for task, names in self.scores.tasks.items() if len(self.scores.tasks) == 1 or task == name]
            return meant[0] if len(meant) == 1 else ()
        return tuple(self.score_names)

    def _classes(self, column: str, inside: Iterable[str], task: str) -> list[Pair]:
        """Pair each class with how the column writes it."""
        values = [v for v in self.labels.coded(column).used().values if not is_blank(v)]
        scores = {plain_name(_class_of(s, self.scores.is_medclip)): s for s in inside}
        scores = {plain_name(_AFFIX.sub("", s)): s for s in inside if not self.scores.is_medclip} | scores
        words: dict[str, list[str]] = {}
        for value in values:
            score = scores.get(plain_name(value)) or self._by_wording(value, task, scores)
            if score is not None:
                words.setdefault(score, []).append(value)
        if not words:
            self._refuse(column, self.labels.coded(column))
        among = tuple(w for written in words.values() for w in written)
        return [
            Pair(
                _class_of(score, self.scores.is_medclip), score, column, "class", tuple(written), _plain(column), among
            )
            for score, written in words.items()
        ]

    def _by_wording(self, value: str, task: str, scores: Mapping[str, str]) -> str | None:
        """Find a class by the words that the vocabulary has for it."""
        if not self.scores.is_medclip:
            return None
        for name in self.scores.tasks:
            if scores and next(iter(scores.values())) in self.scores.tasks[name]:
                task = name
        class_name = _vocabulary_class(task, value)
        return None if class_name is None else scores.get(plain_name(class_name))

    def _score(self, name: str, only: bool, column: str = "") -> str:
        """Find a score by its name; in a table of scores and truths that is not the column of the truth itself."""
        names = [s for s in self.score_names if not (self.same and s == column)]
        wanted = plain_name(name)
        affixed = [s for s in names if _AFFIX.search(s) and plain_name(_AFFIX.sub("", s)) == wanted]
        if name in names and not (len(affixed) == 1 and is_binary(self.scores.rows.coded(name))):
            return name
        ways = (
            lambda s: s in affixed,
            lambda s: plain_name(s) == wanted,
            lambda s: plain_name(_class_of(s, self.scores.is_medclip)) == wanted,
            lambda s: self.scores.is_medclip and _names(s, name),
            lambda s: only and not self.scores.is_medclip and plain_name(s) in _ONLY_SCORE,
        )
        for way in ways:
            candidates = [s for s in names if way(s)]
            if len(candidates) > 1:
                raise MedclipError(
                    Reason.WRONG_USE,
                    f"{name!r} may be any of the scores {', '.join(candidates[:_MOST_SHOWN])}.",
                    where=self.scores.where,
                    hint=f"Say which, such as --label {candidates[0]}={name}.",
                )
            if candidates:
                return candidates[0]
        raise no_such(name, names, self.scores.where, "of scores")


def _as_number(text: str) -> str | float:
    """Return what a cell is compared by: 61 and 61.0 are equal."""
    number = number_in(text)
    return text if math.isnan(number) else number


def _plain(column: str) -> str:
    """Return what is asked in a column of truths."""
    return column.removeprefix(_OF_SHARDS)


def _class_of(score: str, is_medclip: bool) -> str:
    return score.partition(":")[2] if is_medclip else score


def _names(score: str, name: str) -> bool:
    task, _, own_name = score.partition(":")
    return _vocabulary_class(task, name) == own_name


def _vocabulary_class(task: str, value: str) -> str | None:
    """Return the class that a word means in a task that ships with medclip; None for other tasks and words."""
    from medclip.text.vocabulary.find_task import class_said
    from medclip.text.vocabulary.load import load_task

    try:
        name = class_said(load_task(task), value)
    except MedclipError:
        return None
    return None if name is None else name.name
