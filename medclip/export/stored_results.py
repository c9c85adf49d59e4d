"""Send the DICOM results of a run to a PACS by STOW, each once: what is stored already is not sent again.

A note in the folder of results says what of each study was stored where. A call that is stopped sends again at most
what it did not write down; the objects have the same UIDs, and a PACS keeps one. A file that was sent is known again by
its size, time and inode, and read once more only where these differ; they stand in a journal of their own, so that the
note of two runs is the same. A study whose results changed (it grew, or its model did) is sent anew, as new objects
beside the old ones: what was sent to others is not taken back.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from medclip.dicom.header.elements import quiet
from medclip.files.output import digest_of, read_own_note, write_note
from medclip.progress import Progress
from medclip.sample import Stamp
from medclip.wording import count

NOTE = "stored.json"
JOURNAL = "journal.stored.json"
_WHAT, _WHAT_FILES = "list of what a PACS has", "list of files that a PACS has"
_AT_ONCE = 50
"""Files after which the note is written again, at least: it holds them all."""
_SHARE = 20
"""It is written for a twentieth of what it holds, so that a million files cost no more a file than a thousand."""
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


class StoreNote:
    """Sends files to a server, and writes down what it has.

    Args:
        results: Folder that `ResultsFolder` writes.
        server: Server that files go to.
    """

    def __init__(self, results: Path, server: Server) -> None:
        self._results, self._server = results, server
        self._where = digest_of(str(server.place))
        self._num_new = 0
        self._read: dict[str, dict[str, Any]] = {}

    def _known(self, name: str, what: str) -> dict[str, Any]:
        if name not in self._read:
            self._read[name] = read_own_note(self._results / name, what) or {}
            self._read[name].setdefault("sent", {}).setdefault(self._where, {})
        return self._read[name]

    @property
    def _digests(self) -> dict[str, str]:
        return self._known(NOTE, _WHAT)["sent"][self._where]

    @property
    def _stamps(self) -> dict[str, str]:
        return self._known(JOURNAL, _WHAT_FILES)["sent"][self._where]

    def has(self, path: Path) -> bool:
        """Return whether the server has a file, known without reading it: it is the one on the disk that was sent."""
        return _name(path) in self._digests and self._stamps.get(_name(path)) == _stamp(path)

    def send(self, path: Path) -> bool:
        """Send a file unless the server has it; return whether it does now.

        Raises:
            MedclipError: UNREACHABLE, PERMISSION_DENIED; as `medclip.files.output.disk_errors`.
        """
        if self.has(path):
            return True
        stamp, content = _stamp(path), path.read_bytes()
        digest = _digest(content)
        if self._digests.get(_name(path)) != digest and not self._server.store(content):
            return False
        self._digests[_name(path)], self._stamps[_name(path)] = digest, stamp
        self._num_new += 1
        if self._num_new >= max(_AT_ONCE, len(self._digests) // _SHARE):
            self.write()
        return True

    def write(self) -> None:
        """Write the note, if anything was sent since."""
        if self._num_new:
            # The journal last: what it names is in the note.
            write_note(self._results / NOTE, _WHAT, self._known(NOTE, _WHAT))
            write_note(self._results / JOURNAL, _WHAT_FILES, self._known(JOURNAL, _WHAT_FILES))
            self._num_new = 0


def store_results(results: Path, server: Server, progress: Progress) -> Stored:
    """Send the DICOM files of a folder of results.

    Args:
        results: Folder that `ResultsFolder` wrote.
        server: Server that the files go to.
        progress: Progress bar of the files.

    Raises:
        MedclipError: UNREACHABLE, PERMISSION_DENIED; as `medclip.files.output.disk_errors`.
    """
    note = StoreNote(results, server)
    files = sorted(_files(results))
    left = [path for path in files if not note.has(path)]
    progress.stage("Sending results to the PACS", len(files), len(files) - len(left))
    refused: set[str] = set()
    try:
        for path in left:
            if not note.send(path):
                refused.add(path.stem)
            progress.step()
    finally:
        note.write()
    return Stored(len({path.stem for path in files} - refused), len(refused))


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _stamp(path: Path) -> str:
    """Return by what a file is known again; results are put in place whole, so that another one is another file."""
    return " ".join(str(value) for value in Stamp.of(path.stat()))


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
