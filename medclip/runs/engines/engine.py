"""What an engine is: it turns the chunks of a plan into rows, wherever it computes. The ledger stays with the run.

An engine is told by a `WorkerPlan` how to compute; this process itself works through chunks with `run_chunks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, tee
from pathlib import Path
from typing import Any, Protocol

from medclip.errors import MedclipError, Reason
from medclip.files.readers.job_queue import JobFuture
from medclip.models.backends.choice import BackendChoice
from medclip.models.devices import check_device, torch_threads
from medclip.progress import Progress
from medclip.runs.planning.options import ScoreOptions
from medclip.runs.planning.plan import Chunk
from medclip.runs.rows import ChunkResult
from medclip.runs.units.chunk import Answers, ChunkWork, Context
from medclip.settings import Settings


@dataclass(frozen=True)
class WorkerPlan:
    """How the chunks of a run are computed, as plain data that may be sent to any machine.

    Pack, version, device, batch and back-end are those of the run: a worker that lacks one of them refuses to start, so
    that no row is ever computed otherwise than the plan says.
    """

    pack: Path | None
    """Folder of the model pack, on every machine the same; None for a run without a model."""
    digest: str
    version: str
    """Of medclip."""
    device: str
    batch_size: int | None
    backend: BackendChoice | None
    settings: Settings
    key: bytes
    """The identity key: studies that turn out to be two get keys of their own."""
    answers: Callable[[Any], Answers] | None
    """As `Verb.answers`."""
    options: ScoreOptions
    """Those of the run, without its table: what that says is in the chunks."""
    looks: bool
    """As `Verb.keeps_looks`."""
    witness: Path | None = None
    """A path that exists wherever the files of the run can be read; None where nothing tells."""

    def context(
        self,
        model: Any,
        pool: Any,
        encoders: Any,
        num_encoders: int,
        progress: Progress,
    ) -> Context:
        """Return what chunks are computed with.

        Args:
            model: Model that is loaded; None to make rows of what failed, and then nothing else is needed either.
            pool: Reading processes.
            encoders: Threads that compute a batch each.
            num_encoders: Number of these threads.
            progress: Progress bar of the files that were read.
        """
        return Context(
            model=model,
            answers=_NO_ANSWERS if model is None or self.answers is None else self.answers(model),
            min_confidence=self.options.min_confidence,
            pool=pool,
            encoders=encoders,
            num_encoders=num_encoders,
            settings=self.settings,
            key=self.key,
            progress=progress,
            thumbnails=self.options.thumbnails,
            looks=self.looks,
            weeks=self.options.weeks,
        )

    def load(self) -> Any:
        """Load the model on this machine, once it is sure that it is the plan's.

        Raises:
            MedclipError: WRONG_USE for another version of medclip, files that are not there or a device that is not;
                PACK_NOT_FOUND, PACK_INVALID; what loading the back-end raises.
        """
        from medclip.models.packs.manifest import pack_digest
        from medclip.models.packs.pack import find_pack, verify_pack
        from medclip.version import __version__

        if __version__ != self.version:
            raise MedclipError(
                Reason.WRONG_USE,
                f"a worker of the cluster has medclip {__version__}, and the run is one of {self.version}.",
                hint="Install the same version on every node.",
            )
        refuse_other_files(self.witness)
        assert self.pack is not None
        pack = find_pack(self.pack)
        verify_pack(pack)
        if pack_digest(pack) != self.digest:
            raise MedclipError(
                Reason.PACK_INVALID,
                "a worker of the cluster finds another pack here than the run was planned with.",
                where=pack,
                hint="Put the same pack on every node.",
            )
        check_device(self.device)
        return load_run_model(pack, self)


def refuse_other_files(witness: Path | None) -> None:
    """Refuse to read on a machine that does not see the files of a run, instead of calling each of them missing.

    Args:
        witness: Path that exists wherever the files of the run can be read; None where nothing tells.

    Raises:
        MedclipError: WRONG_USE.
    """
    if witness is not None and not witness.exists():
        raise MedclipError(
            Reason.WRONG_USE,
            "a node of the cluster does not see the files of this run here.",
            where=witness.parent if witness.name.startswith(".") else witness,
            hint="Let them lie in a folder that all nodes share, of a PACS the output folder, or use --engine local.",
        )


def load_run_model(pack: Path, run: Any) -> Any:
    """Load the model of a checked pack on the device of a run (its call, or a worker's plan), as it computes there."""
    from medclip.models.packs.pack import load_model

    with torch_threads(1):
        model = load_model(pack, device=run.device, verify=False)
        model.batch_size = run.batch_size or model.batch_size
        return model if run.backend is None else run.backend.load(model)


_NO_ANSWERS = Answers(None, lambda modality, body_part, kind: None, lambda modality: None, lambda work: work.result())
"""Of a run that does its own work."""


Commit = Callable[[ChunkResult], None]
"""Commits what a chunk adds to the run, whole; it is called by the thread that works through the chunks, in turn."""


class LookPool(Protocol):
    """Does what a reading pool does for whoever looks at files."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> JobFuture:
        """Have a function called with arguments that can be sent away."""
        ...

    def seconds(self) -> dict[str, float]:
        """Return the seconds of work by the names of functions."""
        ...

    def __enter__(self) -> LookPool: ...

    def __exit__(self, *_: object) -> None: ...


class Engine(Protocol):
    """Computes chunks elsewhere than in this process."""

    def look_pool(self, settings: Settings, witness: Path | None, note: Callable[[str], None]) -> LookPool:
        """Return what looks at files where they are computed; nothing is started before the first job.

        Args:
            settings: Limits.
            witness: Path that exists wherever the files of the run can be read; None where nothing tells.
            note: Function called with a sentence for the user.
        """
        ...

    def run(
        self,
        plan: WorkerPlan,
        chunks: Iterator[Chunk],
        commit: Commit,
        progress: Progress,
        is_full: Callable[[], bool] = bool,
    ) -> None:
        """Work through chunks.

        Args:
            plan: Plan of what the workers need.
            chunks: Chunks that are not done. They may come as they are found, and are asked for as there is room.
            commit: Function that takes the rows of each chunk, in this process.
            progress: Progress bar of the reading.
            is_full: Function that returns whether whoever holds the files of the chunks has no room for more.

        Raises:
            MedclipError: UNREACHABLE for a cluster that does not start or goes away; for one that cannot do the work,
                and for a worker that cannot be what the plan says.
        """
        ...


def run_chunks(context: Context, chunks: Iterator[Chunk], commit: Commit) -> None:
    """Work through chunks in this process: one is read while the one before is finished.

    Args:
        context: Context that every chunk needs.
        chunks: Chunks that may come as they are found: some are asked for ahead.
        commit: Function that takes the rows of each chunk.
    """
    for_reading, for_work = tee(chunks)
    readings = context.first_readings(for_reading)
    previous: ChunkWork | None = None
    for chunk in chain(for_work, [None]):
        work = None if chunk is None else ChunkWork.begin(context, chunk, readings)
        if previous is not None:
            commit(previous.finish())
        previous = work
