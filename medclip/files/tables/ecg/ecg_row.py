"""One ECG as a table states it: what all sets are read into, and its cells in a table for shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from medclip.errors import MedclipError
from medclip.text.ecg_statements import CleanedReport

Cells = Mapping[str, str]
HEADER = ".hea"
_SUFFIXES = (HEADER, ".dat", ".mat", ".edf", ".xml", ".dcm", ".scp", ".ecg")


@dataclass(frozen=True)
class EcgRow:
    """One record."""

    file: str
    """Relative to the folder of the set's records."""
    patient: str
    """As the set numbers them; "" where it does not."""
    codes: tuple[str, ...] = ()
    """Its SCP-ECG statements, as far as the table states them."""
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """0 or 1 by task and class; a class that nobody looked for is not there."""
    report: CleanedReport | None = None
    study: str = ""
    exam_date: str = ""
    age: str = ""
    sex: str = ""
    split: str = ""
    texts: tuple[str, ...] = ()
    source: Cells = field(default_factory=dict, repr=False, compare=False)
    """The set's own row of it."""

    def cells(self) -> dict[str, str]:
        """Return its cells in a table that `medclip shards build` reads."""
        plain = {
            "file": self.file,
            "patient": self.patient,
            "study": self.study,
            "modality": "ecg",
            "exam_date": self.exam_date,
            "age": self.age,
            "sex": self.sex,
            "split": self.split,
            "language": self.report.language if self.report else "",
            "scp_codes": "|".join(self.codes),
        }
        return plain | {f"label:{t}:{c}": str(v) for t, classes in self.labels.items() for c, v in classes.items()}


@dataclass(frozen=True)
class EcgReading:
    """What became of the rows of a set's table."""

    rows: tuple[EcgRow, ...]
    notes: tuple[str, ...] = ()


def records_of(rows: Iterable[Cells], read: Callable[[Cells], EcgRow]) -> tuple[EcgRow, ...]:
    """Read one row after the other.

    Raises:
        MedclipError: What `read` raises, with the number of the row.
    """
    records = []
    for number, row in enumerate(rows, 1):
        try:
            records.append(read(row))
        except MedclipError as e:
            raise MedclipError(e.reason, f"row {number}: {e.message}", hint=e.hint) from None
    return tuple(records)


def record_file(path: str) -> str:
    """Name the file of a WFDB record, which tables name without its suffix.

    Example:
        >>> record_file("records500/00000/00001_hr"), record_file("A0001.mat")
        ('records500/00000/00001_hr.hea', 'A0001.mat')
    """
    return path if not path or path.lower().endswith(_SUFFIXES) else path + HEADER


def without_fraction(cell: str) -> str:
    """Return a whole number without the ".0" that data frames write; anything else as it is.

    Example:
        >>> without_fraction("13243.0"), without_fraction("p 4")
        ('13243', 'p 4')
    """
    number, _, rest = cell.partition(".")
    return number if number.isdigit() and not rest.strip("0") else cell


def first_of(row: Cells, columns: Sequence[str]) -> str:
    """Return the first cell that is not empty."""
    return next((row[c] for c in columns if row.get(c)), "")
