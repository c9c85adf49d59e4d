"""`medclip pairs reinforce SHARDS --teacher PACK --out DIR`: what teachers say, stored once."""

from __future__ import annotations

import json
from typing import Any

from medclip.api.reinforce import reinforce as verb
from medclip.cli.derive import derive


def print_reinforced(result: Any, as_json: bool, _: Any) -> None:
    """Print what was stored, and how much room it takes."""
    from medclip.errors import printable
    from medclip.wording import by_reason, count

    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    print(f"{count(result.num_samples, 'sample')} reinforced by {', '.join(result.teachers)}.")
    print(
        f"{result.num_augmentations} augmentations, {result.num_captions} captions, {result.num_synthetic} synthetic."
    )
    if result.counts_by_reason:
        print(f"Left out in training: {by_reason(result.counts_by_reason)}.")
    print(f"{result.num_bytes / 1e6:.3g} MB in {printable(str(result.out))}")


reinforce = derive(verb, print_reinforced, exit_codes="0 done")
