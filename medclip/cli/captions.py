"""`medclip pairs captions`: captions for a table of images. `medclip captions rank`: captions in order for an image."""

from __future__ import annotations

import json
from typing import Any

from medclip.api import captions as verbs
from medclip.cli.derive import derive


def print_captions(report: Any, as_json: bool, named: Any) -> None:
    """Print what became of a table, and where its captions stand."""
    from medclip.errors import printable
    from medclip.wording import count

    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
        return
    for line in report.lines:
        print(line)
    print(
        f"{printable(str(report.out))}: {count(report.num_captions, 'caption')} for {report.num_captioned} of "
        f"{count(report.num_rows, 'row')}."
    )
    if report.num_without_labels:
        print(f"  {count(report.num_without_labels, 'row')} without labels, left as they were.")
    if report.num_moved:
        print(f"  {count(report.num_moved, 'path')} in `file` rewritten, relative to the new table's folder.")
    if report.num_short:
        print(f"  {count(report.num_short, 'row')} with fewer captions: the labels have no more wordings.")
    if "writer" in named:
        print(f"  {count(report.num_by_writer, 'caption')} by the writer itself.")
        for reason, number in sorted(report.rejected_by_reason.items(), key=lambda kv: -kv[1]):
            print(f"  {number:>7} replaced: {reason}")


def print_ranking(result: Any, as_json: bool, named: Any) -> None:
    """Print captions in their order."""
    from medclip.cli.search import print_written
    from medclip.cli.table import print_paragraph, print_table
    from medclip.retrieval.hits import NO_PROBABILITY
    from medclip.wording import figure

    if as_json:
        print(result.to_json())
        return
    figures = ((figure(hit.score, decimals=3), figure(hit.z, decimals=1, signed=True)) for hit in result.hits)
    rows = [[str(hit.rank), *cells, hit.caption] for hit, cells in zip(result.hits, figures, strict=True)]
    print_table(["", "score", "sd from mean", "caption"], rows)
    for note in (*result.notes, NO_PROBABILITY):
        print_paragraph("", note)
    print_written(named.get("out"))


captions = derive(verbs.captions, print_captions, exit_codes="0 done")
rank = derive(verbs.rank_captions, print_ranking, exit_codes="0 done")
