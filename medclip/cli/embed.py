"""`medclip embed PATH --out DIR`: compute vectors of a file or folder of studies, once for many questions."""

from __future__ import annotations

import json
from typing import Any

from medclip.api.embed import embed as verb
from medclip.cli.derive import derive
from medclip.cli.run_reasons import EMBED_REMEDIES, interrupted, print_planned, print_reasons


def print_embeddings(embeddings: Any, as_json: bool, _: Any = None) -> int:
    """Print how a run ended and where its vectors are; return the exit code."""
    _print(embeddings, as_json)
    return embeddings.exit_code


def _print(embeddings: Any, as_json: bool) -> None:
    counts = embeddings.counts
    if as_json:
        sizes = {"views": embeddings.num_views, "units": embeddings.num_units, "dim": embeddings.dim}
        planned = {} if embeddings.planned is None else {"planned": embeddings.planned}
        published = {} if embeddings.published is None else {"published": embeddings.published}
        out = {"out": str(embeddings.folder), "exit_code": embeddings.exit_code, **counts, **sizes, **planned}
        out |= published
        print(json.dumps(out))
        return
    if embeddings.planned is not None:
        print_planned(embeddings, EMBED_REMEDIES)
        return
    if embeddings.already_finished:
        print("This run was finished before; nothing was computed again.")
    from medclip.errors import printable
    from medclip.wording import count, number

    parts = [
        f"{count(counts['files'], 'file')}: {number(counts['embedded'])} embedded in "
        f"{count(counts['studies'], 'study')}"
    ]
    parts += [f"{number(counts[status])} {status}" for status in ("skipped", "failed") if counts[status]]
    print(f"{', '.join(parts)}.")
    if embeddings.shard is not None:
        print(f"Shard {embeddings.shard}. When all are finished: medclip runs merge DIR... --out DIR")
        return
    print_reasons(embeddings.files, EMBED_REMEDIES)
    print(
        f"Vectors: {number(embeddings.num_views)} of {embeddings.dim} numbers, in {printable(str(embeddings.folder))}"
    )
    if embeddings.published is not None:
        print(f"Published: {printable(embeddings.published)}")


embed = derive(verb, print_embeddings, exit_codes="0 all embedded or skipped, 3 some failed", interrupted=interrupted)
