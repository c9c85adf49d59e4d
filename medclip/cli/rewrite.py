"""`medclip pairs rewrite SHARDS|TABLE --out DIR`: cleaned texts, negatives, tags and weights of reports."""

from __future__ import annotations

import json
from typing import Any

from medclip.api.rewrite import rewrite as verb
from medclip.cli.derive import derive


def print_rewrite(result: Any, as_json: bool, _: Any) -> None:
    """Print what became of the words; a caution leads."""
    from medclip.errors import printable
    from medclip.wording import by_reason, count, estimate

    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    for caution in result.cautions:
        print(f"Caution: {caution}")
    print(f"{count(result.num_rewritten, 'text')} of {count(result.num_rows, 'row')}.")
    for title, counts in (
        ("Rows without a text", result.counts_by_reason),
        ("Sentences cleaned", result.counts_by_change),
        ("Captions without a weight", result.refused_candidates),
        ("Negatives", result.counts_by_edit),
        ("Changes that were refused", result.refused_edits),
        ("Edited pairs", {"written": result.num_partners} if result.num_partners else {}),
        ("Without a partner", result.refused_partners),
    ):
        if counts:
            print(f"{title}: {by_reason(counts)}")
    if result.check is not None:
        check, unit = result.check, "patient" if result.names_patients else "row"
        print(
            f"Words alone tell true from false: {estimate(check.accuracy, check.low, check.high)} of "
            f"{count(check.num_pairs, 'pair')} of {count(check.num_patients, unit)}; at most 0.6 is asked."
        )
    for note in result.notes:
        print(note)
    print(printable(str(result.out)))


def _interrupted(_: Any) -> int:
    from medclip.cli.progress import print_line
    from medclip.exit_codes import ExitCode

    print_line("medclip: interrupted. What an agent has answered is kept; the same command goes on.")
    return ExitCode.INTERRUPTED


rewrite = derive(verb, print_rewrite, exit_codes="0 done", interrupted=_interrupted)
