"""Which calls can be cut into shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.runs.planning.run_shard import RunShard, parse_shard


def shard_of(shard: str, asked: Mapping[str, Any] | None, out: str | Path | None, *, add: bool) -> RunShard:
    """Return the shard that a caller names.

    Args:
        shard: "i/n".
        asked: From `medclip.api.asked.what_was_asked`: the merge asks the same.
        out: The output folder.
        add: Whether files are taken in that came later.

    Raises:
        MedclipError: WRONG_USE for what is no shard, and for a call that cannot be cut into some.
    """
    if out is None:
        raise MedclipError(Reason.WRONG_USE, "a shard has a folder of its own.", hint="Name it with out.")
    if add:
        raise MedclipError(
            Reason.WRONG_USE,
            "files that came later would be cut into other shards.",
            hint="Merge the shards first, and add to the merged folder.",
        )
    if asked is None:
        raise MedclipError(
            Reason.WRONG_USE,
            "a shard writes down what is asked of the whole run, and this call holds values or queries that it cannot.",
            hint="Name a folder, and files in the place of tables and lists in memory.",
        )
    return parse_shard(shard)
