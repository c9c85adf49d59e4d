"""`medclip scan PATH`: list what a folder holds, how it would be read, and the problems."""

from __future__ import annotations

import json
from typing import Any

from medclip.api.scan import scan as verb
from medclip.cli.derive import derive


def print_scan(result: Any, as_json: bool, _: Any) -> int:
    """Print what a folder holds."""
    from medclip.exit_codes import ExitCode
    from medclip.reports.scan_text import scan_json, scan_text

    print(json.dumps(scan_json(result)) if as_json else scan_text(result))
    return ExitCode.SOME_FAILED if result.counts("status").get("failed") else ExitCode.COMPLETE


scan = derive(verb, print_scan, exit_codes="0 all could be scored or are skipped, 3 some failed", is_lookup=True)
