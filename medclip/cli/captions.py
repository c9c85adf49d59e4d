"""`medclip captions`: image-text pairs of sets that have labels only, or tables of findings; captions for an image."""

from __future__ import annotations

import json
from typing import Any

from medclip.api import captions as verbs
from medclip.cli.derive import derive


def print_labelled(report: Any, as_json: bool, named: Any) -> None:
    """Print what became of a table of labels."""
    _print(report, as_json, wrote="writer" in named)


def print_set(report: Any, as_json: bool, named: Any) -> None:
    """Print what became of the table of a mammography set."""
    from medclip.wording import count

    if not as_json:
        print(f"{report.dataset}: {count(report.num_source_rows, 'row')}, {count(report.num_rows, 'image')}.")
        if report.num_reports:
            print(f"  {count(report.num_reports, 'image')} with a radiologist's own words, in `report`.")
        for reason, number in report.set_aside.items():
            print(f"  {number:>7} set aside: {reason}")
        for note in report.notes:
            print(f"  {note}")
    _print(report, as_json, wrote="writer" in named)


def print_records(report: Any, as_json: bool, _: Any) -> None:
    """Print what became of the table of an ECG set."""
    from medclip.wording import count

    if not as_json:
        print(f"{report.dataset}: {count(report.num_rows, 'record')}.")
        if report.num_reports:
            by_language = ", ".join(f"{name} {number}" for name, number in report.languages.items())
            print(f"  {count(report.num_reports, 'report')} of the set stay, cleaned ({by_language}).")
        for reason, number in report.left_out.items():
            print(f"  {number:>7} left out: {reason}")
        for note in report.notes:
            print(f"  {note}")
    _print(report, as_json, wrote=False)


def _print(report: Any, as_json: bool, *, wrote: bool) -> None:
    from medclip.errors import printable
    from medclip.wording import count

    if as_json:
        from dataclasses import asdict

        print(json.dumps(asdict(report) | {"out": str(report.out)}, indent=2))
        return
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
    if wrote:
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


from_labels = derive(verbs.captions_from_labels, print_labelled, exit_codes="0 done")
from_mammography = derive(verbs.captions_from_mammography, print_set, exit_codes="0 done")
from_ecg = derive(verbs.captions_from_ecg, print_records, exit_codes="0 done")
rank = derive(verbs.rank_captions, print_ranking, exit_codes="0 done")
