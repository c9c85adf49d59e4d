"""Look at the files of a run window by window, and yield the chunks that can be scored.

Facts go into the ledger as they come. A run that goes on looks only at files that it does not know yet; of a window
that is half done, the headers are read again, and no file is hashed twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Problem, Reason
from medclip.files.output import in_use
from medclip.files.pseudonyms import keyed_hash
from medclip.files.readers.job_queue import NO_EFFORT, JobFuture
from medclip.files.recognise.inspect import FileFacts
from medclip.files.recognise.sniff import Format
from medclip.files.tables.manifest import Manifest
from medclip.runs.engines.engine import LookPool
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.planning.listing import CUT_FILES, WINDOW_FILES, Listing
from medclip.runs.planning.options import ScoreOptions
from medclip.runs.planning.plan import Chunk, Plan, make_plan
from medclip.runs.rows import DONE, KnownFile, Look
from medclip.runs.units.read_unit import inspect
from medclip.sample import FileRef, Modality
from medclip.settings import Settings
from medclip.wording import count

_FACTS_AT_ONCE = 64

_Looking = tuple[list[KnownFile], list[FileRef], list[JobFuture | None]]


@dataclass(frozen=True)
class Looker:
    """Whoever looks at the files of a run.

    Args:
        listing: Listing of the files.
        ledger: Ledger that takes the facts.
        pool: Reading processes; they hash and sniff.
        options: Modality and grouping.
        manifest: Table that says something about the files; None where there is none.
        key: Key of the identity hashes.
        settings: Limits.
        only: Only modality that the model knows, if there is just one.
    """

    listing: Listing
    ledger: Ledger
    pool: LookPool
    options: ScoreOptions
    manifest: Manifest | None
    key: bytes
    settings: Settings
    only: Modality | None = None

    def begin(self, folder: Path, *, add: bool, retry: str | None, again: bool = False) -> None:
        """Compare the folder with what an earlier call knows of it.

        Args:
            folder: The output folder, to be named in a refusal.
            add: Whether files that came, and those that are others now, are taken in.
            retry: Reason of the failed files that are looked at once more, "" for all of them; None for none.
            again: Whether files will be read again in any case, so that a ledger without names needs them back.

        Raises:
            MedclipError: OUTPUT_IN_USE where files came without `add`, or finished ones are others now.
        """
        failed = [] if retry is None else self.ledger.failed_ids(retry or None)
        changed, still = self.listing.compare(
            folder, add=add, again=again or add or retry is not None, retried=frozenset(failed)
        )
        differing: dict[int, FileRef | None] = {}
        for at in range(0, len(changed), CUT_FILES):
            some, same = changed[at : at + CUT_FILES], []
            _, _, futures = self._start([replace(file, name=ref.name) for file, ref in some])
            for (file, ref), future in zip(some, futures, strict=True):
                fact, _ = _wait(file, future)
                if isinstance(fact, FileFacts) and fact.sha256 and fact.sha256 == file.sha256:
                    same.append(self._learnt(file, fact, None))
                else:
                    differing[file.id] = ref
            self.ledger.looked_at(same)
        if differing and not add:
            raise in_use(
                folder,
                f"the files differ: {count(len(differing), 'scored file has', 'scored files have')} changed since",
                "Score them again with --add, or name another folder.",
            )
        self.ledger.open_again({**dict.fromkeys(failed), **still, **differing})

    def chunks(self) -> Iterator[Chunk]:
        """Yield everything that is not done: half-done windows, new ones, then the studies that waited."""
        for window, facts in self._ahead(self._windows()):
            plan = self._plan(window, facts)
            done = {file.id for file in window if file.state >= DONE}
            for chunk in plan.chunks():
                if any(plan.files[index].id not in done for index in chunk.members):
                    yield chunk
                else:
                    self.listing.release(plan.files[index].ref.name for index in chunk.members)
        for window, facts in self._ahead(self._late()):
            yield from self._make(window, facts).chunks()

    def _windows(self) -> Iterator[list[KnownFile]]:
        for number in self.ledger.open_windows():
            yield self.ledger.window(number)
        yield from self.listing.new()
        if self.manifest is not None and not self.listing.is_part:
            yield from self.listing.missing(self.manifest)

    def _late(self) -> Iterator[list[KnownFile]]:
        """Settle what came under another name; yield the files of the studies that waited, some studies at a time."""
        if self.ledger.get("finished") is None:
            self.ledger.settle(self.listing.gone())
        window: list[KnownFile] = []
        for tie in self.ledger.late_ties():
            window += self.ledger.files_of_tie(tie)
            if len(window) >= WINDOW_FILES:
                yield window
                window = []
        if window:
            yield window

    def _ahead(self, windows: Iterator[list[KnownFile]]) -> Iterator[tuple[list[KnownFile], list[FileFacts | Problem]]]:
        """Yield each window with its facts, while the reading processes look at the next."""
        before: _Looking | None = None
        for window in windows:
            started = self._start(window)
            if before is not None:
                yield before[0], self._facts(before)
            before = started
        if before is not None:
            yield before[0], self._facts(before)

    def _start(self, window: Sequence[KnownFile]) -> _Looking:
        refs = [self.listing.ref(file) for file in window]
        problems = self.listing.fetch(window)
        futures = [
            None if file.problem is not None else self._inspect(file, ref, problems.get(file.name))
            for file, ref in zip(window, refs, strict=True)
        ]
        return list(window), refs, futures

    def _inspect(self, file: KnownFile, ref: FileRef, problem: Problem | None) -> JobFuture:
        if problem is None:
            hashed = (file.stamp, file.sha256) if file.sha256 else None
            return self.pool.submit(inspect, ref.path, self.settings, hashed)
        failed = JobFuture()
        failed.set_exception(problem.error(ref.path))
        return failed

    def _facts(self, looking: _Looking) -> list[FileFacts | Problem]:
        """Wait for the facts of a window and write them down as they come."""
        facts: list[FileFacts | Problem] = []
        looks: list[Look] = []
        for file, future in zip(looking[0], looking[2], strict=True):
            fact, problem = _wait(file, future)
            facts.append(fact)
            if file.state < DONE or (isinstance(fact, FileFacts) and fact.stamp != file.stamp):
                effort = NO_EFFORT if future is None else future.effort
                looks.append(replace(self._learnt(file, fact, problem), effort=effort))
            if len(looks) >= _FACTS_AT_ONCE:
                self.ledger.looked_at(looks)
                looks = []
        self.ledger.looked_at(looks)
        return facts

    def _learnt(self, file: KnownFile, fact: FileFacts | Problem, problem: Problem | None) -> Look:
        if not isinstance(fact, FileFacts):
            return Look(file.id, file.stamp, "", None, problem=problem)
        stamp = fact.stamp if fact.sha256 else file.stamp
        uid = "" if fact.header is None else fact.header.instance_uid
        instance = keyed_hash("instance", uid, self.key) if uid else None
        return Look(file.id, stamp, fact.sha256, str(fact.format), instance)

    def _plan(self, window: list[KnownFile], facts: list[FileFacts | Problem]) -> Plan:
        number = window[0].window
        plan = self._make(window, facts, must_wait=lambda tie: self.ledger.tied_before(tie, number))
        cut = {file.id: file.cut for file in window}
        self.ledger.tie((file.id, file.tie, cut[file.id] and file.tie in plan.waiting) for file in plan.files)
        self.listing.release(file.ref.name for file in plan.files if file.tie in plan.waiting)
        return plan

    def _make(self, window: list[KnownFile], facts: list[FileFacts | Problem], **how: Any) -> Plan:
        files = [(file, self.listing.ref(file), fact) for file, fact in zip(window, facts, strict=True)]
        how |= {"manifest": self.manifest, "key": self.key, "settings": self.settings, "only": self.only}
        return make_plan(files, self.options, **how)


def _wait(file: KnownFile, future: JobFuture | None) -> tuple[FileFacts | Problem, Problem | None]:
    """Return the facts of a file, or why there are none; then what of it is to be remembered."""
    if future is None:
        assert file.problem is not None
        return file.problem, file.problem
    try:
        return future.result(), file.problem
    except MedclipError as error:
        problem = error.problem()
        if problem.reason is Reason.READ_ERROR:  # of its drive: a later call looks at it again
            return FileFacts("", Format.UNKNOWN, None, problem), file.problem
        return problem, problem
