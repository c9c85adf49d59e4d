"""Tables of open sets of which more is read than their columns: answers, own words, records, squares of films.

A suite names one as `table.reader`. It adds columns to those of labels.csv: `own:modality` in medclip's names, empty
where the set does not state it, and `own:text`, the first of the set's own words about an image that may be quoted
(`medclip.text.captions.quoted_words`); of ECG records their labels, as `medclip shards build` takes them. Who trains on
such a set reads it with the same functions.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.files.output import make_folder, write_file
from medclip.files.tables.ecg import ptbxl
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import Table
from medclip.imaging.ecg.formats.wfdb import wfdb_record
from medclip.models.inputs.signal_input import STD_MV
from medclip.text.captions import quoted_words

if TYPE_CHECKING:
    from PIL import Image

Cells = Mapping[str, str]
Columns = dict[str, list[str]]
MODALITY, TEXT = "own:modality", "own:text"
Reader = Literal["cdd_cesm", "csdi_fundus", "kermany_cxr", "medpix2", "ptbxl", "ptbxl_z", "vqa_rad"]
SQUARE_PX = 192
"""Side of a film's square: the shorter side of kermany_cxr's films is 175 px or more."""
_QUESTIONS = "qa.csv"
_ARCHIVE = "ecg_z.npz"
_MEDPIX = {"CT": "ct", "MR": "mri"}
_BY_ANSWER = {
    "ct": re.compile(r"\b(?:ct|computed tomography)\b", re.I),
    "mri": re.compile(r"\b(?:mri?|flair|dwi|diffusion|t[12])\b", re.I),
    "xray": re.compile(r"\b(?:x-?ray|cxr|plain film|radiograph)\b", re.I),
}


def read_open_table(path: Path, reader: Reader | None, unpacked: Path) -> Table:
    """Read a set's labels.csv, with the columns that its reader adds.

    Args:
        path: The table.
        reader: Name of the reader; None for the table as it is.
        unpacked: Folder that records are written in that stand in one archive, and squares of films.

    Raises:
        MedclipError: MISSING_FILE or CORRUPT for what lies beside the table; TABLE_INVALID for one of
            another set than the suite names.
    """
    table = read_table(path)
    if reader is None:
        return table
    import pyarrow as pa

    try:
        added = _READERS[reader](list(table.rows()), path.parent, unpacked)
    except KeyError as e:
        raise MedclipError(
            Reason.TABLE_INVALID, f"there is no column {str(e.args[0])!r}, which the set {reader} has.", where=path
        ) from None
    arrow = table.arrow.drop_columns([name for name in added if name in table.names])
    for name, cells in added.items():
        arrow = arrow.append_column(name, pa.array(cells, pa.string()))
    return Table(arrow, table.where, table.path, table.form)


def modality_of(pairs: Iterable[Cells], organ: str) -> str:
    """Return the modality that the answers about an image of VQA-RAD state; "" where they do not, or disagree.

    Every chest of the set is an X-ray unless somebody says otherwise.

    Args:
        pairs: Questions and answers of the image.
        organ: Organ, as the set names it.

    Example:
        >>> modality_of([{"question": "Is this a CT?", "answer": "Yes", "question_type": "MODALITY"}], "HEAD")
        'ct'
    """
    stated = set()
    for pair in pairs:
        answer = pair["answer"].strip().lower()
        if answer in ("yes", "no"):
            text = pair["question"] if answer == "yes" and re.match(r"(?i)is this\b", pair["question"]) else ""
        else:
            text = pair["answer"] if "MODALITY" in pair["question_type"] else ""
        stated |= {name for name, pattern in _BY_ANSWER.items() if pattern.search(text)}
    if not stated and organ == "CHEST":
        return "xray"
    return stated.pop() if len(stated) == 1 else ""


def write_records(archive: Path, out: Path, mv_of_unit: float = 1.0) -> None:
    """Write the records of the one archive of `ptbxl_z` as WFDB, each by its number; the same archive, the same bytes.

    Args:
        archive: Archive `ecg_z.npz`: signal [N, T, L] in units of `scale`, leads, fs in Hz, ecg_id.
        out: Folder of the records; made if it is not there.
        mv_of_unit: Millivolts of one unit: each lead was divided by its own standard deviation.

    Raises:
        MedclipError: MISSING_FILE, or CORRUPT for an archive of another form.
    """
    try:
        with np.load(archive, allow_pickle=False) as stored:
            names = [str(name) for name in stored["leads"]]
            hz, scale, signals, numbers = (
                float(stored["fs"]),
                float(stored["scale"]),
                stored["signal"],
                stored["ecg_id"],
            )
    except FileNotFoundError as e:
        raise MedclipError(
            Reason.MISSING_FILE,
            "the archive of the records is not here.",
            where=archive,
            hint="It belongs beside labels.csv.",
        ) from e
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as e:
        raise MedclipError(Reason.CORRUPT, "this is no archive of ECG records.", where=archive) from e
    make_folder(out)
    for number, signal in zip(numbers.tolist(), signals, strict=True):
        leads_mv = (signal.T * (scale * mv_of_unit)).astype(np.float32)
        content, header = wfdb_record(str(number), leads_mv, hz, names)
        write_file(out / f"{number}.dat", content)
        write_file(out / f"{number}.hea", header)


def square_film(image: Image.Image, side_px: int = SQUARE_PX) -> Image.Image:
    """Cut out the central square of a film and bring it to one size, in grey.

    Of kermany_cxr the shape and the size of a file tell normal from pneumonia; its square has neither.

    Args:
        image: The film.
        side_px: Side of what is returned.
    """
    from PIL import Image as pil

    grey, side = image.convert("L"), min(image.size)
    left, top = ((length - side) / 2 for length in grey.size)
    return grey.resize((side_px, side_px), pil.Resampling.LANCZOS, box=(left, top, left + side, top + side))


def write_square(film: Path, folder: Path) -> Path:
    """Write the square of a film into a folder, once, and return its path; that of the film where it is no image."""
    from PIL import Image as pil

    path = folder / f"{film.stem}.png"
    if path.exists():
        return path
    make_folder(folder)
    content = io.BytesIO()
    try:
        with pil.open(film) as image:
            square_film(image).save(content, "PNG")
    except OSError:
        return film  # whoever reads it says what is wrong
    write_file(path, content.getvalue())
    return path


def _first(texts: Iterable[str]) -> str:
    return quoted_words.joined(texts).partition("\n")[0]


def _cdd_cesm(rows: Sequence[Cells], _folder: Path, _unpacked: Path) -> Columns:
    return {TEXT: [_first(quoted_words.findings_of(row["findings"])) for row in rows]}


def _csdi_fundus(rows: Sequence[Cells], _folder: Path, _unpacked: Path) -> Columns:
    return {TEXT: [_first(quoted_words.quotable(row["text_en"])) for row in rows]}


def _kermany_cxr(rows: Sequence[Cells], folder: Path, unpacked: Path) -> Columns:
    return {"file": [str(write_square(folder / row["file"], unpacked / "kermany_cxr")) for row in rows]}


def _medpix2(rows: Sequence[Cells], _folder: Path, _unpacked: Path) -> Columns:
    modalities = ["" if row["plane"] == "Photograph" else _MEDPIX.get(row["modality"], "") for row in rows]
    return {MODALITY: modalities, TEXT: [_first(quoted_words.of_teaching_file(row)) for row in rows]}


def _vqa_rad(rows: Sequence[Cells], folder: Path, _unpacked: Path) -> Columns:
    pairs: dict[str, list[Cells]] = {}
    for pair in read_table(folder / _QUESTIONS).rows():
        pairs.setdefault(pair["file"], []).append(pair)
    return {
        MODALITY: [modality_of(pairs.get(row["file"], ()), row["organ"]) for row in rows],
        TEXT: [_first(quoted_words.of_answers(pairs.get(row["file"], ()))) for row in rows],
    }


def _ptbxl(rows: Sequence[Cells], _folder: Path, _unpacked: Path) -> Columns:
    return _of_records([row.cells() for row in ptbxl.read(rows).rows])


def _ptbxl_z(rows: Sequence[Cells], folder: Path, unpacked: Path) -> Columns:
    out = unpacked / "ptbxl_z"
    if not out.is_dir():
        write_records(folder / _ARCHIVE, out, STD_MV)
    columns = _of_records([row.cells() for row in ptbxl.read_z(rows).rows])
    return columns | {"file": [str(out / f"{row['key']}.hea") for row in rows]}


def _of_records(cells: Sequence[Mapping[str, str]]) -> Columns:
    names = dict.fromkeys(["file", "patient", *(n for row in cells for n in row if n.startswith("label:"))])
    return {name: [row.get(name, "") for row in cells] for name in names}


_READERS: Mapping[str, Callable[[Sequence[Cells], Path, Path], Columns]] = {
    "cdd_cesm": _cdd_cesm,
    "csdi_fundus": _csdi_fundus,
    "kermany_cxr": _kermany_cxr,
    "medpix2": _medpix2,
    "ptbxl": _ptbxl,
    "ptbxl_z": _ptbxl_z,
    "vqa_rad": _vqa_rad,
}
