"""Results for other systems while a run goes on: a study has its files as soon as its rows are committed.

A thread of its own takes the answers of the studies, has a reading process write them down, and puts the files in
place; where studies cannot grow any more it sends them to a PACS, too. Heat maps are drawn while no other file waits to
be written, by a model of its own. It never keeps the run waiting: what does not fit in its queue, maps that are not
drawn when the last image is scored, and what is left where a server or a disk fails, is written and sent at the end of
the run as if this were not there. The ledger is told by the run's own thread, at the next commit: a run that is killed
writes at most those files again, in the same bytes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from queue import Empty, Full, Queue
from typing import Any

from medclip.errors import MedclipError
from medclip.export.encoded_study import encode_study
from medclip.export.results_folder import ResultsFolder, contents_of
from medclip.export.stored_results import StoreNote
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
from medclip.files.readers.pool import ReadingPool
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.score_run import Unlearned
from medclip.runs.rows import ChunkResult
from medclip.wording import capital

_MOST_WAITING = 1000
"""Studies whose answers wait to be written; each is some kilobytes."""
_Taken = tuple[int, StudyResult, StudyRows]
"""A study: which of those that were taken, its answers and its rows."""


class RunningResults:
    """Writes the results of studies as they are committed. It is what `medclip.runs.verb` asks for.

    Args:
        results: Folder of the results.
        card: The pack's card.
        unlearned: Answers that are worth little, of studies of any modality.
        store: Sender of the results; None where they are not sent, or not before the end.
        close: Function called at every end.
    """

    def __init__(
        self,
        results: ResultsFolder,
        card: Any,
        unlearned: Sequence[Unlearned],
        store: StoreNote | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._results, self._card, self._store, self._close = results, card, store, close
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
        """Take the folder, and begin to wait for studies.

        Raises:
            MedclipError: As `ResultsFolder.begin`.
        """
        created = self._results.begin(ledger)
        self._cautions = cautions_of_run(ledger, self._card)
        if self._names or self._map_names:
            self._thread = threading.Thread(
                target=self._work, args=(algorithm_of(ledger), created), name="medclip-results", daemon=True
            )
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
                if self._store is not None:
                    self._store.write()
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
                future = pool.submit(encode_study, *self._results.job(study, names), algorithm, created)
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
        if self._store is None:
            return
        for _, name, lacking in rows:
            place = self._results.place(name, key)
            if not lacking and place.suffix == ".dcm":
                self._store.send(place)
