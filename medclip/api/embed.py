"""The verb `embed`: a folder of studies goes in, vectors come out that many questions can be put to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from medclip.api.groups.asking import WithModel
from medclip.api.groups.reading import AnyModality, Believed, FileTable, Identity, Limits, Policies, Studies
from medclip.api.groups.running import (
    Additions,
    Batches,
    Device,
    Encoder,
    Engines,
    HashedPaths,
    Limited,
    Logged,
    Machine,
    Recipe,
    Told,
    WorkFolder,
)
from medclip.api.over_files import RUN_RULES, Exclusion, Kept, Remote, Source, prepare, watched
from medclip.options import option, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings


@options
class EmbedOptions(
    Told,
    Limits,
    Recipe,
    Source,
    WithModel,
    FileTable,
    Studies,
    AnyModality,
    Believed,
    Policies,
    Exclusion,
    Remote,
    Identity,
    Machine,
    Device,
    Batches,
    Encoder,
    Engines,
    WorkFolder,
    Logged,
    Limited,
    Additions,
    HashedPaths,
    Kept,
):
    """What `embed` is asked."""

    dtype: str = option("How vectors are stored: float32, or float16 in half the room.", default="float32", form="TYPE")

    rules = RUN_RULES


@verb(EmbedOptions)
def embed(options: EmbedOptions) -> Embeddings:
    """Compute the vectors of a file or folder of studies: of each view, unit and study, kept for many questions.

    The folder that it writes stands in the place of the files for score, search, adapt, evaluate and audit: a new
    question reads no image. It is personal data, as the images are: it names files, and people may be known again by
    vectors.

    Returns:
        The embeddings: `.vectors("views" | "units" | "studies")`, `.units` and others as Arrow tables, `.counts`.
        `medclip.score` and others take them in the place of a folder of files.

    Raises:
        MedclipError: For a call that cannot be carried out. A file that cannot be read raises nothing: it has its row.

    Example:
        >>> import medclip
        >>> embeddings = medclip.embed("examples")  # doctest: +SKIP
        >>> medclip.score(embeddings, prompt="a pacemaker").scores.num_rows  # doctest: +SKIP
        3
    """
    return run_embed(options)


def run_embed(options: EmbedOptions, retry: str | None = None) -> Embeddings:
    """Embed files; those that failed for a reason are tried again where `retry` names it, "" for all."""
    from medclip.scoring.scoring_run import preview_embedding, run_embedding

    with watched(options, "embed"):
        prepared = prepare(options, "what is embedded", retry=retry, or_unknown=True)
        if options.dry_run:
            return preview_embedding(prepared.call, dtype=options.dtype)
        embeddings = run_embedding(prepared.call, dtype=options.dtype)
        return replace(embeddings, _keep=prepared.keep, published=prepared.published)
