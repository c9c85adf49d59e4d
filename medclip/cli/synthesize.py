"""`medclip pairs synthesize SHARDS --out DIR`: synthetic samples for the tail."""

from __future__ import annotations

import json
from typing import Any

from medclip.api.synthesize import synthesize as verb
from medclip.cli.derive import derive


def print_synthesis(result: Any, as_json: bool, _: Any) -> None:
    """Print what was made; a caution leads."""
    from medclip.cli.table import print_paragraph
    from medclip.errors import printable
    from medclip.wording import by_reason, count

    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    for caution in result.cautions:
        print_paragraph("Caution: ", caution)
    print(f"{count(result.num_synthetic, 'sample')} made of {count(result.num_tail, 'pair')} of the tail.")
    for title, counts in (("Made", result.counts_by_kind), ("Nothing made", result.counts_by_reason)):
        if counts:
            print(f"{title}: {by_reason(counts)}")
    print(f"Real pairs left out: {result.num_left_out} of {result.num_pairs}.")
    print(f"Gini of objects: {result.gini_before:.3f} before, {result.gini_after:.3f} after.")
    print(printable(str(result.shards)))


synthesize = derive(verb, print_synthesis, exit_codes="0 done")
