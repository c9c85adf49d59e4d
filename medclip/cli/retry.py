"""`medclip retry DIR --reason REASON`: try files of a run once more that failed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medclip.cli import options
from medclip.cli.run_reasons import interrupted


def retry(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of a run.", show_default=False)],
    reason: Annotated[
        str, typer.Option("--reason", metavar="REASON", help="Why they failed, such as read_error; or 'all'.")
    ] = "all",
    workers: options.Workers = None,
    memory: options.Memory = None,
    as_json: options.Json = False,
) -> int:
    """Try files of a run once more that failed. The run is asked what it was asked at first.

    Exit code: 0 all scored or skipped, 3 some failed again, 2 wrong use or refused.
    """
    from medclip.api.retry import retry as run_retry
    from medclip.cli.progress import progress
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.runs.outputs.score_run import ScoreRun

    try:
        with progress(quiet=as_json) as shown:
            run = run_retry(out, reason=reason, workers=workers, memory=memory, progress=shown)
    except KeyboardInterrupt:
        return interrupted(out)
    if isinstance(run, ScoreRun):
        from medclip.cli.score import print_run

        print_run(run, as_json)
    elif isinstance(run, Embeddings):
        from medclip.cli.embed import print_embeddings

        print_embeddings(run, as_json)
    else:
        from medclip.cli.slides import print_stage

        print_stage(run, as_json, None)
    return run.exit_code
