"""`medclip pairs look SHARDS|TABLE --out DIR`: one page about a pile of pairs."""

from __future__ import annotations

import json
from typing import Any

from medclip.api.look import look as verb
from medclip.cli.derive import derive


def print_look(result: Any, as_json: bool, _: Any) -> None:
    """Print what stands out, the worst first."""
    from medclip.cli.table import print_paragraph
    from medclip.errors import printable
    from medclip.wording import count

    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    for one in result.findings:
        if one.severity != "good":
            print_paragraph("Caution: " if one.severity == "bad" else "Note: ", printable(one.text))
    patients = f" of {count(result.num_patients, 'patient')}" if result.num_patients else ""
    print(f"{count(result.num_pairs, 'pair')}{patients}: {printable(str(result.out / 'look.html'))}")


look = derive(verb, print_look, exit_codes="0 done")
