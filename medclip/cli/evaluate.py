"""`medclip evaluate`: measure a model zero-shot on labelled sets."""

from __future__ import annotations

from typing import Any

from medclip.api.evaluate import evaluate as verb
from medclip.cli.derive import derive


def print_evaluated(result: Any, as_json: bool, _: Any) -> int:
    """Print the figures of each set."""
    from medclip.errors import printable
    from medclip.exit_codes import ExitCode

    if as_json:
        print(result.to_json(), end="")
    else:
        for line in result.lines():
            print(printable(line))
        if result.folder is not None:
            print(f"Results: {printable(str(result.folder))}")
    return ExitCode.SOME_FAILED if result.num_problems or result.unusable else ExitCode.COMPLETE


evaluate = derive(
    verb,
    print_evaluated,
    exit_codes="0 all images were read, 3 some were not (they are counted by reason) or a set does not fit the suite "
    "(it is named)",
)
