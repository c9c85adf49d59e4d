"""`medclip adapt` makes an adapted pack of a few labelled studies; `medclip adapt compare` tells which way helps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medclip.api.adapt import adapt as adapt_verb
from medclip.api.compare import compare as compare_verb
from medclip.cli.derive import derive


def print_adapted(run: Any, as_json: bool, _: Any) -> int:
    """Print the figures of an adapted pack."""
    from medclip.errors import printable
    from medclip.exit_codes import ExitCode
    from medclip.reports.adaptation_text import adapt_json, adapt_text, map_json, map_text

    is_map = hasattr(run, "tested")
    if as_json:
        print(json.dumps((map_json if is_map else adapt_json)(run), indent=1, ensure_ascii=False))
    else:
        print("\n".join(map(printable, (map_text if is_map else adapt_text)(run).split("\n"))))
    return ExitCode.SOME_FAILED if run.problems else ExitCode.COMPLETE


def print_compared(compared: Any, as_json: bool, _: Any) -> int:
    """Print the figures of each way of adapting."""
    from medclip.errors import printable
    from medclip.exit_codes import ExitCode

    if as_json:
        print(compared.to_json(), end="")
    else:
        for line in compared.lines():
            print(printable(line))
        print(f"Page: {printable(str(Path(compared.folder) / 'report.html'))}")
    return ExitCode.SOME_FAILED if compared.failures else ExitCode.COMPLETE


adapt = derive(
    adapt_verb, print_adapted, exit_codes="0 all files were read, 3 some were not (they are counted by reason)"
)
compare = derive(
    compare_verb,
    print_compared,
    exit_codes="0 every run gave predictions, 3 some method failed (the page names it and why)",
)
