"""`medclip score`, `watch`, `report` and `export`: what they print of a run."""

from __future__ import annotations

import json
from typing import Any

from medclip.api import export as export_verb
from medclip.api import report as report_verb
from medclip.api import score as score_verb
from medclip.api import watch as watch_verb
from medclip.cli.derive import derive
from medclip.cli.run_reasons import SCORE_REMEDIES, interrupted, print_planned, print_reasons


def print_run(run: Any, as_json: bool, _: Any = None) -> int:
    """Print how a run ended and where its results are; return the exit code."""
    _print(run, as_json)
    return run.exit_code


def _print(run: Any, as_json: bool) -> None:
    if as_json:
        print(
            json.dumps(
                {
                    "out": str(run.folder),
                    "report": None if run.report_path is None else str(run.report_path),
                    "exit_code": run.exit_code,
                    **run.counts,
                    "notes": run.notes,
                    **({"answers": run.answers} if run.answers else {}),
                    "unlearned": [answers.to_json() for answers in run.unlearned],
                    **({} if run.planned is None else {"planned": run.planned}),
                    **({} if run.work is None else {"work": run.work}),
                    **({} if run.published is None else {"published": run.published}),
                    **({} if run.exported is None else {"results": run.exported}),
                }
            )
        )
        return
    if run.planned is not None:
        print_planned(run, SCORE_REMEDIES)
        return
    if run.already_finished:
        print("This run was finished before; nothing was computed again.")
    from medclip.errors import printable
    from medclip.reports.score.report import headline
    from medclip.runs.outputs.results import MAP_TABLE, SCORES
    from medclip.runs.rows import MAPS

    print(f"{headline(run.counts)}.")
    if run.shard is not None:
        print(f"Shard {run.shard}. When all are finished: medclip runs merge DIR... --out DIR")
        return
    print_reasons(run.files, SCORE_REMEDIES)
    if run.table_rows_elsewhere:
        print(f"Rows of the table that name no file here: {run.table_rows_elsewhere}")
    if run.answers:
        _print_answers(run)
    else:
        _print_unlearned(run)
        if run.counts["studies"]:
            print(f"Answers: {printable(str(run.folder / SCORES))}, and study by study in the report.")
    if run.maps is not None:
        print(f"Maps: {printable(str(run.folder / MAPS))}, a row for each in {MAP_TABLE}.")
    print(f"Report: {printable(str(run.report_path))}")
    if run.published is not None:
        print(f"Published: {printable(run.published)}")
    if run.exported is not None:
        from medclip.export.results_folder import Exported

        for line in Exported(**run.exported).sentences():
            print(line)
        print(f"Results: {printable(str(run.exported['folder']))}")


def _print_answers(run: Any) -> None:
    """Print the answers of a few studies; what is grey in the report is grey here."""
    from medclip.cli.progress import print_grey
    from medclip.reports.score.study import answer_lines

    for study in run.answers:
        for line, is_grey in answer_lines(study):
            (print_grey if is_grey else print)(line)


def _print_unlearned(run: Any) -> None:
    """Print which answers are worth little: they are grey in the report."""
    from medclip.cli.progress import print_grey
    from medclip.runs.outputs.score_run import MEASURE_WORDS

    by_reason: dict[str, list[str]] = {}
    for answers in run.unlearned:
        name = answers.task if answers.class_ is None else f"“{answers.class_}”"
        by_reason.setdefault(answers.reason, []).append(name)
    for reason, names in by_reason.items():
        print_grey(f"Not learned: {', '.join(dict.fromkeys(names))}: {reason}.")
    if MEASURE_WORDS in run.notes:
        print_grey(MEASURE_WORDS)


def _print_watched(run: Any, as_json: bool, _: Any) -> int:
    if run is None:
        print('{"files": 0}' if as_json else "Nothing came.")
        return 0
    return print_run(run, as_json)


def _print_page(run: Any, as_json: bool, _: Any) -> int:
    from medclip.errors import printable

    if as_json:
        answers = {"answers": run.answers} if run.answers else {}
        print(json.dumps({"out": str(run.folder), "report": str(run.report_path), **answers}))
    else:
        if run.answers:
            _print_answers(run)
        print(f"Report: {printable(str(run.report_path))}")
    return 0


def _print_exported(exported: Any, as_json: bool, _: Any) -> int:
    from medclip.errors import printable

    refused = exported.num_refused
    if as_json:
        print(json.dumps({**exported.to_json(), "exit_code": 3 if refused else 0}))
    else:
        for line in exported.sentences():
            print(line)
        print(f"Results: {printable(str(exported.folder))}")
    return 3 if refused else 0


score = derive(
    score_verb.score, print_run, exit_codes="0 all scored or skipped, 3 some failed", interrupted=interrupted
)
watch = derive(
    watch_verb.watch,
    _print_watched,
    exit_codes="0 all scored or skipped, 3 some failed, 130 stopped in the middle of its work",
    interrupted=interrupted,
)
report = derive(report_verb.report, _print_page, exit_codes="0 written")
export = derive(export_verb.export, _print_exported, exit_codes="0 all written or sent, 3 a server refused some")
