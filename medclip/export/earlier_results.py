"""The result of a study that a new one replaces: which it is, and what a DICOM object says of it.

A report that replaces another names it, so that whoever has both knows which one counts: an SR in its Predecessor
Documents Sequence, a heat map, for which the standard has no such sequence, in its Referenced Image Sequence. One that
says the same as the earlier one replaces nothing: it is the earlier one, byte for byte, and a PACS keeps one.

What counts as earlier is what may have gone out: results of a folder whose run was complete, those that a server has,
and those of a folder that is named. Drafts of a run that was stopped do not: it ends in the same bytes as one that was
not.

Standard: DICOM PS3.3 C.17.2, C.12.4.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.dicom.header.elements import quiet
from medclip.errors import MedclipError, Reason
from medclip.export.study_result import coding_of
from medclip.files.output import read_own_note

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

RESULTS_NOTE, STORED_NOTE = "results.json", "stored.json"
STORED = "list of what a PACS has"
_RESULTS = "results"
REPLACED = coding_of("heat map that this one replaces", "Heat map that this one replaces")
"""Purpose of a reference from one heat map to another."""
_TIMES = {
    *("InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime", "ContributionDateTime"),
    *("DateOfSecondaryCapture", "TimeOfSecondaryCapture", "SOPInstanceUID", "SeriesInstanceUID"),
}
"""What differs in a report that is written anew and says the same."""
_SEQUENCES = ("PredecessorDocumentsSequence", "ReferencedImageSequence")
"""What names earlier objects."""


def earlier_folder(place: Path) -> Path:
    """Return the folder of earlier results that a person named: itself, or that of a run in its output folder.

    Raises:
        MedclipError: MISSING_FILE where there are none.
    """
    for folder in (place, place / _RESULTS):
        if (folder / RESULTS_NOTE).is_file():
            return folder
    raise MedclipError(
        Reason.MISSING_FILE,
        "there are no earlier results here that new ones could replace.",
        where=place,
        hint=f"Name the folder that has {RESULTS_NOTE}, or the output folder of the run that wrote it.",
    )


def content_digest(dataset: Dataset) -> str:
    """Hash what an object says, without when it was written."""
    items = [
        f"{item.tag} {hashlib.sha256(item.value).hexdigest()}" if isinstance(item.value, bytes) else str(item)
        for item in dataset.iterall()
        if item.keyword not in _TIMES and item.VR != "SQ" and not item.tag.is_private
    ]
    return hashlib.sha256("\n".join(items).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def sent_digest(content: bytes) -> str:
    """Hash what a file says, for the list of what a server has."""
    if not content.startswith(b"{"):
        with quiet("pydicom"):
            return content_digest(_dataset(content))
    from medclip.export.fhir import bundle_digest

    return bundle_digest(json.loads(content))


def was_sent(results: Path, path: Path) -> bool:
    """Whether some server has a file of a folder of results as it is."""
    note = read_own_note(results / STORED_NOTE, STORED) or {}
    digests = {sent.get(f"{path.parent.name}/{path.stem}") for sent in (note.get("sent") or {}).values()} - {None}
    return bool(digests) and sent_digest(path.read_bytes()) in digests


def written_at(path: Path) -> datetime | None:
    """Return when a result counts as made, in the zone of its maker; None for one that does not say so."""
    try:
        if path.suffix == ".json":
            return datetime.fromisoformat(json.loads(path.read_bytes())["timestamp"]).replace(tzinfo=None)
        import pydicom

        with quiet("pydicom"):
            header: Any = pydicom.dcmread(
                path, specific_tags=["InstanceCreationDate", "InstanceCreationTime"], stop_before_pixels=True
            )
            text = f"{header.InstanceCreationDate}{header.InstanceCreationTime}"
            return datetime.strptime(text[:14], "%Y%m%d%H%M%S")
    except Exception:  # of a damaged file, which pydicom raises many types for; the texts may quote header values
        return None


def newest(write: Callable[[Sequence[Dataset]], bytes], earlier: Sequence[bytes]) -> bytes:
    """Return an object that names those that it replaces; an earlier one that says the same is returned as it is.

    Args:
        write: Function that writes the object, from the earlier ones that it has to name.
        earlier: Files of earlier objects; what is of another study or class is passed over.
    """
    content = write(())
    if not earlier:
        return content
    with quiet("pydicom"):
        new = _dataset(content)
        same: tuple[bytes, set[str], Dataset] | None = None
        replaced: list[Dataset] = []
        for file in earlier:
            with suppress(Exception):  # a damaged file is none; the texts may quote header values
                old = _dataset(file)
                if (old.StudyInstanceUID, old.SOPClassUID) != (new.StudyInstanceUID, new.SOPClassUID):
                    continue
                names = _take_names(old)
                if content_digest(old) == content_digest(new):
                    same = file, names, old
                else:
                    replaced.append(old)
        if same is None:
            return write(replaced) if replaced else content
        file, names, old = same
        return file if {str(one.SOPInstanceUID) for one in replaced} <= names else write([old, *replaced])


def reference_to(old: Dataset) -> Dataset:
    """Return the item of a heat map's Referenced Image Sequence that names the heat map that it replaces."""
    from pydicom.dataset import Dataset

    purpose, item = Dataset(), Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = REPLACED.value, REPLACED.scheme
    purpose.CodeMeaning = REPLACED.meaning
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = old.SOPClassUID, old.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def _take_names(old: Dataset) -> set[str]:
    """Take out of an object what names earlier ones; return their SOP Instance UIDs."""
    names: set[str] = set()
    for sequence in _SEQUENCES:
        if sequence in old:
            names |= {str(item.value) for item in _all_items(old[sequence].value)}
            delattr(old, sequence)
    return names


def _all_items(items: Any) -> list[Any]:
    return [item for one in items for item in one.iterall() if item.keyword == "ReferencedSOPInstanceUID"]


def _dataset(content: bytes) -> Any:
    import pydicom

    return pydicom.dcmread(io.BytesIO(content))
