"""The public verb `medclip.watch`: score what comes into a folder, as it comes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from medclip.api.remote_arguments import place_to_publish
from medclip.api.run_arguments import path_of
from medclip.api.score import score
from medclip.errors import MedclipError, Reason
from medclip.exit_codes import ExitCode, exit_code
from medclip.files.disk.input_paths import refuse_missing
from medclip.files.disk.stillness import Stillness
from medclip.progress import Progress, Silent
from medclip.runs.outputs.score_run import ScoreRun
from medclip.settings import Settings
from medclip.wording import capital

EVERY_S = 10.0
"""Seconds between two looks at the folder."""
_LONGEST_S = 600.0
"""Longest pause after calls that could not be carried out."""


def watch(
    folder: str | Path,
    out: str | Path,
    *,
    work: str | Path | None = None,
    settle_s: float = 60.0,
    once: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> ScoreRun | None:
    """Score what comes into a folder, again and again, until it is interrupted.

    It is one run that grows: each time something has come, `medclip.score` is called with `add`, so that a stop at any
    moment is gone on from. Files that are still being written are left for later.

    Args:
        folder: Folder that others write to, such as a DICOM router.
        out: Output folder, outside `folder` or in it; or a folder of an object store, as "s3://BUCKET/FOLDER", to which
            each call sends what has changed.
        work: Where `out` is a store, the folder on a disk of this machine that holds the ledger, outside `folder` or in
            it.
        settle_s: Seconds that a file has to stay as it is before it counts as having come.
        once: Score what is there once everything has come to rest, and return.
        progress: Told how far it is.
        options: As `medclip.score` takes them.

    Returns:
        The run as it is at the end: with `once`, or after an interrupt (KeyboardInterrupt, as the command makes of
        SIGTERM) that came between two calls. None where nothing came. An interrupt in the middle of a call is raised.

    Raises:
        MedclipError: As `medclip.score`. A full disk, a server or store that is away and another run at work in the
            folder end nothing: it is tried again later; with `once` they are raised.
    """
    root, own = path_of(folder, "what is watched"), path_of(out if work is None else work, "the output folder")
    refuse_missing(root)
    if not root.is_dir() or settle_s < 0 or {"add", "exclude"} & options.keys():
        raise MedclipError(
            Reason.WRONG_USE, "a folder is watched, and what is read of it is decided by what has come.", where=root,
            hint="Name a folder and a time of at least 0 seconds, and leave add and exclude out.",
        )  # fmt: skip
    place_to_publish(out, work, root, None)  # refused at once, not when the first file has come
    progress = progress or Silent()
    settings = options.get("settings") or Settings()
    stillness = Stillness(root, settle_s, (own,), follow_links=settings.follow_links)
    run: ScoreRun | None = None
    scored, pause_s = "", EVERY_S
    while True:
        look = stillness.look()
        if look.digest != scored and look.num_still:
            try:
                run = score(root, out, work=work, add=True, exclude=look.moving, progress=progress, **options)
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
