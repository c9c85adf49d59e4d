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

    Messages name them as the command line has them: `--age-unit days` is `age_unit="days"` here, `--scores-are any` is
    `scores="any"`, and `--rows-are-patients` is `patients="rows"`.
    """

    key: str | Sequence[str] | None = None
    """Column that joins the two tables, "SCORES=LABELS" where it differs; several where one does not tell rows apart.
    None: the only name of a key column that both have (`file`, `image`, `study`, ...)."""
    match: str = "auto"
    """How keys are compared: "exact", "stem" (file name without folders and suffix), ...
    (`medclip.auditing.input.join_keys.RULES`); "auto": exact, and for the file names of `medclip score` also by the
    end of the path."""
    repeat_labels: bool = False
    """One row of labels (of a study) may belong to several rows of scores (of its images)."""
    score: Mapping[str, str] = field(default_factory=dict)
    """Column of scores of a label, where the names differ."""
    label_columns: Mapping[str, str] = field(default_factory=dict)
    """Column of truths of a label, where the names differ."""
    long: tuple[str, str] | None = None
    """The columns of label and score of a table with one row for each label."""
    files: Any = None
    """The `files.parquet` of scores that `medclip score` wrote; None: the one beside them."""
    level: ExamLevel | None = None
    """Of the scores of mammography examinations (`medclip score --exam`): whether a row of the audit is an exam, a
    breast or an image. None: the studies of scores.parquet."""
    scores: Literal["probabilities", "logits", "any"] = "probabilities"
    """What scores are: probabilities; logits, which are turned into them; or any numbers, higher for more likely."""
    where: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    """Rows of the label table that are used: column and value or values."""
    score_where: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    """The same of the table of scores, such as one model of several."""
    uncertain: Literal["ignore", "zero", "one"] = "ignore"
    """What -1 and "uncertain" mean: not known (U-Ignore), negative (U-Zero), positive (U-One)."""
    blank: Literal["ignore", "zero"] = "ignore"
    """What an empty cell of a label means: not known, or negative."""
    label_list: str | None = None
    """Column that lists the findings of a row, such as "Pneumonia|Effusion"."""
    separator: str = "|"
    """What stands between two findings of such a list."""
    time: str | None = None
    """Column of the time to the event or to the end of follow-up, which makes the labels times to events."""
    event: str | None = None
    """Column that says whether the event was seen, where it is not the label's own."""
    no_finding: Sequence[str] = ()
    """Labels that mean a healthy patient; "No Finding" and the like are known."""
    patient: str | None = None
    """Column that names the patient; None: `patient`, `patient_id`, `subject_id`, ... "COLUMN~PATTERN" takes the part
    of the cell that a regular expression finds, such as "Path~patient[0-9]+" where only the path names the patient."""
    patients: Literal["column", "rows"] = "column"
    """"rows": every row counts as a patient of its own, which makes intervals too narrow where that is not true."""
    all_pairs: bool = False
    """Also every pair of the attributes."""
    age_bins: str | Sequence[float] | None = None
    """Lower edges of the bands of age in years, or "cxr" for those of the published chest X-ray audit."""
    age_unit: Literal["years", "months", "days"] = "years"
    """Unit of ages that are written as plain numbers."""
    bins: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Edges between the groups of a column of numbers, such as {"bmi": [18.5, 25, 30]}."""
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What the values of an attribute mean, such as {"sex": {"0": "M", "1": "F"}}."""
    min_group: int = 10
    """Of an attribute with very many values those with fewer rows or patients are put together."""
    ordinal: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Labels in ordered classes, the lowest first, such as {"density": ["A", "B", "C", "D"]}; "COLUMN:PREDICTED" names
    the column of predicted classes, where it is not found by its name."""
    grade: Literal["argmax", "expected"] = "argmax"
    """What is predicted where each class has a probability: the likeliest, or the one nearest to the mean grade."""
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
