"""The verb `report`: how the page of a finished run looks; no score is computed again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups.reading import Limits
from medclip.api.groups.running import Device, Machine, Recipe, ReportPaths, RunFolder, Told, settings_of
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.options import option, options, options_of
from medclip.verbs import fits, verb

if TYPE_CHECKING:
    from medclip.runs.call import Call
    from medclip.runs.outputs.score_run import ScoreRun


@options
class PageLook:
    """How a page looks."""

    sort_by: str | None = option(
        "Task and class by whose probability studies are sorted, the highest first; a task of steps alone: by its "
        "expected step. Default: as their files stand.",
        default=None,
        form="TASK[:CLASS]",
        often=True,
    )
    explain: str | None = option(
        'Draw heat maps beside the images of the first page: "top" for the most probable finding of each study, or a '
        "TASK or TASK:CLASS. Files are read once more.",
        default=None,
        form="top|TASK[:CLASS]",
        often=True,
    )


@options
class PageOptions(ReportPaths, PageLook):
    """How the page of a run looks."""


@dataclass
class Page:
    """Writes a page."""

    options: Any
    """`PageOptions`, or what has its fields."""
    heat_maps: Any = None
    answers: list[Mapping[str, Any]] = field(default_factory=list)
    """Of a run of a few studies, once it is written."""

    def write(self, ledger: Any, card: Any, folder: Path, sort_by: Any) -> None:
        """Write the page of a complete run."""
        from medclip.reports.score.report import write_score_report
        from medclip.reports.score.study import collect_answers

        show = self.options.report_paths
        write_score_report(ledger, card, folder, show_paths=show, sort_by=sort_by, heat_maps=self.heat_maps)
        self.answers += collect_answers(ledger, card, show_paths=show, sort_by=sort_by)


def page_of_call(values: Mapping[str, Any] | None, inputs: Any, call: Call, *, is_stored: bool) -> Page:
    """Return what writes the page at the end of a call, once it is sure that it can.

    Args:
        values: Options of the page by name, as a recipe has them.
        inputs: Files of the call: `medclip.api.run_arguments.Inputs`.
        call: The call.
        is_stored: Whether embeddings are scored.

    Raises:
        MedclipError: RECIPE_INVALID for a name that is none of them, and for a value that it does not take; as
            `check_explain`.
    """
    known = options_of(PageOptions)
    for name, value in (values or {}).items():
        if name not in known:
            hint = did_you_mean(name, known, "They are")
            raise MedclipError(Reason.RECIPE_INVALID, f"report has no option {name!r}.", hint=hint)
        if not fits(known[name], value):
            raise MedclipError(Reason.RECIPE_INVALID, f"report: {name} does not take {value!r}.")
    chosen = PageOptions(**(values or {}))
    refuse_shown_paths(call.options.hash_paths, chosen)
    if chosen.explain is None:
        return Page(chosen)
    unread = {
        "paths are hashed": call.options.hash_paths,
        "embeddings are scored": is_stored,
        "images are given one by one": call.given is not None,
    }
    check_explain(chosen.explain, next((what for what, is_so in unread.items() if is_so), ""), call.model, call.options)
    return Page(chosen, heat_maps_of(call, chosen.explain))


def heat_maps_of(call: Call, named: str) -> Any:
    """Return what draws heat maps of a run; of a PACS its files are kept or fetched once more."""
    from medclip.files.dicomweb.spool import DicomwebFiles
    from medclip.reports.score.heat_maps import HeatMaps

    remote = call.remote
    brought = {"held": remote.held, "keep": remote.keep} if isinstance(remote, DicomwebFiles) else {}
    return HeatMaps(call.root, call.model, call.options, call.settings, named, call.device, call.progress, **brought)


def refuse_shown_paths(hash_paths: bool, chosen: Any) -> None:
    """Refuse a page that shows paths of a run that hashes them."""
    if hash_paths and chosen.report_paths:
        raise MedclipError(Reason.WRONG_USE, "paths are either hashed or shown in the report.", hint="Choose one.")


def check_explain(explain: str, unread: str, model: Any, asked: Any) -> None:
    """Refuse heat maps that cannot be drawn.

    Args:
        explain: Finding of the heat maps: "top", TASK or TASK:CLASS.
        unread: Why no file can be read once more; "" where it can.
        model: The run's.
        asked: Question of the run: `ScoreOptions`.
    """
    from medclip.reports.score.heat_maps import check_named

    if unread:
        raise MedclipError(
            Reason.WRONG_USE,
            f"heat maps read the files of a folder once more, and {unread}.",
            hint="Leave one of the two out, or use medclip explain on a file.",
        )
    if not explain.strip():
        raise MedclipError(Reason.WRONG_USE, "nothing is named to explain.", hint="Name 'top', or a TASK:CLASS.")
    check_named(explain, model, asked)


@options
class ReportOptions(Told, Limits, Recipe, RunFolder, Machine, Device, ReportPaths, PageLook):
    """What `report` is asked."""

    images: str | Path | None = option(
        "Folder or file that was scored, for heat maps of a run that does not know it any more.",
        default=None,
        form="DIR",
        place=True,
    )


@verb(ReportOptions)
def report(options: ReportOptions) -> ScoreRun:
    """Write the page of a finished run of `medclip score` anew, as its options say; no score is computed.

    Without an option it is the page that `medclip score` wrote.

    Returns:
        The run, as `medclip.runs.read` returns it, with `.answers` of a few studies.

    Raises:
        MedclipError: MISSING_FILE where there is no finished run; WRONG_USE for a task or class that was not asked, and
            for heat maps of images that cannot be read once more; OUTPUT_IN_USE where another run is at work there.

    Example:
        >>> import medclip
        >>> medclip.runs.report("nightly", sort_by="pneumonia").report_path  # doctest: +SKIP
    """
    from medclip.progress import Silent
    from medclip.reports.score.finished_run import read_finished
    from medclip.runs.ledger.ledger import Ledger
    from medclip.runs.outputs.publication import published_again
    from medclip.runs.outputs.results import hashes_of
    from medclip.runs.outputs.score_run import read_run

    folder, settings, progress = Path(options.folder), settings_of(options), options.progress or Silent()
    with Ledger(folder, create=False) as known:
        finished = read_finished(known, folder, settings, images=options.images)
    refuse_shown_paths(finished.options.hash_paths, options)
    page = Page(options)
    if options.explain is not None:
        check_explain(options.explain, finished.unread, finished.pack.path, finished.options)
        page.heat_maps = finished.heat_maps(options.explain, options.device, progress)
    sort_by = None if options.sort_by is None else finished.score_named(options.sort_by)
    with Ledger(folder) as ledger, published_again(ledger, folder, progress):
        page.write(ledger, finished.pack.card, folder, sort_by)
        ledger.remember({"finished": hashes_of(folder)})
    return replace(read_run(folder), answers=tuple(page.answers))
