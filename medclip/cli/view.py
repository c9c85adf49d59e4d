"""`medclip view FILE --out x.png`: what a model would see of a file, beside what is stored."""

from __future__ import annotations

import json
from typing import Any

from medclip.api.view import view as verb
from medclip.cli.derive import derive


def print_view(drawn: Any, as_json: bool, _: Any) -> None:
    """Print what was drawn, and what was done to it."""
    from medclip.errors import printable
    from medclip.sample import spoken
    from medclip.wording import count

    if as_json:
        fields = {**vars(drawn), "out": str(drawn.out), "headers": dict(drawn.headers)}
        print(json.dumps(fields, default=str))
        return
    if drawn.num_found > 1:
        print(f"{drawn.number} of {drawn.num_found}: --number N for another")
    what = f"{spoken(drawn.modality)} {drawn.kind}" if drawn.modality else f"{drawn.kind}, modality not stated"
    print(f"{what}: {count(drawn.num_files, 'file')}, {count(drawn.num_views, 'view')}, adapter {drawn.adapter}")
    for name, detail in drawn.steps:
        print(f"  {name}{': ' if detail else ''}{detail}")
    if drawn.warning:
        print(f"Warning: {drawn.warning}.")
    print(f"Written: {printable(str(drawn.out))}")


view = derive(verb, print_view, exit_codes="0 drawn")
