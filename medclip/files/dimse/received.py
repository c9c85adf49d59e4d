"""Objects that were received, in a folder of bounded size: what a sender was told to be stored is on the disk.

An object is written as a draft while it comes. Once it is whole it is brought to the disk, renamed into the folder of
its study, and only then answered for; what was not answered for leaves nothing. Names are keyed hashes of UIDs, those
that files of a PACS have in `medclip.files.dicomweb`.

Two objects with one SOP Instance UID: the same bytes are one file, and of different ones the later counts, as a scanner
that corrects a header sends it again.
"""

from __future__ import annotations

import filecmp
import io
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from medclip.dicom.header.deflated import UID as DEFLATED
from medclip.dicom.header.elements import quiet
from medclip.dicom.header.read import read_header
from medclip.files.dicomweb.spool import OURS
from medclip.files.output import bring_to_disk, disk_errors, draft_of, make_folder, remove_drafts
from medclip.files.pseudonyms import keyed_hash
from medclip.sample import Stamp
from medclip.settings import Settings

FLOOR_BYTES = 1_000_000_000
"""So much of the disk stays free: the ledger and the tables need room, too."""
SUCCESS, OUT_OF_RESOURCES, NOT_ITS_CLASS, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000
"""Statuses of C-STORE (PS3.4, B.2.3)."""
_FULL = "The disk took no more: objects were refused, and their senders have them."
_HEAD_BYTES = 4 << 20
"""The study's UID lies in these bytes, in front of all that is large."""
_TAGS = {"class": 0x00080016, "instance": 0x00080018, "manufacturer": 0x00080070, "study": 0x0020000D}


class Draft:
    """An object that is coming. It takes all that comes and keeps it while it may; whether it did, `fault` says.

    It is what pynetdicom writes fragments to: `file`, `name`, `write`, `flush` and `close` are its names.
    """

    def __init__(self, folder: Received, sop_class: str, uid: str, syntax: str) -> None:
        self.sop_class, self.uid, self.syntax = sop_class, uid, syntax
        self.path = draft_of(folder.studies / "object")
        self.name, self.file = str(self.path), self
        self.num_bytes = 0
        self.fault = SUCCESS
        self._folder, self._open = folder, None
        try:
            self._open = os.fdopen(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb", buffering=0)
        except OSError:
            self.fault = OUT_OF_RESOURCES
        try:
            self.write(_meta(sop_class, uid, syntax))
        except Exception:  # what should be UIDs is none, and pydicom refuses it by errors of many types
            self.fault = NOT_UNDERSTOOD

    def write(self, data: bytes) -> None:
        """Take a fragment."""
        if self.fault or self._open is None:
            return
        self.fault = self._folder.take(len(data), self.num_bytes)
        if self.fault:
            return
        self.num_bytes += len(data)
        view = memoryview(data)
        try:
            while view:
                view = view[self._open.write(view) :]
        except OSError:  # the disk is full, or broken
            self.fault = OUT_OF_RESOURCES
            self._folder.news[_FULL] += 1

    def flush(self) -> None:
        """Do nothing: it is brought to the disk once it is whole."""

    def close(self) -> None:
        """Bring it to the disk."""
        file, self._open = self._open, None
        if file is None:
            return
        try:
            with file:
                if not self.fault:
                    os.fsync(file.fileno())
        except OSError:
            self.fault = OUT_OF_RESOURCES
            self._folder.news[_FULL] += 1

    def discard(self) -> None:
        """Remove it. It may have been kept, and is no draft any more."""
        if self._open is not None:
            with suppress(OSError):
                self._open.close()
            self._open = None
        self._folder.drop(self)


class Received:
    """The folder.

    Args:
        folder: `medclip.files.discover.RECEIVED` in the output folder.
        key: Key of the identity hashes.
        settings: Limits: `spool_bytes` of the folder, `max_file_bytes` of one object.
        now: Function that returns seconds since the epoch.
    """

    def __init__(self, folder: Path, key: bytes, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self.folder, self.studies = folder, folder / "studies"
        self.news: Counter[str] = Counter()
        """Sentences for the log, and how often each was meant."""
        self.num_bytes = 0
        self._key, self._limit, self._most = key, settings.spool_bytes, settings.max_file_bytes
        self._now = now
        self._lock = threading.RLock()
        self._open: set[Draft] = set()
        self._done: dict[str, dict[str, Stamp]] = {}

    def begin(self) -> None:
        """Make the folder, remove what a kill left half received, and count the rest.

        Raises:
            MedclipError: As `disk_errors`.
        """
        with disk_errors(self.folder):
            make_folder(self.studies)
            remove_drafts(self.studies)
        self.num_bytes = sum(stamp.size_bytes for files in self.files() for stamp in files[1].values())

    # Objects that come.

    def draft(self, sop_class: str, uid: str, syntax: str) -> Draft:
        """Begin to write an object."""
        draft = Draft(self, sop_class, uid, syntax)
        with self._lock:
            self._open.add(draft)
        return draft

    def take(self, num_bytes: int, num_before: int) -> int:
        """Return whether some bytes more of one object may come: `SUCCESS`, or why not. They count from now on."""
        if num_before + num_bytes > self._most:
            self.news[f"Objects of more than {self._most:,} bytes (max_file_bytes) were refused."] += 1
            return OUT_OF_RESOURCES
        with self._lock:
            self._make_room(num_bytes)
            if self.num_bytes + num_bytes > self._limit:
                self.news[
                    f"The folder of received objects holds as much as it may ({self._limit:,} bytes, spool_bytes): "
                    "objects were refused, and their senders have them."
                ] += 1
                return OUT_OF_RESOURCES
            if shutil.disk_usage(self.studies).free - num_bytes < FLOOR_BYTES:
                self.news[
                    f"Less than {FLOOR_BYTES:,} bytes of the disk are free: objects were refused, and their senders "
                    "have them."
                ] += 1
                return OUT_OF_RESOURCES
            self.num_bytes += num_bytes
        return SUCCESS

    def drop(self, draft: Draft) -> None:
        """Remove a draft that was not kept, and count its bytes no more."""
        with self._lock:
            if draft in self._open:
                self._open.discard(draft)
                self.num_bytes -= draft.num_bytes
                with suppress(OSError):
                    os.unlink(draft.path)

    def keep(self, draft: Draft) -> int:
        """Put an object that has come whole in its place; return the status that its sender is answered with."""
        draft.close()
        status = draft.fault or self._keep(draft)
        draft.discard()
        return status

    def _keep(self, draft: Draft) -> int:
        facts = _facts_of(draft)
        if not facts.get("study") or not draft.uid:
            self.news["Objects without a readable header or without the UID of a study were refused."] += 1
            return NOT_UNDERSTOOD
        if (facts.get("class"), facts.get("instance")) != (draft.sop_class, draft.uid):
            self.news["Objects were refused: their header names another class or instance than the sender did."] += 1
            return NOT_ITS_CLASS
        if facts.get("manufacturer") == OURS:
            self.news["Heat maps that medclip made came back; they are no images to score, and were left."] += 1
            return SUCCESS
        target = self.studies / self.study_of(facts["study"]) / self.file_of(draft.uid)
        try:
            with self._lock:
                if draft not in self._open:  # its association ended meanwhile
                    return OUT_OF_RESOURCES
                before = target.stat().st_size if target.exists() else None
                if before == draft.num_bytes and filecmp.cmp(target, draft.path, shallow=False):
                    return SUCCESS
                if not target.parent.exists():
                    make_folder(target.parent)
                    bring_to_disk(self.studies)
                os.replace(draft.path, target)
                bring_to_disk(target.parent)
                self._open.discard(draft)
                self._done.pop(target.parent.name, None)
                if before is not None:
                    self.num_bytes -= before
                    self.news["Objects came again with other content; the later one counts."] += 1
        except OSError:
            self.news[_FULL] += 1
            return OUT_OF_RESOURCES
        return SUCCESS

    def study_of(self, uid: str) -> str:
        """Return the folder of a study."""
        return keyed_hash("study", f"uid\0{uid}", self._key)

    def file_of(self, uid: str) -> str:
        """Return the name of an object's file in the folder of its study."""
        return f"{keyed_hash('instance', uid, self._key)}.dcm"

    # What there is.

    def files(self) -> Iterator[tuple[str, dict[str, Stamp]]]:
        """Yield the studies by name, with the files of each: "STUDY/FILE", and by what it is known again."""
        for study in sorted(entry.name for entry in os.scandir(self.studies) if entry.is_dir()):
            files: dict[str, Stamp] = {}
            with suppress(FileNotFoundError), os.scandir(self.studies / study) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        files[f"{study}/{entry.name}"] = Stamp.of(os.stat(entry.path))
            yield study, dict(sorted(files.items()))

    def on_disk(self, uids: Iterable[str]) -> dict[str, str]:
        """Return which instances are here, with their SOP classes."""
        from pydicom.filereader import read_file_meta_info

        names = {self.file_of(uid): uid for uid in uids}
        here: dict[str, str] = {}
        with os.scandir(self.studies) as studies:
            for study in (entry for entry in studies if entry.is_dir()):
                for name, uid in names.items():
                    path = os.path.join(study.path, name)
                    if os.path.exists(path):
                        with suppress(FileNotFoundError):  # it went meanwhile
                            here[uid] = str(read_file_meta_info(path).MediaStorageSOPClassUID)
        return here

    # What may go.

    def may_go(self, study: str, files: Mapping[str, Stamp]) -> None:
        """Take note that a study's files are done with: rows committed, results sent. Room may be made of them."""
        with self._lock, suppress(FileNotFoundError):
            if set(os.listdir(self.studies / study)) == {name.partition("/")[2] for name in files}:  # else another came
                self._done[study] = dict(files)

    def release_older(self, seconds: float) -> None:
        """Remove the studies that are done with and whose last object came so long ago."""
        with self._lock:
            for study, files in list(self._done.items()):
                if self._now() - _last(files) >= seconds:
                    self._release(study)

    def _make_room(self, num_bytes: int) -> None:
        while self.num_bytes + num_bytes > self._limit and self._done:
            self._release(min(self._done, key=lambda study: _last(self._done[study])))

    def _release(self, study: str) -> None:
        for name, stamp in self._done.pop(study).items():
            path = self.studies / name
            with suppress(OSError):
                if Stamp.of(path.stat()) == stamp:  # another one may have come under this name
                    path.unlink()
                    self.num_bytes -= stamp.size_bytes
        with suppress(OSError):  # other files came
            (self.studies / study).rmdir()


def _last(files: Mapping[str, Stamp]) -> float:
    return max((stamp.mtime_ns for stamp in files.values()), default=0) / 1e9


def _meta(sop_class: str, uid: str, syntax: str) -> bytes:
    """Return preamble and meta information (PS3.10, 7.1), the same whoever sends: one object is one file."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filewriter import write_file_meta_info
    from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID(uid)
    meta.TransferSyntaxUID, meta.ImplementationClassUID = UID(syntax), PYDICOM_IMPLEMENTATION_UID
    buffer = io.BytesIO()
    with quiet("pydicom"):
        write_file_meta_info(buffer, meta)  # pyright: ignore[reportArgumentType]
    return bytes(128) + b"DICM" + buffer.getvalue()


def _facts_of(draft: Draft) -> dict[str, str]:
    """Return what the header of an object says; nothing where it cannot be read.

    Only its first elements are parsed here; all else is done in reading processes, which may die of it.
    """
    from pydicom.filereader import read_partial

    try:
        with draft.path.open("rb") as file, quiet("pydicom"):
            if draft.syntax == DEFLATED:
                header = read_header(file)
                values = (header.sop_class, header.instance_uid, header.manufacturer, header.study_uid)
                return dict(zip(_TAGS, values, strict=True))
            dataset: Any = read_partial(
                io.BytesIO(file.read(_HEAD_BYTES)),
                stop_when=lambda tag, vr, length: int(tag) > _TAGS["study"],
                specific_tags=list(_TAGS.values()),
            )
            return {name: str(dataset[tag].value) for name, tag in _TAGS.items() if tag in dataset}
    except Exception:  # pydicom raises many types, whose texts quote values
        return {}
