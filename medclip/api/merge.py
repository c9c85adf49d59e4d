"""`medclip.runs.merge`: the shards of a run become the run that one machine would have made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medclip.api.asked import arguments_again
from medclip.api.embed import embed
from medclip.api.run_arguments import path_of
from medclip.api.score import score
from medclip.embeddings.open_embeddings import Embeddings
from medclip.errors import MedclipError, Reason
from medclip.files.discover import LEDGER
from medclip.files.output import claim_folder, disk_errors, make_folder
from medclip.progress import Progress
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.fetched_results import fetched_results
from medclip.runs.outputs.score_run import ScoreRun
from medclip.runs.planning.run_shard import asked_of_shards, merge_shards
from medclip.settings import Settings


def merge(
    shards: Sequence[str | Path],
    out: str | Path,
    *,
    workers: int | None = None,
    memory: int | str | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> ScoreRun | Embeddings:
    """Merge the shards of a run: what lies in one folder then is, to the byte, what one machine would have made.

    Studies with files in several shards are read and computed here, from all of their files; the folder that was
    scored must be where it was. The same call goes on where it was stopped.

    Args:
        shards: Output folders of all shards, or URLs of a store that these were copied to, in any order; they stay as
            they are.
        out: Output folder of the whole run.
        workers: Reading processes; the settings' where None.
        memory: What all processes may take together; where None the settings'.
        settings: Limits; those of the shards where None.
        progress: Told how far it is.

    Returns:
        The run, as `medclip.score` returns it, or the embeddings of `medclip.embed`.

    Raises:
        MedclipError: For shards that are missing, not finished, or of different runs, each named; as the verb; of a
            store as `medclip.runs.outputs.fetched_results.FetchedResults.shard`.

    Example:
        >>> import medclip
        >>> run = medclip.runs.merge(["night/1", "night/2"], "night/all")  # doctest: +SKIP
    """
    if not shards:
        raise MedclipError(Reason.WRONG_USE, "no shard is named.", hint="Name the folders of all shards.")
    folder = path_of(out, "the output folder")
    with fetched_results() as fetched:
        folders = [path_of(fetched.shard(shard), "a shard's folder") for shard in shards]
        asked, embeds = asked_of_shards(folders)
        claim_folder(
            folder, "run of medclip", marks=(LEDGER,), inputs={f"shard {n}": each for n, each in enumerate(folders, 1)}
        )
        with disk_errors(folder):
            make_folder(folder)
        with Ledger(folder) as ledger:
            merge_shards(ledger, folder, folders)
    own = {} if settings is None else {"settings": settings}
    arguments = {**arguments_again(asked), **own, "workers": workers, "memory": memory, "progress": progress}
    verb = embed if embeds else score
    return verb(out=folder, **arguments)
