"""Look at the files of a run window by window, and yield the chunks that can be scored.

Facts go into the ledger as they come. A run that goes on looks only at files that it does not know yet; of a window
that is half done, the headers are read again, and no file is hashed twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Problem
from medclip.files.output import in_use
from medclip.files.readers.pool import ReadingPool
from medclip.files.recognise.inspect import FileFacts
from medclip.files.tables.manifest import Manifest
from medclip.runs.ledger import DONE, KnownFile, Ledger, Look
from medclip.runs.listing import CUT_FILES, WINDOW_FILES, Listing
from medclip.runs.options import ScoreOptions
from medclip.runs.plan import Chunk, Plan, make_plan
from medclip.runs.read_unit import inspect
from medclip.sample import FileRef
from medclip.settings import Settings
from medclip.wording import count

_FACTS_AT_ONCE = 64

_Looking = tuple[list[KnownFile], list[FileRef], list["Future[FileFacts] | None"]]


@dataclass(frozen=True)
class Looker:
    """Whoever looks at the files of a run.

    Args:
        listing: What files there are.
        ledger: Takes the facts.
        pool: Reading processes; they hash and sniff.
        options: Modality and grouping.
        manifest: What a table says of the files.
        key: Key of the identity hashes.
        settings: Limits.
    """

    listing: Listing
    ledger: Ledger
    pool: ReadingPool
    options: ScoreOptions
    manifest: Manifest | None
    key: bytes
    settings: Settings

    def begin(self, folder: Path, *, add: bool, again: bool) -> None:
        """Compare the folder with what an earlier call knows of it.

        Raises:
            MedclipError: OUTPUT_IN_USE where files came without `add`, or finished ones are others now.
        """
        differing = []
        changed = self.listing.compare(folder, add=add, again=add or again)
        for at in range(0, len(changed), CUT_FILES):
            looking = self._start(changed[at : at + CUT_FILES])
            for file, fact in zip(looking[0], self._facts(looking), strict=True):
                if isinstance(fact, FileFacts) and fact.sha256 != file.sha256:
                    differing.append(file.id)
        if differing and not add:
            raise in_use(
                folder,
                f"the files differ: {count(len(differing), 'scored file has', 'scored files have')} changed since",
                "Score them again with --add, or name another folder.",
            )
        self.ledger.open_again(differing)

    def chunks(self) -> Iterator[Chunk]:
        """Yield everything that is not done: half-done windows, new ones, then the studies that waited."""
        for window, facts in self._ahead(self._windows()):
            plan = self._plan(window, facts)
            done = {file.id for file in window if file.state >= DONE}
            yield from (chunk for chunk in plan.chunks() if plan.files[chunk.members[0]].id not in done)
        for window, facts in self._ahead(self._late()):
            yield from self._make(window, facts).chunks()

    def _windows(self) -> Iterator[list[KnownFile]]:
        for number in self.ledger.open_windows():
            yield self.ledger.window(number)
        yield from self.listing.new()
        if self.manifest is not None:
            yield from self.listing.missing(self.manifest)

    def _late(self) -> Iterator[list[KnownFile]]:
        """Yield the files of the studies that waited, some studies at a time."""
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
        futures = [
            self.pool.submit(inspect, ref.path, self.settings, (file.stamp, file.sha256) if file.sha256 else None)
            if file.problem is None
            else None
            for file, ref in zip(window, refs, strict=True)
        ]
        return list(window), refs, futures

    def _facts(self, looking: _Looking) -> list[FileFacts | Problem]:
        """Wait for the facts of a window and write them down as they come."""
        facts: list[FileFacts | Problem] = []
        looks: list[Look] = []
        for file, future in zip(looking[0], looking[2], strict=True):
            fact: FileFacts | Problem
            problem = file.problem
            if future is None:
                assert problem is not None
                fact = problem
            else:
                try:
                    fact = future.result()
                except MedclipError as error:
                    fact = problem = error.problem()
            facts.append(fact)
            if file.state < DONE or (isinstance(fact, FileFacts) and fact.sha256 != file.sha256):
                looks.append(_look(file, fact, problem))
            if len(looks) >= _FACTS_AT_ONCE:
                self.ledger.looked_at(looks)
                looks = []
        self.ledger.looked_at(looks)
        return facts

    def _plan(self, window: list[KnownFile], facts: list[FileFacts | Problem]) -> Plan:
        number = window[0].window
        plan = self._make(window, facts, must_wait=lambda tie: self.ledger.tied_before(tie, number))
        cut = {file.id: file.cut for file in window}
        self.ledger.tie((file.id, file.tie, cut[file.id] and file.tie in plan.waiting) for file in plan.files)
        return plan

    def _make(self, window: list[KnownFile], facts: list[FileFacts | Problem], **how: Any) -> Plan:
        files = [(file, self.listing.ref(file), fact) for file, fact in zip(window, facts, strict=True)]
        return make_plan(files, self.options, manifest=self.manifest, key=self.key, settings=self.settings, **how)


def _look(file: KnownFile, fact: FileFacts | Problem, problem: Problem | None) -> Look:
    if isinstance(fact, FileFacts):
        return Look(file.id, fact.stamp if fact.sha256 else file.stamp, fact.sha256, str(fact.format))
    return Look(file.id, file.stamp, "", None, problem)
