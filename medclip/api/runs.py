"""Verbs over runs that are there: `status`, `retry`, `merge` and `purge`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups.reading import Limits
from medclip.api.groups.running import Limited, Logged, Machine, Recipe, RunFolder, Told, settings_of
from medclip.api.over_files import Exclusion
from medclip.options import argument, needs, option, options, options_of
from medclip.verbs import shared, verb

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.errors import MedclipError
    from medclip.runs.operations.purge import Purged
    from medclip.runs.operations.run_status import RunStatus
    from medclip.runs.outputs.score_run import ScoreRun
    from medclip.slides.stages.run_stage import StageRun

_OF_SLIDES = "slides "
"""How the commands of stages of slides begin in the identity of a run."""


@options
class StatusOptions(Recipe, RunFolder):
    """What `status` is asked."""


@verb(StatusOptions)
def status(options: StatusOptions) -> RunStatus:
    """Show how far a run is, also while it goes on. Nothing is computed, and a run that goes on is not disturbed.

    Raises:
        MedclipError: MISSING_FILE where the folder holds no run; OUTPUT_IN_USE for the ledger of another version.
    """
    from medclip.runs.operations.run_status import read_status

    return read_status(options.folder)


@options
class RetryOptions(Told, Limits, Recipe, RunFolder, Exclusion, Machine, Logged, Limited):
    """What `retry` is asked."""

    reason: str = option(
        "Why files failed that are tried again, such as timeout or read_error; all for any reason.",
        default="all",
        often=True,
    )
    path: Any = option(
        "What was scored or embedded, of a run that does not keep it: its paths are hashed, its images were given one "
        "by one, or a PACS was queried.",
        default=None,
        often=True,
        form="PATH",
        kind=Path,
        place=True,
    )
    table: Any = option("Table that was named beside it.", default=None, kind=Path, place=True)
    query: str | Sequence[str] | Mapping[str, str] = option(
        "Query that was named beside it.", default="", form="KEY=VALUE,...", kind=str, place=True
    )


@verb(RetryOptions)
def retry(options: RetryOptions) -> ScoreRun | Embeddings | StageRun:
    """Try files of a run once more that failed: of `medclip score`, `embed` or a stage of `medclip slides`.

    The run is asked what it was asked at first, which its ledger keeps.
    Studies of those files are scored anew with all of their files, and the rows of all others stay. Where no file
    failed for the reason, nothing is computed.

    Returns:
        The run, as its verb returns it.

    Raises:
        MedclipError: MISSING_FILE where the folder holds no run; WRONG_USE for a reason that no file fails for, and for
            a run that does not keep what it was over where nobody names it.

    Example:
        >>> import medclip
        >>> medclip.retry("nightly", reason="read_error")  # doctest: +SKIP
    """
    from medclip.api.asked import arguments_again, not_kept
    from medclip.api.run_arguments import path_of
    from medclip.api.slides import stage_options
    from medclip.runs.ledger.ledger import Ledger
    from medclip.runs.outputs.publication import PUBLISHED

    folder = path_of(options.folder, "the output folder")
    with Ledger(folder, create=False) as ledger:
        asked, identity = ledger.get("asked"), ledger.get("identity") or {}
        published, reasons = ledger.get(PUBLISHED), ledger.counts_by("reason", "failed")
    _refuse_unknown(options.reason, reasons, folder)
    machine = {"workers": options.workers, "memory": options.memory}
    machine = {name: value for name, value in machine.items() if value is not None}
    stage = str(identity.get("command")).partition(_OF_SLIDES)[2]
    if not stage:
        arguments = {**_asked_again(options, identity, asked or {}, folder), **machine}
        arguments |= {**shared(options, Limited), **shared(options, Logged), "progress": options.progress}
        arguments |= {"out": folder} if published is None else {"out": published["url"], "work": folder}
        return run_again(identity, arguments, reason=options.reason)
    if asked is None or not_kept(stage_options(stage), asked):
        raise _not_kept(options, folder)
    arguments = {**arguments_again(asked), **machine, "progress": options.progress}
    return _slides_again(stage, arguments, folder, options.reason)


def _slides_again(stage: str, arguments: Mapping[str, Any], folder: Path, reason: str) -> StageRun:
    """Carry out a stage of slides once more, which lies in a folder of its name unless it is the last."""
    from medclip.api.slides import slides_again
    from medclip.runs.planning.options import failed_for
    from medclip.slides.stages.run_stage import EMBED

    parent = folder if stage == EMBED else folder.parent
    return slides_again(stage, {**arguments, "out": parent}, retry=failed_for(reason) or "")


def run_again(identity: Mapping[str, Any], arguments: Mapping[str, Any], *, reason: str | None) -> Any:
    """Call the verb of a run once more.

    Args:
        identity: The run's.
        arguments: Options of the verb, by name.
        reason: Reason of the files that are tried again, "all" for any; None tries none.
    """
    from medclip.api.embed import run_embed
    from medclip.api.score import run_score
    from medclip.options import check_options
    from medclip.runs.outputs.results import EMBED

    run: Any = run_embed if identity.get("command") == EMBED else run_score
    given = _options_of_run(identity)(**arguments)
    check_options(given)
    return run(given, "" if reason == "all" else reason)


def _options_of_run(identity: Mapping[str, Any]) -> Any:
    from medclip.api.embed import EmbedOptions
    from medclip.api.score import ScoringOptions
    from medclip.runs.outputs.results import EMBED

    return EmbedOptions if identity.get("command") == EMBED else ScoringOptions


def _asked_again(
    options: RetryOptions, identity: Mapping[str, Any], asked: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Return the options of a run, as it keeps them and as a caller names those that it does not keep."""
    from medclip.api.asked import arguments_again, not_kept

    names, declared = ("path", "table", "query", "exclude", "settings"), options_of(options)
    named = {name: value for name in names if declared[name].is_set(value := getattr(options, name))}
    if "settings" in asked:
        named.pop("settings", None)
    if not_kept(_options_of_run(identity), asked) - {*named}:
        raise _not_kept(options, folder)
    return {**arguments_again(asked), **named}


def _not_kept(options: RetryOptions, folder: Path) -> MedclipError:
    """Note which files are tried again, by whoever repeats the command of a run, and return the refusal to guess it."""
    from medclip.errors import MedclipError, Reason
    from medclip.runs.ledger.ledger import Ledger
    from medclip.runs.planning.options import RETRY, failed_for

    with Ledger(folder) as ledger:
        ledger.remember({RETRY: failed_for(options.reason)})
    return MedclipError(
        Reason.WRONG_USE,
        "this run does not keep what it was asked: its paths are hashed, its images were given one by one, a PACS was "
        "queried, or medclip pathgen began it.",
        where=folder,
        hint="Name what was scored with --path, and the table or query beside it; or repeat its command, which tries "
        "them again.",
    )


def _refuse_unknown(reason: str, counts: Mapping[str, int], folder: Path) -> None:
    """Refuse what is no reason to fail; those that files of this run have are named, with how many have them."""
    from medclip.errors import MedclipError, Reason, did_you_mean
    from medclip.runs.planning.options import FAILING

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


@options
class MergeOptions(Told, Limits, Recipe, Machine):
    """What `merge` is asked."""

    shards: Sequence[str | Path] = argument(
        "Output folders of all shards, also in a store (s3://...), in any order; they stay as they are.",
        kind=Path,
        place=True,
        present="folder",
    )
    out: str | Path = argument(
        "Folder to write; one that holds something else is refused.", named=True, of_call=True, place=True
    )


@verb(MergeOptions)
def merge(options: MergeOptions) -> ScoreRun | Embeddings:
    """Merge the shards of a run: what lies in one folder then is, to the byte, what one machine would have made.

    Studies with files in several shards are read and computed here, from all of their files; the folder that was
    scored must be where it was. The same call goes on where it was stopped.

    Returns:
        The run, as `medclip.score` returns it, or the embeddings of `medclip.embed`.

    Raises:
        MedclipError: For shards that are missing, not finished, or of different runs, each named; as the verb; of a
            store as `medclip.runs.outputs.fetched_results.FetchedResults.shard`.

    Example:
        >>> import medclip
        >>> run = medclip.runs.merge(["night/1", "night/2"], "night/all")  # doctest: +SKIP
    """
    from medclip.api.asked import arguments_again
    from medclip.api.run_arguments import path_of
    from medclip.errors import MedclipError, Reason
    from medclip.files.discover import LEDGER
    from medclip.files.output import claim_folder, disk_errors, make_folder
    from medclip.runs.ledger.ledger import Ledger
    from medclip.runs.outputs.fetched_results import fetched_results
    from medclip.runs.outputs.results import EMBED
    from medclip.runs.planning.identity import asked_of_shards, merge_shards

    if not options.shards:
        raise MedclipError(Reason.WRONG_USE, "no shard is named.", hint="Name the folders of all shards.")
    folder = path_of(options.out, "the output folder")
    with fetched_results() as fetched:
        folders = [path_of(fetched.shard(shard), "a shard's folder") for shard in options.shards]
        asked, embeds = asked_of_shards(folders)
        claim_folder(
            folder, "run of medclip", marks=(LEDGER,), inputs={f"shard {n}": each for n, each in enumerate(folders, 1)}
        )
        with disk_errors(folder):
            make_folder(folder)
        with Ledger(folder) as ledger:
            merge_shards(ledger, folder, folders)
    settings = {} if options.settings is None else {"settings": settings_of(options)}
    machine = {"workers": options.workers, "memory": options.memory, "progress": options.progress}
    arguments = {**arguments_again(asked), **settings, **machine, "out": folder}
    return run_again({"command": EMBED} if embeds else {}, arguments, reason=None)


@options
class PurgeOptions(Recipe, RunFolder):
    """What `purge` is asked."""

    folder: str | Path = argument(
        "Output folder of a run, or a folder that holds such, at any depth.", place=True, present="folder"
    )
    older_than: str | None = option("Only runs that were finished so long ago: 12h, 30d, 4w.", default=None, form="AGE")
    remove: str | Sequence[str] = option(
        "What goes. thumbnails are small images, and the pages of the report, which show them; without the ledger no "
        "command goes on with the run any more; without embeddings no question can be put to it any more.",
        default=(),
        form="WHAT",
        choices=("thumbnails", "ledger", "embeddings"),
        often=True,
    )
    yes: bool = option("Remove; without it, what could be removed is listed.", default=False)

    rules = (
        needs(
            "yes",
            "remove",
            "nothing is named to remove.",
            hint="Name it: --remove thumbnails, ledger or embeddings.",
        ),
    )


@verb(PurgeOptions)
def purge(options: PurgeOptions) -> Purged:
    """Remove what runs have beside their tables: small images, vectors, rows of the ledger; or list what could be.

    Returns:
        The runs. One that goes on, that was never finished, or that is a shard of another is kept, and says so.

    Raises:
        MedclipError: WRONG_USE where nothing is named to remove, for an age that is none, and for a folder that holds
            a home folder, such as /; MISSING_FILE for one without a run; as `medclip.files.output.disk_errors`.
    """
    from medclip.runs.operations.purge import KINDS, parse_age, purge_runs

    seconds = 0.0 if options.older_than is None else parse_age(options.older_than)
    kinds = tuple(kind for kind in KINDS if kind in options.remove)
    return purge_runs(Path(options.folder), kinds, seconds, yes=options.yes)
