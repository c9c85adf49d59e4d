"""`medclip monitor RESULTS... --before RESULTS --out DIR`: what changed over weeks, without labels."""

from __future__ import annotations

from typing import Any

from medclip.api.monitor import monitor as verb
from medclip.cli.derive import derive


def print_monitor(watched: Any, as_json: bool, _: Any) -> int:
    """Print what changed."""
    from medclip.cli.table import print_paragraph
    from medclip.errors import printable
    from medclip.monitoring.run import FINDINGS_SHOWN, REPORT
    from medclip.wording import count, number

    if as_json:
        print(watched.to_json(), end="")
        return watched.exit_code
    if watched.reference:
        num_compared = sum(row.is_compared for row in watched.periods)
        print(printable(f"{count(num_compared, watched.by)} compared with {watched.reference}."))
    for finding in watched.findings[:FINDINGS_SHOWN]:
        print_paragraph(f"{finding.size + ':':7} ", finding.text)
    if len(watched.findings) > FINDINGS_SHOWN:
        print(f"{number(len(watched.findings) - FINDINGS_SHOWN)} more stand in the page.")
    for note in watched.notes:
        print_paragraph("note:   ", note)
    print(f"Page: {printable(str(watched.folder / REPORT))}")
    return watched.exit_code


monitor = derive(
    verb,
    print_monitor,
    exit_codes="0 no alarm stands at the end, 3 one does or a decision differs",
    refused="nothing to compare, wrong use or refused",
)
