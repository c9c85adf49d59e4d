"""The verb `watch`: score what comes into a folder, as it comes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.groups import (
    Batches,
    Believed,
    Device,
    Encoder,
    FileTable,
    HashedPaths,
    Identity,
    Limits,
    Logged,
    Machine,
    NamedModality,
    Policies,
    Questions,
    Recipe,
    Studies,
    Templates,
    Told,
    WithModel,
    WorkFolder,
    settings_of,
)
from medclip.api.over_files import Kept
from medclip.api.score import Scored, ScoringOptions, score
from medclip.errors import MedclipError, Reason
from medclip.options import argument, option, options
from medclip.verbs import shared, verb

if TYPE_CHECKING:
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
        "Folder that others write to, such as a DICOM router.", form="FOLDER", place=True, present="file or folder"
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


@verb(WatchOptions)
def watch(options: WatchOptions) -> ScoreRun | None:
    """Score what comes into a folder, as it comes, into one run that grows; the same command goes on after a stop.

    Each time something has come, `medclip.score` is called with `add`, so that a stop at any moment is gone on from.
    Files that are still being written are left for later. Once it is stopped, or with `once`, it ends.

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
    from medclip.exit_codes import ExitCode, exit_code
    from medclip.files.discover import Stillness
    from medclip.progress import Silent
    from medclip.wording import capital

    root = path_of(options.path, "what is watched")
    own = path_of(options.out if options.work is None else options.work, "the output folder")
    refuse_missing(root)
    if not root.is_dir():
        raise MedclipError(
            Reason.WRONG_USE,
            "a folder is watched, and what is read of it is decided by what has come.",
            where=root,
            hint="Name a folder.",
        )
    place_to_publish(options.out, options.work, root, None)  # refused at once, not when the first file has come
    progress, settle_s, once = options.progress or Silent(), options.settle_s, options.once
    stillness = Stillness(root, settle_s, (own,), follow_links=settings_of(options).follow_links)
    arguments = {**shared(options, ScoringOptions), "path": root, "progress": progress, "add": True, "recipe": None}
    run: ScoreRun | None = None
    scored, pause_s = "", EVERY_S
    while True:
        look = stillness.look()
        if look.digest != scored and look.num_still:
            try:
                run = score(exclude=look.moving, **arguments)
                scored, pause_s = look.digest, EVERY_S
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
