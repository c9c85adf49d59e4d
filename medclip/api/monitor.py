"""The public verb `medclip.monitor`: results of months beside those of before, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.run_arguments import path_of
from medclip.auditing.monitoring.result import JSON, PERIODS, Monitored
from medclip.auditing.monitoring.run import monitor_results
from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_folder, disk_errors, make_folder
from medclip.progress import Progress, Silent
from medclip.reports.monitor.findings import findings_of
from medclip.reports.monitor.report import write_monitor_report
from medclip.runs.outputs.fetched_results import fetched_results

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.runs.outputs.score_run import ScoreRun

    Run = str | Path | ScoreRun | Embeddings


def monitor(
    results: Run | Sequence[Run],
    *,
    reference: Run | Sequence[Run] = (),
    against: Run | Sequence[Run] = (),
    by: str | None = None,
    out: str | Path | None = None,
    threshold: float = 0.5,
    num_resamples: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Monitored:
    """Compare the results of runs, week by week, with those of before, and those of one pack with those of another.

    No image is read, no model is loaded and no label is needed: all is in the tables that runs write anyway. Compared
    are why files fail or are skipped, which modalities, views and scanners come, what the model says, how far images
    lie from those that the pack's figures were measured on, and vectors where runs of `medclip.embed` are among them.

    Args:
        results: Output folders of `medclip.score` and `medclip.embed`, or URLs of a store that they were published in,
            in the order of time; or what they returned.
        reference: Those of the time before. Where none is named, the first four periods of `results` are.
        against: Results of another pack on the same studies, such as the one before an upgrade: paired differences,
            decisions that differ, and the studies that changed most.
        by: "week" or "month" of the examination, which runs with `weeks=True` write, or "run", one folder after the
            other; None: weeks where at least half of the units have one.
        out: Folder for report.html, monitor.json and the tables, as Parquet and CSV; nothing is written where None. A
            folder that holds such a page is written anew.
        threshold: Probability from which a finding is called where two packs are compared; of tasks with one answer
            the likeliest class is.
        num_resamples: Resamples of patients behind the intervals of means.
        seed: Of all draws.
        progress: Told of it.

    Returns:
        The comparison: `.findings` in sentences, `.changes` and `.table`, `.periods`, `.compared`,
        `.changed_studies`, `.exit_code`.

    Raises:
        MedclipError: MISSING_FILE for a folder without a finished run; WRONG_USE for weeks where no file has one;
            NOTHING_TO_DO where there is nothing to compare with; OUTPUT_IN_USE; of a store as
            `medclip.runs.outputs.fetched_results.FetchedResults.results`.

    Example:
        >>> import medclip
        >>> watched = medclip.monitor(["night-1", "night-2"], reference="january")  # doctest: +SKIP
        >>> watched.findings[0].text  # doctest: +SKIP
    """
    if not 0.0 < threshold < 1.0:
        raise MedclipError(Reason.WRONG_USE, f"a threshold lies between 0 and 1, not {threshold:g}.")
    folder = None if out is None else path_of(out, "the output folder")
    if folder is not None:
        claim_folder(folder, "page of watched runs", marks=(JSON, PERIODS))
    with fetched_results() as fetched:
        given, before, others = (
            [fetched.results(run) for run in _several(runs)] for runs in (results, reference, against)
        )
        result = monitor_results(
            given,
            before,
            others,
            by=by,
            threshold=threshold,
            num_resamples=num_resamples,
            seed=seed,
            progress=progress or Silent(),
        )
    result = replace(result, findings=findings_of(result), folder=folder)
    if folder is not None:
        with disk_errors(folder):
            make_folder(folder)
        result.write(folder)
        write_monitor_report(result, folder)
    return result


def _several(runs: Run | Sequence[Run]) -> list[Run]:
    return list(runs) if isinstance(runs, (list, tuple)) else [runs]  # pyright: ignore[reportReturnType]
