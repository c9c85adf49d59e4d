"""Studies of a PACS as files of a run: fetched study by study into a folder of bounded size, and removed once done.

Some threads list and fetch studies ahead while others are scored; they stop where the spool is half full. What is
asked for at once is fetched whatever the spool holds, so that a run never stands still: beyond its size it holds what
one window of files needs, which is one study where studies are large.

A study is read whole or not at all: where an object does not come that the server lists, all files of the study fail
with that reason, and `medclip retry --reason read_error` tries them again.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
import sqlite3
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

from medclip.dicom.header.elements import quiet
from medclip.errors import MedclipError, Problem, Reason
from medclip.files.dicomweb.server import DicomwebServer, Instance
from medclip.files.output import disk_errors, draft_of, make_folder
from medclip.files.pseudonyms import keyed_hash
from medclip.files.store_files import Inventory
from medclip.sample import FileRef
from medclip.settings import Settings
from medclip.wording import count, number

# The studies that a server listed, in the order of their hashed names: on disk, so that a million are no burden.

_AT_ONCE = 500


@dataclass(frozen=True)
class ListedStudy:
    """One study."""

    name: str
    """Keyed hash of its UID: the folder of its files."""
    uid: str
    num_instances: int | None
    """What the server says; None where it does not."""

    def file_of(self, instance_uid: str, key: bytes) -> str:
        """Return the name of a file: keyed hashes, since UIDs lead to patients."""
        return f"{self.name}/{keyed_hash('instance', instance_uid, key)}.dcm"


class StudyList:
    """Studies by their names, in a file without a name that is gone with this process.

    Args:
        studies: UID and number of objects of each; one that is listed twice counts once.
        key: Key of the identity hashes.
    """

    def __init__(self, studies: Iterable[tuple[str, int | None]], key: bytes) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("CREATE TABLE studies (name TEXT PRIMARY KEY, uid TEXT, num INTEGER) WITHOUT ROWID")
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT OR IGNORE INTO studies VALUES (?, ?, ?)",
            ((keyed_hash("study", f"uid\0{uid}", key), uid, num) for uid, num in studies),
        )
        self._db.execute("COMMIT")
        query = "SELECT COUNT(*), COALESCE(SUM(MAX(COALESCE(num, 1), 0)), 0) FROM studies"
        self.num_studies, self.num_instances = self._db.execute(query).fetchone()

    def __iter__(self) -> Iterator[ListedStudy]:
        """Yield the studies by name."""
        last = ""
        while some := self._rows("name > ? ORDER BY name LIMIT ?", last, _AT_ONCE):
            yield from some
            last = some[-1].name

    def get(self, name: str) -> ListedStudy | None:
        """Return the study of a name; None where the server does not list it."""
        return next(iter(self._rows("name = ?", name)), None)

    def _rows(self, where: str, *values: object) -> list[ListedStudy]:
        with self._lock:
            rows = self._db.execute(f"SELECT name, uid, num FROM studies WHERE {where}", values).fetchall()  # noqa: S608
        return [ListedStudy(*row) for row in rows]

    def close(self) -> None:
        """Forget them."""
        self._db.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Forget them."""
        self.close()


SPOOL = "spool"
"""Folder in the output folder."""
_HEADERS = "headers"
_NONE = "No study of this server matches the query."
CONNECTIONS = 4
_AHEAD = 128
"""Studies that are listed, and fetched while there is room, before they are needed."""
_FEW = 16
"""Files that are asked for one by one where the answer of a study lacked them."""
NO_IMAGES = (
    "1.2.840.10008.5.1.4.1.1.88.",  # structured reports, key objects; also those that medclip sent
    "1.2.840.10008.5.1.4.1.1.11.",  # presentation states
    "1.2.840.10008.5.1.4.1.1.104.",  # documents
    "1.2.840.10008.5.1.4.1.1.66",  # raw data, registrations, segmentations
    "1.2.840.10008.5.1.4.1.1.67",  # real world values
    *(f"1.2.840.10008.5.1.4.1.1.481.{n}" for n in range(2, 10)),  # radiotherapy but its images
)
"""SOP classes (PS3.4, B.5) without an image or a signal: never fetched, and no part of what a study is scored by."""


OURS = "medclip"
"""Manufacturer of heat maps that went back to a PACS: they are no images to score."""
_META_UID = re.compile(rb"\x02\x00\x03\x00UI(..)", re.DOTALL)
_META_BYTES = 4096
_KEPT_HEADERS = 256
"""Studies whose headers lie in the spool while results are written."""


class DicomwebFiles:
    """Files of the studies that match a query. It is what `medclip.runs.planning.listing` asks for.

    Args:
        server: Server that has the files.
        query: Query of the studies, from `parse_query`.
        folder: The output folder of the run.
        limit_bytes: Bytes that the spool may hold.
        note: Function called with a sentence for the user.
    """

    def __init__(
        self,
        server: DicomwebServer,
        query: Mapping[str, str],
        folder: Path,
        limit_bytes: int = Settings.spool_bytes,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.server, self.query, self.folder = server, dict(query), folder / SPOOL
        self.witness = self.folder / f".{secrets.token_hex(8)}"
        self._limit, self._note = limit_bytes, note
        self._studies = StudyList((), b"")
        self._key = b""
        self._lock = threading.Lock()
        self._num_bytes, self.peak_bytes = 0, 0
        self._looking: dict[str, Future[list[str]]] = {}
        self._ahead, self._urgent = ThreadPoolExecutor(CONNECTIONS), ThreadPoolExecutor(CONNECTIONS)
        self._headers: deque[str] = deque()
        self._kept: set[str] = set()

    @property
    def identity(self) -> str:
        """URL and query."""
        return repr((self.server.place.url, self.query))

    @property
    def num_files(self) -> int:
        """As the server counts them, with what has no image."""
        return self._studies.num_instances

    @property
    def is_full(self) -> bool:
        """Whether the spool holds as much as it may."""
        return self._num_bytes >= self._limit

    def list_all(self, key: bytes) -> None:
        """Ask for the studies. Where none matches, there is no file, and the user is told."""
        self._warn_if_open()
        self._key = key
        self._studies.close()
        self._studies = StudyList(self.server.studies(self.query), key)
        if not self._studies.num_studies:  # a quiet night is no error
            self._note(_NONE)

    def inventory(self) -> Inventory:
        """Count the studies that match, by what the server says of them; nothing is fetched. Then it is done with."""
        self._warn_if_open()
        uids: set[str] = set()
        num_files, modalities = 0, Counter[str]()
        try:
            for uid, number, of_study in self.server.studies_with_modalities(self.query):
                if uid in uids:  # pages overlap where studies come meanwhile
                    continue
                uids.add(uid)
                num_files += 1 if number is None else number
                modalities.update(set(of_study) or {"not stated"})
        finally:
            self.server.close()
        if not uids:
            self._note(_NONE)
        ordered = sorted(modalities.items(), key=lambda each: (-each[1], each[0]))
        return Inventory(num_files, len(uids), modalities=dict(ordered))

    def _warn_if_open(self) -> None:
        if self.server.is_open:
            self._note("The connection to this server is not encrypted; dicomwebs:// asks for https.")

    def __enter__(self) -> Self:
        """Begin with an empty spool: what a killed run left is fetched again."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with disk_errors(self.folder):
            make_folder(self.folder)
            self.witness.touch()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop fetching and remove the spool."""
        self.server.stop.set()
        for pool in (self._ahead, self._urgent):
            pool.shutdown(wait=True, cancel_futures=True)
        self.server.close()
        self._studies.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # What there is.

    def refs(self, names_below: Callable[[str], Sequence[str]]) -> Iterator[FileRef]:
        """Yield the files study by study, in the order of their names.

        Args:
            names_below: Function from a study's prefix to the names of its files that a ledger knows.
        """
        studies = iter(self._studies)
        waiting: deque[tuple[ListedStudy, Future[list[str]]]] = deque()
        while True:
            for study in islice(studies, _AHEAD - len(waiting)):
                files = names_below(f"{study.name}/")
                future = self._ahead.submit(self._look, study, files)
                if not files:
                    self._looking[study.name] = future
                waiting.append((study, future))
            if not waiting:
                return
            study, future = waiting.popleft()
            for name in future.result():
                yield FileRef(self.folder / name, name, place=(study.name, name))

    def _look(self, study: ListedStudy, ledger_names: Sequence[str]) -> list[str]:
        """List the files of a study; fetch those of one that is new while there is room."""
        if ledger_names and study.num_instances == len(ledger_names):
            return list(ledger_names)
        names: list[str] = []
        for _ in range(2):
            instances = self.server.instances(study.uid, study.num_instances)
            names = sorted(self._files(study, instances))
            if ledger_names or not names or self.server.stop.is_set() or self._num_bytes >= self._limit // 2:
                break
            try:
                num_sent, _ = self._bring(study, frozenset(names), instances)
            except MedclipError:  # `fetch` tries again, and has to say so
                break
            if num_sent <= len(instances):
                break
            study = ListedStudy(study.name, study.uid, None)  # it grew meanwhile
        return names

    def _files(self, study: ListedStudy, instances: Iterable[Instance]) -> dict[str, Instance]:
        """Return the objects that may hold an image or a signal, by the names of their files."""
        return {
            study.file_of(instance.uid, self._key): instance
            for instance in instances
            if not instance.sop_class.startswith(NO_IMAGES) and instance.manufacturer != OURS
        }

    # Files that are needed now.

    def fetch(self, names: Sequence[str]) -> dict[str, Problem]:
        """Bring files into the spool.

        Args:
            names: Names of files; whole studies are asked for, and these files kept.

        Returns:
            Problems of those that do not come.

        Raises:
            MedclipError: UNREACHABLE, PERMISSION_DENIED, DISK_FULL.
        """
        wanted: dict[str, set[str]] = {}
        for name in names:
            wanted.setdefault(name.partition("/")[0], set()).add(name)
        jobs = [self._urgent.submit(self._fetch_study, study, frozenset(files)) for study, files in wanted.items()]
        problems: dict[str, Problem] = {}
        for job in jobs:
            problems |= job.result()
        return problems

    def _fetch_study(self, name: str, files: frozenset[str]) -> dict[str, Problem]:
        looking = self._looking.pop(name, None)
        if looking is not None:
            with suppress(Exception):
                looking.result()
        lacking = frozenset(file for file in files if not (self.folder / file).exists())
        if not lacking:
            return {}
        study = self._studies.get(name)
        if study is None:
            gone = Problem(Reason.MISSING_FILE, "the server does not list this study any more.")
            return dict.fromkeys(lacking, gone)
        try:
            return self._bring(study, lacking, None)[1]
        except MedclipError as error:
            if error.reason not in (Reason.READ_ERROR, Reason.MISSING_FILE):
                raise
            why = Problem(Reason.READ_ERROR, "the server lists this study and does not send it; try it again later.")
            return dict.fromkeys(lacking, why)

    def _bring(
        self, study: ListedStudy, files: frozenset[str], instances: Sequence[Instance] | None
    ) -> tuple[int, dict[str, Problem]]:
        """Fetch a study and keep some of its files; return how many files came, and problems."""
        num_sent = self.server.read_study(study.uid, lambda content: self._keep(study, files, content))
        lacking = [file for file in files if not (self.folder / file).exists()]
        if 0 < len(lacking) <= _FEW:
            listed = self._files(study, instances or self.server.instances(study.uid))
            for file in lacking:
                if file in listed:
                    self._bring_one(study, file, listed[file])
            lacking = [file for file in lacking if not (self.folder / file).exists()]
        if not lacking:
            return num_sent, {}
        self.release(files)
        why = Problem(
            Reason.READ_ERROR,
            f"{number(len(lacking))} of {count(len(files), 'image')} of this study did not come from the server; a "
            "study is scored when all of its images have come.",
        )
        return num_sent, dict.fromkeys(files, why)

    def _bring_one(self, study: ListedStudy, file: str, instance: Instance) -> None:
        """Fetch one file by its own URL, also one whose meta information has no UID; where it does not come, none."""
        try:
            content = self.server.read_instance(study.uid, instance)
        except StopIteration:
            return
        except MedclipError as error:
            if error.reason not in (Reason.READ_ERROR, Reason.MISSING_FILE):
                raise
            return
        self._write(self.folder / file, content)

    def _keep(self, study: ListedStudy, files: frozenset[str], content: bytes) -> None:
        """Write one file, if it is one that is wanted and not there."""
        if self.server.stop.is_set():
            raise MedclipError(Reason.UNREACHABLE, "the run stops.", where=self.server.place)
        name = study.file_of(_instance_uid(content), self._key)
        path = self.folder / name
        if name in files and not path.exists():
            self._write(path, content)

    def _write(self, path: Path, content: bytes) -> None:
        draft = draft_of(path)
        with disk_errors(path.parent):
            make_folder(path.parent)
            with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(content)
            os.replace(draft, path)
        with self._lock:
            self._num_bytes += len(content)
            self.peak_bytes = max(self.peak_bytes, self._num_bytes)

    def header_of(self, name: str) -> Path:
        """Return a file with the header of an object and without its pixels, for results that name patient and study.

        Args:
            name: Name of a file of the run, which may be released.

        Returns:
            In the spool; there is none where the server does not send it.

        Raises:
            MedclipError: UNREACHABLE, PERMISSION_DENIED, DISK_FULL.
        """
        path = self.folder / _HEADERS / name
        study = self._studies.get(name.partition("/")[0])
        if study is None or path.exists():
            return path
        try:
            headers = self.server.headers(study.uid)
        except MedclipError as error:
            if error.reason not in (Reason.READ_ERROR, Reason.MISSING_FILE):
                raise
            return path
        self._headers.append(study.name)
        if len(self._headers) > _KEPT_HEADERS:
            shutil.rmtree(self.folder / _HEADERS / self._headers.popleft(), ignore_errors=True)
        with disk_errors(self.folder):
            make_folder(path.parent)
            for header in headers:
                with suppress(_NoHeaderError):
                    _write_header(header, lambda uid: self.folder / _HEADERS / study.file_of(uid, self._key))
        return path

    def keep(self, names: Iterable[str]) -> None:
        """Keep files beyond their release for `held`, as long as the spool is less than half full."""
        if self._num_bytes < self._limit // 2:
            with self._lock:
                self._kept.update(names)

    @contextmanager
    def held(self, names: Sequence[str]) -> Iterator[None]:
        """Have files in the spool while they are read once more; they are fetched again where they are gone.

        What does not come is not there.

        Raises:
            MedclipError: As `fetch`.
        """
        with self._lock:
            self._kept.update(names)
        try:
            self.fetch(names)
            yield
        finally:
            with self._lock:
                self._kept.difference_update(names)
            self.release(names)

    def release(self, names: Iterable[str]) -> None:
        """Remove files that are done with."""
        folders = set()
        with self._lock:
            names = [name for name in names if name not in self._kept]
        for name in names:
            path = self.folder / name
            with suppress(FileNotFoundError):
                size = path.stat().st_size
                path.unlink()
                folders.add(path.parent)
                with self._lock:
                    self._num_bytes -= size
        for folder in folders:
            with suppress(OSError):  # other files of the study are still needed
                folder.rmdir()


class _NoHeaderError(Exception):
    """What a server sends as a header is none."""


def _write_header(header: Mapping[str, Any], path_of: Callable[[str], Path]) -> None:
    """Write what a server sends in DICOM's JSON form (PS3.18, F) as a file; what is sent apart is left out."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    try:
        with quiet("pydicom"):
            kept = {tag: value for tag, value in header.items() if "BulkDataURI" not in value and tag > "0002FFFF"}
            dataset = Dataset.from_json(dict(kept), bulk_data_uri_handler=lambda _: None)
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            buffer = io.BytesIO()
            dataset.save_as(buffer, enforce_file_format=True)
            uid = str(dataset.SOPInstanceUID)
    except Exception as error:  # pydicom raises many types, whose texts quote values
        raise _NoHeaderError from error
    path_of(uid).write_bytes(buffer.getvalue())


def _instance_uid(content: bytes) -> str:
    """Return the SOP Instance UID of a file, as its meta information has it (PS3.10, 7.1); "" where it has none.

    No file is parsed here: that is done in reading processes, which may die of it.
    """
    match = _META_UID.search(content, 0, _META_BYTES)
    if match is None:
        return ""
    value = content[match.end() : match.end() + int.from_bytes(match[1], "little")]
    return bytes(value).rstrip(b"\0 ").decode("ascii", "replace")
