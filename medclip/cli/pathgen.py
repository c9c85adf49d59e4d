"""`medclip pathgen FOLDER --out DIR`: patches of slides with captions, as shards to train on."""

from __future__ import annotations

import json
from typing import Any

from medclip.api.pathgen import pathgen as verb
from medclip.cli.derive import derive


def print_pathgen(result: Any, as_json: bool, _: Any) -> int:
    """Print how many patches were chosen and captioned, and why others were not."""
    from medclip.errors import printable
    from medclip.wording import count, number

    if as_json:
        print(json.dumps(result.to_dict()))
        return result.exit_code
    statuses = ", ".join(f"{number(n)} {status}" for status, n in result.counts.items() if n)
    print(f"{count(len(result.slides), 'slide')}: {statuses}.")
    for row in result.slides:
        if row.message:
            print(f"  {printable(row.file)}: {row.message}")
    chosen = sum(row.num_chosen for row in result.slides)
    print(f"{count(len(result.records), 'record')} of {count(chosen, 'chosen patch', 'chosen patches')}.")
    for reason, rejected in sorted(result.rejected_by_reason.items(), key=lambda kv: -kv[1]):
        print(f"  {rejected:>7} rejected: {reason.replace('_', ' ')}")
    usage = result.usage
    if usage.prompt_tokens:
        print(f"Agent: {number(usage.calls)} calls, {number(usage.prompt_tokens + usage.completion_tokens)} tokens.")
    if result.records:
        print(f"Shards: {printable(str(result.shards))}")
    return result.exit_code


def _interrupted(_: Any) -> int:
    from medclip.cli.progress import print_line
    from medclip.exit_codes import ExitCode

    print_line("medclip: interrupted. What is noted in the journal is kept; the same command goes on.")
    return ExitCode.INTERRUPTED


pathgen = derive(verb, print_pathgen, exit_codes="0 done, 3 some slides failed", interrupted=_interrupted)
