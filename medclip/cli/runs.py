"""`medclip status`, `retry`, `runs merge` and `runs purge`: what they print of runs that are there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from medclip.api import runs as verbs
from medclip.cli.derive import derive
from medclip.cli.embed import print_embeddings
from medclip.cli.run_reasons import interrupted
from medclip.cli.score import print_run
from medclip.cli.slides import print_stage


def _print_status(read: Any, as_json: bool, _: Any) -> int:
    from medclip.errors import printable
    from medclip.wording import count

    if as_json:
        print(json.dumps(read.to_dict()))
        return read.exit_code
    counts = read.counts
    print(f"{printable(str(read.folder))}: {read.state}")
    if "ledger" in read.purged:
        print("medclip runs purge removed what the ledger knew of its files; files.parquet has their rows.")
        return read.exit_code
    print(f"{counts['files']} of {read.num_listed} files that are listed have their row; {counts['studies']} studies")
    print(read.ended)
    if read.pace is not None:
        print(read.pace)
    if read.num_tried_again:
        print(f"{count(read.num_tried_again, 'file was', 'files were')} read more than once")
    if read.num_halved:
        print(f"{count(read.num_halved, 'batch', 'batches')} did not fit into memory; halves were computed")
    for ended, reason, number in read.reasons:
        print(f"  {number:>7} {ended}: {reason.replace('_', ' ')}")
    return read.exit_code


def _print_again(run: Any, as_json: bool, _: Any) -> int:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.runs.outputs.score_run import ScoreRun

    if isinstance(run, ScoreRun):
        return print_run(run, as_json)
    if isinstance(run, Embeddings):
        return print_embeddings(run, as_json)
    print_stage(run, as_json, None)
    return run.exit_code


def _print_merged(run: Any, as_json: bool, given: Mapping[str, Any]) -> int:
    from medclip.errors import printable
    from medclip.wording import count

    if as_json:
        print(json.dumps({"out": str(run.folder), "exit_code": run.exit_code, **run.counts}))
        return run.exit_code
    files = count(run.counts["files"], "file")
    print(f"{count(len(given['shards']), 'shard')} merged: {files} in {count(run.counts['studies'], 'study')}.")
    print(f"Results: {printable(str(run.folder))}")
    return run.exit_code


def _print_purged(purged: Any, as_json: bool, _: Any) -> int:
    from medclip.errors import printable
    from medclip.wording import count

    if as_json:
        print(json.dumps(purged.to_dict()))
        return purged.exit_code
    for one in purged.runs:
        sizes = ", ".join(f"{kind} {size / 1e6:.1f} MB" for kind, size in one.size_bytes.items())
        kept = f"; kept: {one.kept}" if one.kept else ""
        print(f"{printable(str(one.folder))}: {one.age_days:.0f} days old; {sizes}{kept}")
    affected = count(sum(not one.kept for one in purged.runs), "run")
    if purged.is_done:
        print(f"Removed from {affected}: {purged.size_bytes / 1e6:.1f} MB.")
    else:
        print(
            f"{affected}, {purged.size_bytes / 1e6:.1f} MB. Nothing was removed; --yes with what is named removes it."
        )
    return purged.exit_code


status = derive(
    verbs.status,
    _print_status,
    exit_codes="0 finished, 3 finished and some files failed, 4 stopped (the same command goes on), 5 running",
)
retry = derive(
    verbs.retry, _print_again, exit_codes="0 all scored or skipped, 3 some failed again", interrupted=interrupted
)
merge = derive(verbs.merge, _print_merged, exit_codes="0 all scored or skipped, 3 some failed", interrupted=interrupted)
purge = derive(
    verbs.purge,
    _print_purged,
    exit_codes="0 all removed or listed, 3 some runs are kept (they go on, are not finished, or are shards)",
)
