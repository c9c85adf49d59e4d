"""The public verb `medclip.retry`: files of a run that failed are tried once more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.asked import arguments_again
from medclip.api.run_arguments import path_of
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.progress import Progress
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.publication import PUBLISHED
from medclip.runs.outputs.results import EMBED
from medclip.runs.planning.options import FAILING, RETRY, failed_for

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.runs.outputs.score_run import ScoreRun
    from medclip.slides.stages.run_stage import StageRun

_OF_SLIDES = "slides "
"""How the commands of stages of slides begin."""


def retry(
    out: str | Path,
    *,
    reason: str = "all",
    workers: int | None = None,
    memory: int | str | None = None,
    progress: Progress | None = None,
) -> ScoreRun | Embeddings | StageRun:
    """Try files of a run once more that failed: of `medclip.score`, `medclip.embed` or a stage of `medclip.slides`.

    The run is asked what it was asked at first, which its ledger keeps; studies of those files are scored anew with all
    of their files, and the rows of all others stay. Where no file failed for the reason, nothing is computed.

    Where the ledger cannot keep the question (paths are hashed, images were given one by one, a PACS was queried, or
    `medclip.pathgen` embedded slides), it is noted which files are tried again, and repeating the call does it.

    Args:
        out: Output folder of the run; of one that is published in a store, its work folder; `DIR/tissue` or
            `DIR/patches` of those stages of slides.
        reason: Why files failed that are tried again, such as "timeout" or "read_error"; "all" for any reason.
        workers: Reading processes; as in the run where None.
        memory: What all processes may take together, such as "12GB"; as in the run where None.
        progress: Told how far the run is.

    Returns:
        The run, as its verb returns it.

    Raises:
        MedclipError: MISSING_FILE where the folder holds no run; WRONG_USE for a reason that no file fails for, and for
            a run whose ledger keeps no question, once it is noted.

    Example:
        >>> import medclip
        >>> medclip.retry("nightly", reason="read_error")  # doctest: +SKIP
    """
    folder = path_of(out, "the output folder")
    with Ledger(folder, create=False) as ledger:
        asked, identity = ledger.get("asked"), ledger.get("identity") or {}
        published = ledger.get(PUBLISHED)
        reasons = ledger.counts_by("reason", "failed")
    _refuse_unknown(reason, reasons, folder)
    if asked is None:
        with Ledger(folder) as ledger:
            ledger.remember({RETRY: failed_for(reason)})
        raise MedclipError(
            Reason.WRONG_USE,
            "this run does not keep what it was asked: its paths are hashed, its images were given one by one, a PACS "
            "was queried, or medclip pathgen began it. Which files are tried again is noted.",
            where=folder,
            hint="Repeat its command: it tries them again.",
        )
    own = {name: value for name, value in {"workers": workers, "memory": memory}.items() if value is not None}
    command = str(identity.get("command"))
    if command.startswith(_OF_SLIDES):
        from medclip.api.slides import slides_again
        from medclip.slides.stages.run_stage import EMBED as EMBED_SLIDES

        stage = command.removeprefix(_OF_SLIDES)
        parent = folder if stage == EMBED_SLIDES else folder.parent
        arguments = {**arguments_again(asked), **own, "out": parent, "progress": progress}
        return slides_again(stage, arguments, retry=failed_for(reason) or "")
    place = {"out": folder} if published is None else {"out": published["url"], "work": folder}
    arguments = {**arguments_again(asked), **own, **place, "retry_failed": reason, "progress": progress}
    if identity.get("command") == EMBED:
        from medclip.api.embed import embed

        return embed(**arguments)
    from medclip.api.score import score

    return score(**arguments)


def _refuse_unknown(reason: str, counts: Mapping[str, int], folder: Path) -> None:
    """Refuse what is no reason to fail; those that files of this run have are named, with how many have them."""
    if reason == "all" or reason in FAILING:
        return
    named = ", ".join(f"{name} ({num})" for name, num in counts.items())
    close = did_you_mean(reason, counts) or did_you_mean(reason, FAILING)
    has_failed = f"Files failed for: {named}; or 'all'." if counts else "No file of this run failed."
    raise MedclipError(
        Reason.WRONG_USE,
        f"no file fails for the reason {reason!r}.",
        where=folder,
        hint=f"{close} {has_failed}".strip(),
    )
