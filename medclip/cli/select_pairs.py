"""`medclip pairs select`, `medclip pairs intersect` and `medclip pairs union`."""

from __future__ import annotations

import json
from typing import Any

from medclip.api import select_pairs as verbs
from medclip.cli.derive import derive
from medclip.exit_codes import ExitCode


def print_selection(report: Any, as_json: bool, _: Any) -> int:
    """Print what is kept and by which step the rest was dropped, what nobody should overlook first."""
    from medclip.cli.table import print_paragraph, print_table
    from medclip.errors import printable
    from medclip.wording import count, number, percent_of

    code = ExitCode.COMPLETE if report.num_kept else ExitCode.SOME_FAILED
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
        return code
    for caution in report.cautions:
        print_paragraph("Caution: ", caution)
    share = percent_of(report.num_kept, report.num_pairs)
    print(
        f"{printable(str(report.out))}: {number(report.num_kept)} of {count(report.num_pairs, 'pair')} kept ({share})."
    )
    if report.steps:
        print_table(
            ["step", "pairs", "dropped", "kept"],
            [[step.name, *map(number, (step.num_rows, step.num_dropped, step.num_kept))] for step in report.steps],
        )
    rows = [
        [f"{column} {name or '(blank)'}", number(num), number(kept), percent_of(kept, num)]
        for column, counts in report.by.items()
        for name, (num, kept) in counts.items()
    ]
    print_table(["kept by", "pairs", "kept", "share"], rows)
    for note in report.notes:
        print_paragraph("", note)
    return code


select = derive(verbs.select, print_selection, exit_codes="0 done, 3 done and nothing is kept")
intersect = derive(verbs.intersect, print_selection, exit_codes="0 done, 3 done and nothing is kept", is_lookup=True)
union = derive(verbs.union, print_selection, exit_codes="0 done, 3 done and nothing is kept", is_lookup=True)
