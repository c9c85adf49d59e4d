"""The verb `monitor`: results of months beside those of before, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.groups.asking import Chance, Resamples
from medclip.api.groups.running import OutFolder, Recipe, Told
from medclip.options import argument, option, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.monitoring.run import Monitored
    from medclip.runs.outputs.score_run import ScoreRun

    Run = str | Path | ScoreRun | Embeddings


@options
class MonitorOptions(Told, Recipe, OutFolder, Resamples, Chance):
    """What `monitor` is asked."""

    results: Run | Sequence[Run] = argument(
        "Output folders of medclip score or embed, also in a store (s3://...), in order of time. In Python also what "
        "these returned.",
        form="RESULTS...",
        kind=Path,
        place=True,
        present="folder",
    )
    before: Run | Sequence[Run] = option(
        "Results of the time before, which all others are compared with. Default: the first four periods.",
        default=(),
        form="DIR",
        kind=Path,
        often=True,
        place=True,
    )
    compare: Run | Sequence[Run] = option(
        "Results of another pack on the same studies, such as the one before an upgrade: paired differences, decisions "
        "that differ, and the studies that changed most.",
        default=(),
        form="DIR",
        kind=Path,
        often=True,
        place=True,
    )
    period: str | None = option(
        "Stretch of time that is compared: week or month of the examination, which runs with --weeks write, or run, "
        "one folder after the other. Default: week where at least half of the units have one.",
        default=None,
        choices=("week", "month", "run"),
        often=True,
    )
    false_alarms_a_year: float = option(
        "Rate of false alarms that is accepted over everything that is watched together: all figures of all scanners, "
        "sites, views and protocols. Runs are taken for nights, 365 a year.",
        default=1.0,
        least=0.01,
        most=50,
        heading="Figures",
    )
    min_probability: float = option(
        "Probability from which a finding is called where two packs are compared. Of tasks with one answer the "
        "likeliest class is.",
        default=0.5,
        least=0,
        most=1,
        heading="Figures",
    )


@verb(MonitorOptions)
def monitor(options: MonitorOptions) -> Monitored:
    """Compare results, week by week, with those of before: what fails, what comes in, what the model says. No labels.

    No image is read, no model is loaded: all is in the tables that runs write anyway. Compared are why files fail or
    are skipped, which modalities, views and scanners come, what the model says, how far images lie from those that the
    pack's figures were measured on, and vectors where runs of `medclip.embed` are among them. With `compare` two packs
    are compared on the same studies. A folder that holds such a page is written anew.

    Returns:
        The comparison: `.findings` in sentences, `.changes` and `.table`, `.periods`, `.compared`,
        `.changed_studies`, `.exit_code`.

    Raises:
        MedclipError: MISSING_FILE for a folder without a finished run; WRONG_USE for weeks where no file has one;
            NOTHING_TO_DO where there is nothing to compare with; OUTPUT_IN_USE; of a store as
            `medclip.runs.outputs.fetched_results.FetchedResults.results`.

    Example:
        >>> import medclip
        >>> watched = medclip.monitor(["night-1", "night-2"], before="january")  # doctest: +SKIP
        >>> watched.findings[0].text  # doctest: +SKIP
    """
    from medclip.api.run_arguments import path_of
    from medclip.files.output import claim_folder, disk_errors, make_folder
    from medclip.monitoring.run import JSON, PERIODS, monitor_results
    from medclip.progress import Silent
    from medclip.reports.monitor import findings_of, write_monitor_report
    from medclip.runs.outputs.fetched_results import fetched_results

    folder = None if options.out is None else path_of(options.out, "the output folder")
    if folder is not None:
        claim_folder(folder, "page of watched runs", marks=(JSON, PERIODS))
    with fetched_results() as fetched:
        results, before, others = (
            [fetched.results(run) for run in _several(runs)]
            for runs in (options.results, options.before, options.compare)
        )
        result = monitor_results(
            results,
            before,
            others,
            period=options.period,
            false_alarms_a_year=options.false_alarms_a_year,
            min_probability=options.min_probability,
            num_resamples=options.num_resamples,
            seed=options.seed,
            progress=options.progress or Silent(),
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
