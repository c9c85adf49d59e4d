"""Results for other systems while a run goes on: a study has its files as soon as its rows are committed.

A thread of its own takes the answers of the studies, has a reading process write them down, and puts the files in
place; where studies cannot grow any more it sends them to a PACS, too. Heat maps are drawn while no other file waits to
be written, by a model of its own. It never keeps the run waiting: what does not fit in its queue, maps that are not
drawn when the last image is scored, and what is left where a server or a disk fails, is written and sent at the end of
the run as if this were not there. The ledger is told by the run's own thread, at the next commit: a run that is killed
writes at most those files again, in the same bytes.

DICOM results are sent to a PACS, and bundles to a FHIR server, each once: what is stored already is not sent again. Of
a bundle of which the server took a part the note has the rest, and it is sent once more as a whole. A note in the
folder of results says what of each study was stored where. A call that is stopped sends again at most what it did not
write down; the objects have the same UIDs, and a PACS keeps one. A file that was sent is known again by its size, time
and inode, and read once more only where these differ; they stand in a journal of their own, so that the note of two
runs is the same. A study whose results changed (it grew, or its model did) is sent anew, as new objects beside the old
ones, which they name: what was sent to others is not taken back.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any, Protocol

from medclip.errors import MedclipError
from medclip.export.earlier_results import STORED as _WHAT
from medclip.export.earlier_results import STORED_NOTE as NOTE
from medclip.export.earlier_results import sent_digest
from medclip.export.fhir_server import Outcome
from medclip.export.formats import FORMATS
from medclip.export.results_folder import ResultsFolder, Stored, contents_of
from medclip.export.source_headers import encode_study
from medclip.export.study_result import (
    Algorithm,
    DrawnMap,
    StudyResult,
    StudyRows,
    algorithm_of,
    cautions_of_run,
    committed_rows,
    result_of,
)
from medclip.files.output import digest_of, read_own_note, write_note
from medclip.files.readers.pool import ReadingPool
from medclip.models.devices import ComputingThread
from medclip.progress import Progress
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.score_run import Unlearned
from medclip.runs.rows import ChunkResult
from medclip.sample import Stamp
from medclip.wording import capital

JOURNAL = "journal.stored.json"
_WHAT_FILES = "list of files that a PACS has"
_AT_ONCE = 50
"""Files after which the note is written again, at least: it holds them all."""
_SHARE = 20
"""It is written for a twentieth of what it holds, so that a million files cost no more a file than a thousand."""
_MOST_WAITING = 1000
"""Studies whose answers wait to be written; each is some kilobytes."""
_Taken = tuple[int, StudyResult, StudyRows]
"""A study: which of those that were taken, its answers and its rows."""


class Server(Protocol):
    """Takes files."""

    @property
    def place(self) -> object:
        """Its URL."""
        ...

    def store(self, content: bytes) -> bool | Outcome:
        """Send one file; return whether it is kept, or what is kept of it."""
        ...


class StoreNote:
    """Sends files to a server, and writes down what it has.

    Args:
        results: Folder that `ResultsFolder` writes.
        server: Server that files go to.
        forms: Forms that it takes; those that are DICOM where None.
    """

    def __init__(self, results: Path, server: Server, forms: Sequence[str] | None = None) -> None:
        self._results, self._server = results, server
        self._forms = [name for name, form in FORMATS.items() if form.is_dicom] if forms is None else forms
        self._where = digest_of(str(server.place))
        self._num_new = 0
        self._read: dict[str, dict[str, Any]] = {}

    def _read_note(self, name: str, what: str) -> dict[str, Any]:
        if name not in self._read:
            note = read_own_note(self._results / name, what) or {}
            self._read[name] = {of: (note.get(of) or {}).get(self._where) or {} for of in ("sent", "refused")}
        return self._read[name]

    @property
    def _digests(self) -> dict[str, str]:
        return self._read_note(NOTE, _WHAT)["sent"]

    @property
    def _stamps(self) -> dict[str, str]:
        return self._read_note(JOURNAL, _WHAT_FILES)["sent"]

    @property
    def resources_refused(self) -> dict[str, dict[str, str]]:
        """Of each file that the server has in part or not at all, what it said of the resources that it has not."""
        return self._read_note(NOTE, _WHAT)["refused"]

    def files(self) -> list[Path]:
        """List the files of the forms that the server takes, sorted."""
        folders = [(self._results / name, FORMATS[name].file) for name in self._forms]
        return sorted(path for folder, suffix in folders if folder.is_dir() for path in folder.glob(f"*{suffix}"))

    def takes(self, form: str) -> bool:
        """Whether the server takes a form."""
        return form in self._forms

    def has(self, path: Path) -> bool:
        """Return whether the server has a file, known without reading it: it is the one on the disk that was sent."""
        return _name(path) in self._digests and self._stamps.get(_name(path)) == _stamp(path)

    def send(self, path: Path) -> bool:
        """Send a file unless the server has it; return whether it does now.

        Raises:
            MedclipError: UNREACHABLE, PERMISSION_DENIED.
        """
        if self.has(path):
            return True
        stamp, content, name = _stamp(path), path.read_bytes(), _name(path)
        digest = sent_digest(content)
        if self._digests.get(name) != digest:
            outcome = self._server.store(content)
            refused = {} if isinstance(outcome, bool) else outcome.refused
            if refused:
                self.resources_refused[name] = refused
                self._num_new += 1
            if refused or not outcome:
                return False
            self.resources_refused.pop(name, None)
        self._digests[name], self._stamps[name] = digest, stamp
        self._num_new += 1
        if self._num_new >= max(_AT_ONCE, len(self._digests) // _SHARE):
            self.write()
        return True

    def write(self) -> None:
        """Write the note, if anything was sent since."""
        if self._num_new:
            # The journal last: what it names is in the note. Other servers have theirs in the same files.
            for name, what in ((NOTE, _WHAT), (JOURNAL, _WHAT_FILES)):
                note = read_own_note(self._results / name, what) or {}
                for of, values in self._read_note(name, what).items():
                    by_server = {**(note.get(of) or {}), self._where: values}
                    note[of] = {where: some for where, some in by_server.items() if some or of == "sent"}
                write_note(self._results / name, what, {of: values for of, values in note.items() if values})
            self._num_new = 0


class RunningResults:
    """Writes the results of studies as they are committed. It is what `medclip.runs.verb` asks for.

    Args:
        results: Folder of the results.
        card: The pack's card.
        unlearned: Answers that are worth little, of studies of any modality.
        stores: Senders of the results; none where they are not sent, or not before the end.
        close: Function called at every end.
    """

    def __init__(
        self,
        results: ResultsFolder,
        card: Any,
        unlearned: Sequence[Unlearned],
        stores: Sequence[StoreNote] = (),
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._results, self._card, self._stores, self._close = results, card, stores, close
        self._unlearned = unlearned
        self._cautions: dict[str, str] = {}
        self._names, self._map_names = results.early_forms, results.map_forms
        self._queue: Queue[_Taken | None] = Queue(_MOST_WAITING)
        self._latest: dict[str, int] = {}
        self._num_taken = 0
        self._written: deque[tuple[int, list[tuple[str, str, str]], bool]] = deque()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, ledger: Ledger) -> None:
        """Take the folder, as `ResultsFolder.begin` does, and begin to wait for studies."""
        created = self._results.begin(ledger)
        self._cautions = cautions_of_run(ledger, self._card)
        if self._names or self._map_names:
            self._thread = ComputingThread(self._work, "medclip-results", (algorithm_of(ledger), created))
            self._thread.start()

    def take(self, ledger: Ledger, result: ChunkResult) -> None:
        """Queue the studies of a chunk, and have the ledger know of those that are written."""
        if self._thread is None or self._stop.is_set():
            return
        for rows in committed_rows(result):
            study = result_of(rows, self._card, self._unlearned, self._cautions)
            self._num_taken += 1
            self._latest.pop(study.key, None)  # what is under way is of earlier answers
            try:
                self._queue.put_nowait((self._num_taken, study, rows))
            except Full:
                continue
            self._latest[study.key] = self._num_taken
            if self._map_names and self._results.drawer is not None:
                self._results.drawer.keep_files(rows)
        self._tell(ledger)

    def end(self, ledger: Ledger) -> None:
        """Wait for the studies that were taken."""
        if self._thread is not None:
            self._end_of_queue()
            self._thread.join()
            self._tell(ledger)

    def close(self) -> None:
        """Stop; what is queued is left to a later call."""
        self._stop.set()
        self._close()
        if self._thread is not None:
            self._end_of_queue()
            self._thread.join()

    def _end_of_queue(self) -> None:
        """Let the thread end once it has taken what is queued. It may have ended by itself, and the queue be full."""
        while self._thread is not None and self._thread.is_alive():
            try:
                self._queue.put(None, timeout=0.1)
            except Full:
                continue
            return

    def _tell(self, ledger: Ledger) -> None:
        """Have the ledger know of files, unless their study was committed again since."""
        rows = []
        while self._written:
            number, of_study, is_last = self._written.popleft()
            if self._latest.get(of_study[0][0]) == number:
                rows += of_study
                if is_last:
                    del self._latest[of_study[0][0]]
        if rows:
            ledger.wrote(rows)

    def _work(self, algorithm: Algorithm, created: datetime) -> None:
        try:
            try:
                self._write(algorithm, created)
            finally:
                for store in self._stores:
                    store.write()
        except MedclipError as error:  # what is left is tried again at the end, and refused there if it must be
            if not self._stop.is_set():
                self._results.progress.note(f"{capital(error.message)} Results that are left follow at the end.")
        finally:
            self._stop.set()

    def _write(self, algorithm: Algorithm, created: datetime) -> None:
        with ReadingPool.of(self._results.settings, 1) as pool, self._drawing() as draw:
            for (number, study, rows), names in self._jobs():
                with_map = names is self._map_names
                study = replace(study, drawn=draw(rows)) if with_map else study
                future = pool.submit(encode_study, *self._results.job(study, names, algorithm, created))
                kept = self._results.keep(study.key, contents_of(future, names))
                self._written.append((number, kept, with_map or not self._map_names))
                self._send(study.key, kept)

    def _jobs(self) -> Iterator[tuple[_Taken, list[str]]]:
        """Yield studies and the forms to be written: heat maps, which take longest, while nothing else waits."""
        undrawn: deque[_Taken] = deque()
        while not self._stop.is_set():
            try:
                taken = self._queue.get(block=not undrawn)
            except Empty:
                yield undrawn.popleft(), self._map_names
                continue
            if taken is None:
                return
            if self._names:
                yield taken, self._names
            if self._map_names and len(undrawn) < _MOST_WAITING:
                undrawn.append(taken)

    @contextmanager
    def _drawing(self) -> Iterator[Callable[[StudyRows], DrawnMap | None]]:
        """Yield what draws one heat map after the other with one loaded model."""
        if not self._map_names:
            yield lambda _: None
            return
        drawer, waiting = self._results.drawer, deque[StudyRows]()
        assert drawer is not None  # else there are no such forms
        maps = drawer.draw_large(iter(waiting.popleft, None))

        def draw(rows: StudyRows) -> DrawnMap | None:
            waiting.append(rows)
            return next(maps)

        with closing(maps):
            yield draw

    def _send(self, key: str, rows: list[tuple[str, str, str]]) -> None:
        for _, name, lacking in rows:
            for store in self._stores:
                if not lacking and store.takes(name):
                    store.send(self._results.place(name, key))


def store_results(
    results: Path, server: Server, progress: Progress, forms: Sequence[str] | None = None, to: str = "the PACS"
) -> Stored:
    """Send the files of a folder of results.

    Args:
        results: The folder.
        server: Server that files go to.
        progress: Object that is told how far it is.
        forms: Forms that it takes; those that are DICOM where None.
        to: Name of the server, for the progress.

    Raises:
        MedclipError: UNREACHABLE, PERMISSION_DENIED.
    """
    note = StoreNote(results, server, forms)
    files = note.files()
    unsent = [path for path in files if not note.has(path)]
    progress.stage(f"Sending results to {to}", len(files), len(files) - len(unsent))
    refused: dict[str, int] = {}
    try:
        for path in unsent:
            if not note.send(path):
                num_resources = len(note.resources_refused.get(_name(path), ()))
                refused[path.stem] = refused.get(path.stem, 0) + num_resources
            progress.step()
    finally:
        note.write()
    return Stored(len({path.stem for path in files} - refused.keys()), len(refused), sum(refused.values()))


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _stamp(path: Path) -> str:
    """Return by what a file is known again; results are put in place whole, so that another one is another file."""
    return " ".join(str(value) for value in Stamp.of(path.stat()))
