"""Send the DICOM results of a run to a PACS by STOW, each once: what is stored already is not sent again.

A note in the folder of results says what of each study was stored where. A call that is stopped sends again at most
what it did not write down; the objects have the same UIDs, and a PACS keeps one. A study whose results changed (it
grew, or its model did) is sent anew, as new objects beside the old ones: what was sent to others is not taken back.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from medclip.dicom.header.quiet import quiet
from medclip.files.output import digest_of, read_own_note, write_note
from medclip.progress import Progress
from medclip.wording import count

NOTE = "stored.json"
_WHAT = "list of what a PACS has"
_AT_ONCE = 50
"""Files after which the note is written again."""
_TIMES = {
    *("InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime", "ContributionDateTime"),
    *("DateOfSecondaryCapture", "TimeOfSecondaryCapture", "SOPInstanceUID", "SeriesInstanceUID"),
}
"""What differs in a report that is written anew and says the same."""


class Server(Protocol):
    """Takes files."""

    @property
    def place(self) -> object:
        """Its URL."""
        ...

    def store(self, content: bytes) -> bool:
        """Send one file; return whether it is kept."""
        ...


@dataclass(frozen=True)
class Stored:
    """What became of the results."""

    stored: int
    """Studies whose results the server has, from this call or an earlier one."""
    refused: int
    """Studies whose results it does not take; the next call sends them again."""

    def sentence(self) -> str:
        """Write it in words."""
        refused = f"; {count(self.refused, 'study', 'studies')} refused by it" if self.refused else ""
        return f"Sent to the PACS: results of {count(self.stored, 'study', 'studies')}{refused}"


def store_results(results: Path, server: Server, progress: Progress) -> Stored:
    """Send the DICOM files of a folder of results.

    Args:
        results: What `ResultsFolder` wrote.
        server: Where they go.
        progress: Told how far it is.

    Raises:
        MedclipError: UNREACHABLE, PERMISSION_DENIED; as `medclip.files.output.disk_errors`.
    """
    known = read_own_note(results / NOTE, _WHAT) or {}
    where = digest_of(str(server.place))
    sent: dict[str, str] = dict(known.get("sent", {}).get(where, {}))
    note = {"sent": {**known.get("sent", {}), where: sent}}
    files = sorted(_files(results))
    progress.stage("Sending results to the PACS", len(files))
    refused: set[str] = set()
    num_new = 0
    try:
        for path in files:
            content = path.read_bytes()
            name, digest = f"{path.parent.name}/{path.stem}", _digest(content)
            if sent.get(name) != digest:
                if server.store(content):
                    sent[name] = digest
                    num_new += 1
                else:
                    refused.add(path.stem)
                if num_new and num_new % _AT_ONCE == 0:
                    write_note(results / NOTE, _WHAT, note)
            progress.step()
    finally:
        if num_new:
            write_note(results / NOTE, _WHAT, note)
    return Stored(len({path.stem for path in files} - refused), len(refused))


def _files(results: Path) -> Iterator[Path]:
    for folder in (path for path in results.iterdir() if path.is_dir()):
        yield from folder.glob("*.dcm")


def _digest(content: bytes) -> str:
    """Hash what a report says, without when it was written."""
    import pydicom

    with quiet("pydicom"):
        dataset: Any = pydicom.dcmread(io.BytesIO(content))
        items = [
            f"{item.tag} {hashlib.sha256(item.value).hexdigest()}" if isinstance(item.value, bytes) else str(item)
            for item in dataset.iterall()
            if item.keyword not in _TIMES and item.VR != "SQ" and not item.tag.is_private
        ]
    return hashlib.sha256("\n".join(items).encode("utf-8", "surrogateescape")).hexdigest()[:16]
