"""What a run writes, copied to a folder of an object store: tables, report and run.json, the same bytes.

The ledger stays in a folder of this machine, the work folder, and so does everything that is worked with; a ledger
cannot live in a store. Each object appears whole. run.json goes before others change and comes back as the last of all:
where it is there, the rest is that of one finished run. A run that goes on publishes what lacks.

A marker in the folder of the store says whose it is, so that two runs never write to one place. Nothing is removed but
what this run wrote there.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from medclip.errors import MedclipError, Reason
from medclip.files.output import disk_errors, make_file, write_file
from medclip.files.stores import RemotePath, objects_below, place_of, read_whole, remove_object, write_object
from medclip.models.packs.manifest import file_sha256
from medclip.progress import Progress
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.results import RUN, output_files

MARKER = "medclip-run.json"
PUBLISHED = "published"
"""Under which a ledger remembers where its run is published, and the text of the marker."""
_RECORD = "published.jsonl"
"""In the work folder: name and sha256 of each object that this run wrote."""
_CONNECTIONS = 8


class Publication:
    """Copies of a run in a store.

    Args:
        place: A folder of the store.
        folder: The work folder: that of the run.
        progress: Progress bar of the publication.
    """

    def __init__(self, place: RemotePath, folder: Path, progress: Progress) -> None:
        self.place, self._folder, self._progress = place, folder, progress
        self._token = ""
        self._lock = threading.Lock()
        self._early: ThreadPoolExecutor | None = None
        self._parts: list[Future[None]] = []

    def begin(self, ledger: Ledger) -> None:
        """Claim the folder of the store for the run of a ledger, or see that it is this run's.

        Raises:
            MedclipError: OUTPUT_IN_USE where it holds something else.
        """
        published = ledger.get(PUBLISHED) or {}
        is_new = published.get("url") != self.place.url
        self._token = secrets.token_hex(16) if is_new else published["token"]
        marked = self._marked()
        if marked is None and objects_below(self.place):
            raise self._taken("other objects", "Name another one.")
        if marked not in (None, self._token):
            raise self._of_another()
        if is_new:
            (self._folder / _RECORD).unlink(missing_ok=True)
            ledger.remember({PUBLISHED: {"url": self.place.url, "token": self._token}})
        if marked is None:
            write_object(self.place / MARKER, json.dumps({"run": self._token}).encode() + b"\n")
            self._check_marker()  # another run may have begun in the same moment

    def add(self, paths: Sequence[Path]) -> None:
        """Publish early rows in the background; what does not come through is left out, for the tables hold it all.

        Args:
            paths: Files in the work folder.
        """
        if self._early is None:
            self._early = ThreadPoolExecutor(1, thread_name_prefix="medclip-publish")
        self._parts += [self._early.submit(self._write, path.relative_to(self._folder).as_posix()) for path in paths]

    def finish(self) -> None:
        """Publish all that the run has written and the store does not have; remove what is no more.

        Raises:
            MedclipError: OUTPUT_IN_USE where another run took the place.
        """
        self._end_early()
        self._check_marker()
        names, record, objects = output_files(self._folder), self._record(), objects_below(self.place)
        hashes = {name: file_sha256(self._folder / name) for name in names}
        lacking = [
            name
            for name in names
            if record.get(name) != hashes[name] or objects.get(name) != os.path.getsize(self._folder / name)
        ]
        gone = [name for name in objects if name in record and name not in hashes]
        if lacking or gone:
            self._progress.stage("Publishing the results", len(lacking))
            remove_object(self.place / RUN)  # until it is there again, new objects may lie beside old ones
            self._write_all([name for name in lacking if name != RUN])
            for name in gone:
                remove_object(self.place / name)
            if RUN in hashes:
                self._write(RUN)
        text = "".join(_line(name, digest) for name, digest in hashes.items())
        write_file(self._folder / _RECORD, text)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop publishing early rows."""
        if self._early is not None:
            self._early.shutdown(wait=True, cancel_futures=True)

    def _end_early(self) -> None:
        if self._early is not None:
            self._early.shutdown(wait=True)
        for part in self._parts:
            with suppress(MedclipError):
                part.result()
        self._parts, self._early = [], None

    def _write_all(self, names: Sequence[str]) -> None:
        with ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="medclip-publish") as threads:
            jobs = [threads.submit(self._write, name) for name in names]
            try:
                for job in jobs:
                    job.result()
                    self._progress.step()
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def _write(self, name: str) -> None:
        """Write an object and remember it; first that it may be there: what is not remembered is never removed."""
        path = self._folder / name
        self._remember(name, "")
        digest = file_sha256(path)
        write_object(self.place / name, path)
        self._remember(name, digest)

    def _remember(self, name: str, digest: str) -> None:
        record = self._folder / _RECORD
        with self._lock, disk_errors(record):
            make_file(record)
            with record.open("a", encoding="utf-8") as file:
                file.write(_line(name, digest))

    def _record(self) -> dict[str, str]:
        """Return the objects that this run wrote, by name; "" for one that was perhaps not written to the end."""
        record: dict[str, str] = {}
        with suppress(FileNotFoundError), (self._folder / _RECORD).open(encoding="utf-8") as file:
            for line in file:
                with suppress(ValueError, KeyError, TypeError):  # a kill may have cut the last one
                    values = json.loads(line)
                    record[values["name"]] = values["sha256"]
        return record

    def _marked(self) -> str | None:
        """Return the text of the marker, None where there is none."""
        try:
            content = read_whole(self.place / MARKER)
        except MedclipError as error:
            if error.reason is not Reason.MISSING_FILE:
                raise
            return None
        try:
            return str(json.loads(content)["run"])
        except (ValueError, KeyError, TypeError):
            return ""

    def _check_marker(self) -> None:
        if self._marked() != self._token:
            raise self._of_another()

    def _of_another(self) -> MedclipError:
        return self._taken("another run", "Name another one, or with --work the folder of that run.")

    def _taken(self, what: str, remedy: str) -> MedclipError:
        return MedclipError(
            Reason.OUTPUT_IN_USE, f"this folder of the store holds {what}.", where=self.place, hint=remedy
        )


def _line(name: str, digest: str) -> str:
    return json.dumps({"name": name, "sha256": digest}) + "\n"


@contextmanager
def published_again(ledger: Ledger, folder: Path, progress: Progress) -> Iterator[None]:
    """Copy what is written meanwhile to the place in a store where a run is published, if it is."""
    published = ledger.get(PUBLISHED)
    if published is None:
        yield
        return
    place = place_of(published["url"])
    assert isinstance(place, RemotePath)
    with Publication(place, folder, progress) as publication:
        publication.begin(ledger)
        yield
        publication.finish()
