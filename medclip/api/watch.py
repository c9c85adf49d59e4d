"""The verb `watch`: score what comes into a folder, or is sent by DIMSE, as it comes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.groups.asking import Questions, Templates, WithModel
from medclip.api.groups.reading import Believed, FileTable, Identity, Limits, NamedModality, Policies, Studies
from medclip.api.groups.running import (
    Batches,
    Device,
    Encoder,
    HashedPaths,
    Logged,
    Machine,
    Recipe,
    Told,
    WorkFolder,
    settings_of,
)
from medclip.api.over_files import Kept
from medclip.api.score import Scored, ScoringOptions, score
from medclip.errors import MedclipError, Reason
from medclip.options import argument, excludes, needs, option, options
from medclip.verbs import shared, verb

if TYPE_CHECKING:
    from medclip.files.discover import Stillness
    from medclip.progress import Progress
    from medclip.runs.operations.reception import Reception
    from medclip.runs.outputs.score_run import ScoreRun

EVERY_S = 10.0
"""Seconds between two looks at the folder."""
_LONGEST_S = 600.0
"""Longest pause after calls that could not be carried out."""


@options
class WatchOptions(
    Told,
    Limits,
    Recipe,
    WithModel,
    Scored,
    Questions,
    Templates,
    FileTable,
    Studies,
    NamedModality,
    Believed,
    Policies,
    Identity,
    Machine,
    Device,
    Batches,
    Encoder,
    WorkFolder,
    Logged,
    HashedPaths,
    Kept,
):
    """What `watch` is asked."""

    path: str | Path = argument(
        "Folder that others write to, such as a DICOM router. Or dicom://AET@HOST:PORT: the AE title that others send "
        "to (C-STORE) and the address that is listened at, 0.0.0.0 for all interfaces of this machine, nothing for "
        "this machine alone.",
        form="FOLDER",
        place=True,
        present="file or folder",
    )
    out: str | Path = argument(
        "Folder to write, outside the one that is watched or in it. Or a folder of an object store, to which each call "
        "sends what has changed.",
        named=True,
        of_call=True,
        place=True,
    )
    settle_s: float = option(
        "Seconds without a change after which a file has come.",
        default=60.0,
        form="SECONDS",
        least=0,
        often=True,
        of_call=True,
    )
    once: bool = option(
        "Score what is there once it has come to rest, and end.", default=False, often=True, of_call=True
    )
    allow_ae: Sequence[str] = option(
        "AE title that may send; AET@HOST:PORT also names where results of storage commitment go to. Default: any.",
        default=(),
        form="AET[@HOST:PORT]",
        kind=str,
        place=True,
        of_call=True,
        heading="Receiving",
    )
    keep_s: float = option(
        "Seconds that received images of a study stay after its last one came and was scored, so that a late image "
        "finds them. They go earlier where room is needed.",
        default=86_400.0,
        form="SECONDS",
        least=0,
        of_call=True,
        heading="Receiving",
    )

    @property
    def is_received(self) -> bool:
        """Whether images are received by DIMSE."""
        from medclip.files.dimse.address import is_dimse

        return is_dimse(self.path)

    rules = (
        needs(
            ("allow_ae", "keep_s"),
            "is_received",
            "{names} is of images that are received, and a folder is named.",
            hint="Name dicom://AET@HOST:PORT.",
        ),
        excludes("table", "is_received", "received files have no names that a table could have.", hint="Leave it out."),
        excludes(
            "hash_paths", "is_received", "names of received files are keyed hashes already.", hint="Leave it out."
        ),
    )


@verb(WatchOptions)
def watch(options: WatchOptions) -> ScoreRun | None:
    """Score what comes into a folder, as it comes, into one run that grows; the same command goes on after a stop.

    In the place of a folder stands an AE title that images are sent to by DIMSE: what was answered with success lies on
    the disk, and goes once its rows are committed and its results sent. With `once` nothing is received.

    Each time something has come, `medclip.score` is called with `add`, so that a stop at any moment is gone on from.
    Files that are still being written, and those whose names are hidden or unfinished, are left for later. Once it is
    stopped, or with `once`, it ends.

    Returns:
        The run as it is at the end: with `once`, or after an interrupt (KeyboardInterrupt, as the command makes of
        SIGTERM) that came between two calls. None where nothing came. An interrupt in the middle of a call is raised.

    Raises:
        MedclipError: As `medclip.score`. A full disk, a server or store that is away and another run at work in the
            folder end nothing: it is tried again later; with `once` they are raised.
    """
    from medclip.api.remote_arguments import place_to_publish
    from medclip.api.run_arguments import path_of
    from medclip.errors import refuse_missing
    from medclip.files.discover import Stillness
    from medclip.progress import Silent

    own = path_of(options.out if options.work is None else options.work, "the output folder")
    place_to_publish(options.out, options.work, options.path, None)  # refused now, not when the first file has come
    progress = options.progress or Silent()
    if options.is_received:
        with _reception(options, own, progress) as reception:
            return _watch(options, reception, reception.folder, progress)
    root = path_of(options.path, "what is watched")
    refuse_missing(root)
    if not root.is_dir():
        raise MedclipError(
            Reason.WRONG_USE,
            "a folder is watched, and what is read of it is decided by what has come.",
            where=root,
            hint="Name a folder.",
        )
    stillness = Stillness(root, options.settle_s, (own,), follow_links=settings_of(options).follow_links)
    return _watch(options, stillness, root, progress)


def _reception(options: WatchOptions, own: Path, progress: Progress) -> Reception:
    """Return what receives by DIMSE. What cannot be is refused now, and not when the first image has come."""
    from medclip.api.run_arguments import path_of
    from medclip.files.dimse.address import entity_of, parse_senders
    from medclip.files.pseudonyms import load_key
    from medclip.models.packs.pack import find_pack
    from medclip.runs.operations.reception import Reception

    entity, senders = entity_of(options.path), parse_senders(tuple(options.allow_ae))
    if isinstance(options.model, (str, Path)):
        find_pack(options.model)
    settings = settings_of(options)
    return Reception(
        own,
        None if options.once else entity,
        senders,
        key=load_key(settings, path=None if options.key_file is None else path_of(options.key_file, "the key file")),
        settings=settings,
        settle_s=options.settle_s,
        keep_s=options.keep_s,
        progress=progress,
    )


def _watch(options: WatchOptions, stillness: Stillness | Reception, root: Path, progress: Progress) -> ScoreRun | None:
    from medclip.exit_codes import ExitCode, exit_code
    from medclip.wording import capital, count

    settle_s, once = options.settle_s, options.once
    arguments = {**shared(options, ScoringOptions), "path": root, "progress": progress, "add": True, "recipe": None}
    run: ScoreRun | None = None
    scored, pause_s, num_waiting = "", EVERY_S, 0
    while True:
        look = stillness.look()
        if look.num_waiting > num_waiting:
            waiting = count(look.num_waiting, "file or folder waits", "files or folders wait")
            progress.note(f"{waiting} for a real name: hidden or unfinished ones, such as .part, are left alone.")
        num_waiting = look.num_waiting
        if look.digest != scored and look.num_still:
            try:
                run = score(exclude=(*look.moving, *look.waiting), **arguments)
                scored, pause_s = look.digest, EVERY_S
                stillness.settle()
            except MedclipError as error:
                if once or exit_code(error.reason) not in (ExitCode.INCOMPLETE, ExitCode.BUSY):
                    raise
                pause_s = min(2 * pause_s, _LONGEST_S)
                progress.note(f"{capital(error.message)} It is tried again in {round(pause_s)} seconds.")
        if once and not look.moving:
            return run
        try:
            time.sleep(pause_s if pause_s > EVERY_S else min(EVERY_S, max(settle_s / 2, 0.05)))
        except KeyboardInterrupt:
            return run
