"""`medclip pretrain` trains a model from a recipe, `medclip finetune` an image tower on a table of labels.

`torchrun` starts them as several ranks: one of them prints, and all leave at once. What one rank meets all raise.
"""

from __future__ import annotations

import functools
import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

from medclip.api.finetune import finetune as finetune_verb
from medclip.api.pretrain import pretrain as pretrain_verb
from medclip.cli.derive import derive
from medclip.cli.progress import is_first_rank

_STOPPED = "130 stopped by Ctrl-C or SIGTERM after a checkpoint"


def by_ranks(command: Callable[..., int]) -> Callable[..., int]:
    """Return a command that the first rank alone speaks for."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> int:
        from medclip.errors import MedclipError
        from medclip.exit_codes import exit_code

        if is_first_rank():
            return leave(command(*args, **kwargs))
        try:
            with redirect_stdout(io.StringIO()):
                code = command(*args, **kwargs)
        except MedclipError as error:
            return exit_code(error.reason)
        return leave(code)

    return run


def leave(code: int) -> int:
    """End a rank with an exit code; return it where this process is the only one."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # torch 2.13 sometimes aborts a rank that ends in the usual way ("terminate called without an active
        # exception"), once in some thirty runs of two ranks; torchrun would then report a failure.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def print_finetuned(result: Any, as_json: bool, _: Any) -> int:
    """Print the figures of a fine-tuned pack."""
    from medclip.errors import printable
    from medclip.exit_codes import ExitCode
    from medclip.reports.adaptation_text import finetune_json, finetune_text

    if as_json:
        print(json.dumps(finetune_json(result), ensure_ascii=False))
    else:
        print("\n".join(map(printable, finetune_text(result).split("\n"))))
    if result.pack is None:
        return ExitCode.INTERRUPTED
    return ExitCode.SOME_FAILED if result.problems else ExitCode.COMPLETE


def print_pretrained(result: Any, as_json: bool, _: Any) -> int:
    """Print how a training ended."""
    from medclip.errors import printable
    from medclip.exit_codes import ExitCode
    from medclip.wording import count

    if as_json:
        values = {
            "out": str(result.out),
            "steps": result.steps,
            "total_steps": result.total_steps,
            "pack": str(result.pack) if result.pack else None,
            "validation": dict(result.validation),
            "test": [dict(row) for row in result.test],
            "report": str(result.report) if result.report else None,
        }
        print(json.dumps(values))
    elif result.pack is not None:
        print(f"{count(result.steps, 'step')} done. The model pack is in {printable(str(result.pack))}.")
        print(f"Look at it with: medclip models show {printable(str(result.pack))}")
        print(f"The report of the run is {printable(str(result.report))}.")
    else:
        print(
            f"Stopped after {result.steps} of {result.total_steps} steps; "
            f"a checkpoint is in {printable(str(result.out))}. "
            "Run the same command again to go on."
        )
    return ExitCode.COMPLETE if result.pack is not None else ExitCode.INTERRUPTED


finetune = by_ranks(
    derive(
        finetune_verb,
        print_finetuned,
        exit_codes=f"0 trained, 3 trained, but some files could not be read (they are counted by reason), {_STOPPED}",
    )
)
pretrain = by_ranks(derive(pretrain_verb, print_pretrained, exit_codes=f"0 trained, {_STOPPED}"))
