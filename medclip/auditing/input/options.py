"""How the tables of an audit are to be read: everything that may differ from one hospital's tables to another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from medclip.errors import MedclipError, Reason
from medclip.files.pseudonyms import load_key
from medclip.files.tables.table import TextForm
from medclip.settings import Settings

ExamLevel = Literal["exam", "breast", "view"]


@dataclass(frozen=True)
class ReadOptions:
    """Options of `medclip.auditing.input.read.read_cohort`; the defaults read medclip's own tables and plain ones.

    A field means what the option of that name of `medclip.audit` does. Messages name them as the command line has them:
    `--age-unit days` is `age_unit="days"` here, `--scores-are any` is `scores="any"`, and `--rows-are-patients` is
    `patients="rows"`.
    """

    key: str | Sequence[str] | None = None
    match: str = "auto"
    repeat_labels: bool = False
    score: Mapping[str, str] = field(default_factory=dict)
    label_columns: Mapping[str, str] = field(default_factory=dict)
    """Column of truths of a label, where the names differ."""
    long: tuple[str, str] | None = None
    """The columns of label and score of a table with one row for each label."""
    files: Any = None
    level: ExamLevel | None = None
    """Of the scores of mammography examinations (`medclip score --exam`): whether a row of the audit is an exam, a
    breast or an image. None: the studies of scores.parquet."""
    scores: Literal["probabilities", "logits", "any"] = "probabilities"
    """What scores are: probabilities; logits, which are turned into them; or any numbers, higher for more likely."""
    where: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    score_where: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    uncertain: Literal["ignore", "zero", "one"] = "ignore"
    blank: Literal["ignore", "zero"] = "ignore"
    label_list: str | None = None
    separator: str = "|"
    time: str | None = None
    event: str | None = None
    no_finding: Sequence[str] = ()
    patient: str | None = None
    patients: Literal["column", "rows"] = "column"
    """"rows": every row counts as a patient of its own, which makes intervals too narrow where that is not true."""
    all_pairs: bool = False
    age_bins: str | Sequence[float] | None = None
    age_unit: Literal["years", "months", "days"] = "years"
    bins: Mapping[str, Sequence[float]] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What the values of an attribute mean, such as {"sex": {"0": "M", "1": "F"}}."""
    min_group: int = 10
    """Of an attribute with very many values those with fewer rows or patients are put together."""
    ordinal: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Labels in ordered classes, the lowest first, such as {"density": ["A", "B", "C", "D"]}; "COLUMN:PREDICTED" names
    the column of predicted classes, where it is not found by its name."""
    grade: Literal["argmax", "expected"] = "argmax"
    risk: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Risks by year, with the columns of scores for year 1, 2, ...; an empty list finds them by their names
    (`NAME:year_1`, `NAME_1`). Times are columns of months, `event_months` and `followup_months`."""
    columns: Sequence[str] = ()
    """Further columns of the label table that are kept."""
    identity_key: bytes | None = None
    """Key of the hashes that stand for join keys in messages; None: this machine's own."""
    text: TextForm = field(default_factory=TextForm)
    """Encoding and decimal comma of text tables."""

    def __post_init__(self) -> None:
        """Refuse a list whose findings nothing parts."""
        if not self.separator:
            raise MedclipError(Reason.WRONG_USE, "the separator of a list of findings is empty.")

    def hash_key(self) -> bytes:
        """Return the key of hashes in messages: the one named, else this machine's own, which is made on first use."""
        return load_key(Settings()) if self.identity_key is None else self.identity_key


_FEW = 10


def about(number: int, one: str) -> str:
    """Count what may be few people: notes are exported, and an exact count of a small group would name it.

    Example:
        >>> about(3, "row"), about(12, "row")
        ('fewer than 10 rows', 'about 10 rows')
    """
    return f"fewer than {_FEW} {one}s" if number < _FEW else f"about {(2 * number + 5) // 10 * 5:,} {one}s"
