"""`medclip explain FILE --prompt TEXT --out DIR`: what in an image moves a score."""

from __future__ import annotations

import json
from typing import Any

from medclip.api.explain import explain as verb
from medclip.cli.derive import derive


def print_explained(explained: Any, as_json: bool, _: Any) -> int:
    """Print what moves scores, and whether to believe it."""
    from medclip.errors import printable
    from medclip.reports.explain import sentences
    from medclip.result import named_counts

    if as_json:
        print(json.dumps({"out": str(explained.out), "exit_code": explained.exit_code, **explained.facts()}))
        return explained.exit_code
    for unit in explained:
        for line in sentences(unit):
            print(f"{printable(unit.file)}: {printable(line)}")
    if len(explained) > 1:
        print(f"{named_counts(explained.counts)}.")
    print(f"Page: {printable(str(explained.out / 'explain.html'))}")
    return explained.exit_code


explain = derive(verb, print_explained, exit_codes="0 every file has a map, 3 some failed or have an empty map")
