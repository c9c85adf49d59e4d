"""Where a set's images lie and what each is labelled: a labels.csv, or one folder for each class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medclip.adapters.base import combined_sha256, source_of
from medclip.errors import MedclipError, Reason
from medclip.evaluation.zero_shot.open_set_tables import MODALITY, read_open_table
from medclip.evaluation.zero_shot.suite import MasksFile, SetFile, TextsFile
from medclip.files.output import digest_of
from medclip.files.pseudonyms import keyed_hash
from medclip.files.tables.cells import shown
from medclip.files.tables.ecg.ecg_row import HEADER
from medclip.files.tables.table import close_names, listed
from medclip.models.packs.manifest import file_sha256
from medclip.sample import Modality
from medclip.settings import Settings

_SHOWN = 4

_RENAME = "Rename the column, or name yours under `table` in the suite file."


@dataclass(frozen=True)
class Labelled:
    """One labelled image."""

    row: int
    """Row of the table under its header from 1; for class folders the place in the order of paths."""
    path: Path
    """A file, or the folder of one series."""
    label: int
    """Class index."""
    patient: str | None = None
    """Keyed hash; None where nothing says whose image it is."""


@dataclass(frozen=True)
class LabelledSet:
    """A set that is there."""

    part: SetFile
    rows: tuple[Labelled, ...]
    layout: str
    """"table" or "class folders"."""
    num_left_out: int = 0
    """Images that the suite leaves out on purpose: other splits, classes mapped to null."""
    ignores_split: bool = False
    """The suite asks for a split and nothing says which images are in it: all are taken."""
    is_held_out: bool = False
    """Only files that the pack's figures were measured on."""

    @property
    def has_patients(self) -> bool:
        """Whether every image says whose it is."""
        return all(row.patient is not None for row in self.rows)

    @property
    def names_patients(self) -> bool:
        """Whether what images share is a patient, so that patients can be counted."""
        return self.has_patients and self.part.table.is_patient

    def held_out(self, measured: MeasuredFiles | None) -> LabelledSet:
        """Return the set with the files of a list alone, where the suite asks for that and there is one.

        Args:
            measured: The files that the pack's figures were measured on; None where it lists none.
        """
        if not self.part.held_out or measured is None:
            return self
        rows = tuple(row for row in self.rows if measured.has(row.path, str(self.part.modality)))
        return replace(self, rows=rows, num_left_out=self.num_left_out + len(self.rows) - len(rows), is_held_out=True)

    def digest(self, data: Path) -> str:
        """Hash of names, sizes, times, labels and patients: another one when the data changed. 16 hex characters."""
        return digest_of([[*named_file(r.path, data), r.label, r.patient] for r in self.rows])


@dataclass(frozen=True)
class ImageWithText:
    """One image and what its set says of it."""

    row: int
    """Row of the table under its header from 1."""
    path: Path
    modality: Modality
    text: str
    patient: str | None = None
    """Keyed hash; None where nothing says whose image it is."""


@dataclass(frozen=True)
class TextSet:
    """Images with the words of their source, that are there."""

    part: TextsFile
    rows: tuple[ImageWithText, ...]
    is_held_out: bool = False
    """Only files that the pack's figures were measured on."""

    def held_out(self, measured: MeasuredFiles | None) -> TextSet:
        """Return the set with the files of a list alone, as a labelled set does."""
        if not self.part.held_out or measured is None:
            return self
        rows = tuple(row for row in self.rows if measured.has(row.path, str(row.modality)))
        return replace(self, rows=rows, is_held_out=True)

    def digest(self, data: Path) -> str:
        """Hash of names, sizes, times, texts and patients. 16 hex characters."""
        return digest_of([[*named_file(r.path, data), r.modality, r.text, r.patient] for r in self.rows])


class MeasuredFiles:
    """The files that a pack's figures were measured on, and in which renderings; a file is hashed once.

    Args:
        ways: Renderings by the hash of each file, as `medclip.models.packs.card.measured_hashes` returns them.
    """

    def __init__(self, ways: Mapping[str, frozenset[str]]) -> None:
        self._ways = ways
        self._hashes: dict[Path, str | None] = {}

    def has(self, path: Path, way: str) -> bool:
        """Return whether figures were measured on a file, read by the adapter of this name."""
        if path not in self._hashes:
            self._hashes[path] = _sha256(path)
        ways = self._ways.get(self._hashes[path] or "")
        return ways is not None and (not ways or way in ways)


def move_images(one: LabelledSet | TextSet, data: Path, images: Path) -> LabelledSet | TextSet:
    """Return a set with its images below another folder than the one its table is below.

    A record out of an archive stays where it was written.
    """
    if images == data:
        return one

    def place(path: Path) -> Path:
        return images / path.relative_to(data) if path.is_relative_to(data) else path

    if isinstance(one, LabelledSet):
        return replace(one, rows=tuple(replace(row, path=place(row.path)) for row in one.rows))
    return replace(one, rows=tuple(replace(row, path=place(row.path)) for row in one.rows))


def places(part: SetFile | TextsFile | MasksFile) -> tuple[str, ...]:
    """List where a set is looked for, relative to the data folder."""
    if not isinstance(part, SetFile):
        return (f"{part.place}/{part.table.name}",)
    names = [name for name, meant in part.values.items() if meant is not None] or list(part.names)
    first_names = [*names[:_SHOWN], "..."] if len(names) > _SHOWN else names
    return (f"{part.place}/{part.table.name}", f"{part.place}/{{{','.join(first_names)}}}/")


def find_set(data: Path, part: SetFile, key: bytes, unpacked: Path | None = None) -> LabelledSet | None:
    """Find a set below the data folder.

    Args:
        data: The data folder.
        part: The suite's entry.
        key: Key that patient identifiers are hashed with.
        unpacked: Folder that records are written in that stand in one archive; it is needed for sets of such alone.

    Returns:
        The set; None where there is neither a table nor a class folder.

    Raises:
        MedclipError: TABLE_INVALID for a table without the columns it needs, a label or class folder that the suite
            does not know, or a file that stands twice.
    """
    folder = data / part.place
    table = folder / part.table.name
    if table.is_file():
        return _from_table(table, part, key, unpacked)
    folders = _inside(folder)
    folders = [child for child in folders if child.is_dir()]
    return _from_folders(folders, part) if folders else None


def find_texts(data: Path, part: TextsFile, key: bytes, unpacked: Path | None = None) -> TextSet | None:
    """Find images with texts below the data folder.

    Args:
        data: The data folder.
        part: The suite's entry.
        key: Key that patient identifiers are hashed with.
        unpacked: Folder for records, as in `find_set`.

    Returns:
        The set; None where there is no table.
    """
    table = data / part.place / part.table.name
    if not table.is_file():
        return None
    of_each = part.modality is None
    columns = (part.text, *((MODALITY,) if of_each else ()), *part.where)
    rows = []
    for number, cell, path, patient in table_rows(table, part, columns, key, unpacked):
        modality = cell[MODALITY] if of_each else str(part.modality)
        if cell[part.text] and modality and all(cell[column] in allowed for column, allowed in part.where.items()):
            rows.append(ImageWithText(number, path, Modality(modality), cell[part.text], patient))
    return TextSet(part, tuple(rows))


def _from_folders(folders: list[Path], part: SetFile) -> LabelledSet:
    rows: list[Labelled] = []
    left_out = 0
    for folder in folders:
        label = _class_of(part, folder.name, folder, "the folder's name")
        images = _inside(folder)
        if label is None:
            left_out += len(images)
        else:
            rows += [Labelled(len(rows) + n, image, label) for n, image in enumerate(images, 1)]
    return LabelledSet(part, tuple(rows), "class folders", left_out, part.split is not None)


def _from_table(table: Path, part: SetFile, key: bytes, unpacked: Path | None) -> LabelledSet:
    form = part.table
    rows: list[Labelled] = []
    left_out, by_split = 0, False
    columns = (*(() if part.constant else (form.label,)), *part.where)
    for number, cell, path, patient in table_rows(table, part, columns, key, unpacked):
        by_split = part.split is not None and form.split in cell
        in_split = not by_split or cell[form.split].lower() == str(part.split).lower()
        in_part = in_split and all(cell[column] in allowed for column, allowed in part.where.items())
        label = _label_of(part, cell, f"{table}, row {number}") if in_part else None
        if label is None:
            left_out += 1
        else:
            rows.append(Labelled(number, path, label, patient))
    return LabelledSet(part, tuple(rows), "table", left_out, part.split is not None and not by_split)


def table_rows(
    table: Path, part: SetFile | TextsFile | MasksFile, needed: Sequence[str], key: bytes, unpacked: Path | None
) -> Iterator[tuple[int, Mapping[str, str], Path, str | None]]:
    """Yield number, cells, path and patient of each row; columns that are needed and not there are refused."""
    form = part.table
    seen: set[str] = set()
    columns = (form.file, *needed)
    with_archives = unpacked if unpacked is not None else table.parent
    read = read_open_table(table, form.reader, with_archives)
    read = read.with_names(c for c in (*columns, form.split, form.patient) if c)
    header = read.names
    for column in columns:
        if column not in header:
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"there is no column {column!r}. {listed(header)}",
                where=table,
                hint=f"{close_names(column, header)} {_RENAME}".strip(),
            )
    by_patient = form.patient is not None and form.patient in header
    if form.patient not in (None, "patient") and not by_patient:
        raise MedclipError(Reason.TABLE_INVALID, f"there is no column {form.patient!r}.", where=table)
    for number, cell in enumerate(read.rows(), 1):
        where = f"{table}, row {number}"
        file = cell[form.file]
        if not file:
            raise MedclipError(Reason.TABLE_INVALID, f"`{form.file}` is empty.", where=where)
        if file in seen:
            raise MedclipError(Reason.TABLE_INVALID, "this file stands in the table a second time.", where=where)
        seen.add(file)
        whose = cell[str(form.patient)] if by_patient else ""
        yield number, cell, table.parent / file, keyed_hash("patient", whose, key) if whose else None


def _label_of(part: SetFile, cell: Mapping[str, str], where: object) -> int | None:
    if part.constant is not None:
        return part.names.index(part.constant)
    return _class_of(part, cell[part.table.label], where, f"`{part.table.label}`")


def _class_of(part: SetFile, value: str, where: object, what: str) -> int | None:
    try:
        return part.class_of(value)
    except KeyError:
        expected = ", ".join([*part.values, *(n for n in part.names if n not in part.values.values())])
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"{what} is {shown(value)}, which set {part.id} does not know; it knows: {expected}.",
            where=where,
            hint="Map it under `values` in the suite file; to null, to leave it out.",
        ) from None


def _inside(folder: Path) -> list[Path]:
    """List what is in a folder in the byte order of names, hidden things left out; nothing where there is none."""
    try:
        names = sorted(os.listdir(folder), key=os.fsencode)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as e:
        raise MedclipError(Reason.PERMISSION_DENIED, "the folder cannot be listed.", where=folder) from e
    return [folder / name for name in names if not name.startswith((".", "__MACOSX"))]


def named_file(path: Path, data: Path) -> tuple[str, list[int] | None]:
    """Return a path below the data folder with the state of what is there; of an unpacked record its name and bytes."""
    if path.is_relative_to(data):
        return str(path.relative_to(data)), _state(path)
    return f"{path.name} {_sha256(path)}", None


def _sha256(path: Path) -> str | None:
    """Hash a file as card lists do, a record with all its files; None for what is no file."""
    try:
        if path.suffix == HEADER:
            return combined_sha256(source_of(path, Settings()))
        return file_sha256(path)
    except (OSError, MedclipError):
        return None


def _state(path: Path) -> list[int] | None:
    """Return size and time of a file, or of all files in a folder; None for what is not there."""
    try:
        if path.is_dir():
            return [n for child in _inside(path) for n in _state(child) or ()]
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
