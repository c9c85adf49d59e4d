"""`medclip pairs from-articles FOLDER --out SHARDS`: figures of open-access articles with their captions, as shards."""

from __future__ import annotations

import json
from typing import Any

from medclip.api.from_articles import from_articles as verb
from medclip.cli.derive import derive


def print_articles(report: Any, as_json: bool, _: Any) -> None:
    """Print how many figures became samples, under which licences, and why others did not."""
    from medclip.errors import printable
    from medclip.wording import by_reason, count, number

    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
        return
    articles = f"{number(report.num_articles)} of {count(report.num_packages, 'package')}"
    print(f"{printable(str(report.folder))}: {count(report.num_samples, 'figure')} from {articles}.")
    print(f"  cited in the text: {number(report.num_with_context)}")
    for what, counts in (
        ("samples by split", report.counts_by_split),
        ("samples by class of licence", report.counts_by_license_class),
        ("articles by licence", report.articles_by_license),
    ):
        print(f"  {what}: {', '.join(f'{printable(name)} {number(n)}' for name, n in counts.items())}")
    if report.num_without_license:
        print(f"  {count(report.num_without_license, 'article')} without a licence, counted as other.")
    if report.counts_by_reason:
        print(f"  rejected: {by_reason(report.counts_by_reason)}")
    if report.num_of_other_licenses:
        print(f"  of them {count(report.num_of_other_licenses, 'figure')} of a licence that is not kept.")


def _interrupted(_: Any) -> int:
    from medclip.cli.progress import print_line
    from medclip.exit_codes import ExitCode

    print_line("medclip: interrupted. What was read is kept beside the output folder; the same command goes on.")
    return ExitCode.INTERRUPTED


from_articles = derive(
    verb,
    print_articles,
    exit_codes="0 done (figures and packages that gave no sample are counted by reason)",
    interrupted=_interrupted,
)
