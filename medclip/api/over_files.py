"""Options that `score`, `embed` and `watch` share, and what becomes of them: the call of a run over files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from medclip.api.groups.running import settings_of
from medclip.options import Rule, argument, excludes, needs, option, options
from medclip.verbs import recipe_of

if TYPE_CHECKING:
    from medclip.files.temporary_folder import TemporaryFolder
    from medclip.runs.call import Call


@options
class Source:
    """What a run is over, and where its results go."""

    path: Any = argument(
        "File or folder, also of an object store (s3://BUCKET/FOLDER), or a PACS: dicomweb://HOST:PORT/PATH "
        "(dicomwebs:// for https), whose studies are fetched, computed and removed. In Python also a list of paths "
        'and arrays (H x W or H x W x 3; they are named "image 0" and so on), an array, or a data frame as `table` '
        "takes it.",
        kind=Path,
        place=True,
        present="file or folder",
    )
    out: str | Path | None = argument(
        "Folder to write; one that holds something else is refused. The same call on the same folder goes on where it "
        "was stopped. Or a folder of an object store, s3://BUCKET/FOLDER: results are copied there as they come, "
        "run.json as the last. In Python None works in a temporary folder that lives as long as the result.",
        default=None,
        named=True,
        of_call=True,
        place=True,
    )

    @property
    def is_pacs(self) -> bool:
        """Whether studies of a PACS are meant."""
        from medclip.files.dicomweb.server import is_dicomweb

        return is_dicomweb(self.path)

    @property
    def is_store(self) -> bool:
        """Whether files of an object store are meant."""
        from medclip.files.store_files import is_store

        return is_store(self.path)

    @property
    def is_on_disk(self) -> bool:
        """Whether files of this machine, or images in memory, are meant."""
        return not (self.is_pacs or self.is_store)

    @property
    def place(self) -> Any:
        """The place in a store, for refusals."""
        from medclip.files.stores import place_of

        return place_of(self.path)

    @property
    def is_published(self) -> bool:
        """Whether results go to an object store."""
        from medclip.files.store_files import is_store

        return is_store(self.out)


@options
class Remote:
    """What is fetched of files that lie elsewhere."""

    heading = "How files are read"

    query: str | Sequence[str] | Mapping[str, str] = option(
        "Which studies of a PACS, by DICOM keywords: ModalitiesInStudy=CR,StudyDate=20240101-20240131. In Python also "
        "a mapping of keywords to values.",
        default="",
        form="KEY=VALUE,...",
        kind=str,
        place=True,  # it may name a patient: no ledger keeps it
    )


@options
class Kept:
    """What tables and pages keep of images."""

    heading = "Output"

    weeks: bool = option(
        'Write the week of each DICOM examination ("2024-W05") and keyed hashes of device, site and protocol into the '
        "column `headers` of files.parquet, for `medclip monitor`. Without it tables hold no date of any kind.",
        default=False,
    )
    thumbnails: bool = option("Keep small images for the report.", default=True)


@options
class Exclusion:
    """What is left out."""

    heading = "How files are read"

    exclude: Sequence[str | Path] = option(
        "File or folder below PATH to leave out, as if it were not there; rows that it has from an earlier call stay.",
        default=(),
        form="PATH",
        kind=Path,
        place=True,
    )


FETCHED_RULES: tuple[Rule, ...] = (
    excludes("table", "is_pacs", "files of a PACS have no names that a table could have.", hint="Leave --table out."),
    excludes(
        "hash_paths", "is_pacs", "names of a PACS's files are keyed hashes already.", hint="Leave --hash-paths out."
    ),
    excludes(
        "shard",
        "is_pacs",
        "each shard would fetch what all of them need; give each job a query of its own.",
        hint="Leave --shard out.",
    ),
    excludes("query", "is_store", "a query selects studies of a PACS.", hint="Leave --query out.", where="place"),
    excludes(
        "engine",
        "is_store",
        "files of a store are fetched to this machine; --shard cuts them for several.",
        hint="Leave --engine out.",
        where="place",
    ),
    needs(
        "query",
        "is_pacs",
        "a query selects studies of a PACS, and no PACS is named.",
        hint="Name it as dicomweb://HOST:PORT/PATH.",
    ),
)
RUN_RULES: tuple[Rule, ...] = (
    *FETCHED_RULES,
    needs("shard", "out", "a shard has a folder of its own.", hint="Name it with out."),
    excludes(
        "shard",
        "add",
        "files that came later would be cut into other shards.",
        hint="Merge the shards first, and add to the merged folder.",
    ),
    needs(
        "work",
        "is_published",
        "a work folder is named, and the output goes to a folder of a disk.",
        hint="Leave --work out, or name a store with --out, such as s3://BUCKET/FOLDER.",
    ),
)
"""What cannot be asked of a run together."""


@dataclass(frozen=True)
class PreparedCall:
    """The call of a run, and what stands around it."""

    call: Call
    keep: TemporaryFolder | None
    """The output folder, where nobody named one."""
    published: str | None
    """URL of the folder of a store that results are copied to."""
    inputs: Any
    """What was given: `medclip.api.run_arguments.Inputs`."""


def watched(given: Any, verb: str) -> AbstractContextManager[Any]:
    """Return what stands around a call: it writes the log and the metrics that its options name."""
    from medclip.api.run_arguments import path_of
    from medclip.files.given_images import is_several
    from medclip.progress import Silent
    from medclip.runs.operations.watch import watch_run

    named = (given.log or ()) if is_several(given.log) else (given.log,)
    files = [path_of(file, "the file of the log") for file in named]
    return watch_run(verb, files, (given.progress or Silent()).note)


def prepare(
    given: Any,
    what: str,
    question: Mapping[str, Any] = MappingProxyType({}),
    *,
    in_memory: bool = False,
    retry: str | None = None,
    or_unknown: bool = False,
) -> PreparedCall:
    """Make the call of a run from the options of a verb.

    Args:
        given: Options with `Source` and the groups beside it.
        what: Name of the files in sentences: "what is scored".
        question: Fields of `ScoreOptions` that decide the rows of the run besides.
        in_memory: Nothing is written: the folder of the call is the one that is read.
        retry: Reason of the files that are tried again, "" for all; None tries none.
        or_unknown: Whether images whose modality nobody knows are taken.

    Raises:
        MedclipError: For a call that cannot be carried out.
    """
    from medclip.api.asked import not_kept, what_was_asked
    from medclip.api.remote_arguments import place_to_publish, remote_files
    from medclip.api.run_arguments import Inputs, inputs_of, local_of, path_of, table_of
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.files.temporary_folder import TemporaryFolder
    from medclip.models.backends.choice import choose_backend
    from medclip.progress import Silent
    from medclip.runs.call import Call
    from medclip.runs.engines.ray_cluster import choose_engine
    from medclip.runs.outputs.publication import Publication
    from medclip.runs.planning.options import ScoreOptions, parse_modality

    settings, path = settings_of(given), local_of(given.path)
    asked = what_was_asked(given)
    if not given.is_on_disk:
        inputs = Inputs(Path(), (), table_of(given.table))
    else:
        source = path.folder if isinstance(path, Embeddings) else path
        inputs = inputs_of(source, given.table, what, follow_links=settings.follow_links)
    choices = ScoreOptions(
        table=inputs.table,
        modality=parse_modality(given.modality, or_unknown=or_unknown),
        min_confidence=given.min_confidence,
        group_by=given.group_by,
        hash_paths=given.hash_paths,
        weeks=given.weeks,
        thumbnails=given.thumbnails,
        **question,
    )
    publish_at = place_to_publish(given.out, given.work, path, given.shard)
    keep = TemporaryFolder("run") if given.out is None and not in_memory else None
    named = given.out if publish_at is None else given.work
    folder = inputs.root if in_memory else keep.path if keep is not None else path_of(named, "the output folder")
    progress = given.progress or Silent()
    remote = remote_files(path, given.query, settings.spool_bytes, folder, progress)
    call = Call(
        inputs.root if remote is None else remote.folder,
        folder,
        given=inputs.given if remote is None else None,
        model=given.model,
        options=choices,
        key_file=None if given.key_file is None else path_of(given.key_file, "the key file"),
        settings=settings,
        progress=progress,
        publication=None if publish_at is None else Publication(publish_at, folder, progress),
        add=given.add,
        exclude=tuple(path_of(place, "what is left out") for place in getattr(given, "exclude", ())),
        retry_failed=retry,
        device=given.device,
        batch_size=given.batch_size,
        backend=choose_backend(given.backend, given.model, settings.home, given.device),
        limit=given.limit,
        engine=choose_engine(given.engine, given.workers),
        remote=remote,
        asked=asked,
        recipe=recipe_of(given),
        shard=_shard(given.shard, is_kept=not not_kept(given, asked)),
    )
    return PreparedCall(call, keep, None if publish_at is None else publish_at.url, inputs)


def _shard(shard: str | None, *, is_kept: bool) -> Any:
    """Return the part of a run that is done; the merge asks the same of the whole run."""
    from medclip.errors import MedclipError, Reason
    from medclip.runs.planning.identity import parse_shard

    if shard is not None and not is_kept:
        raise MedclipError(
            Reason.WRONG_USE,
            "a shard writes down what is asked of the whole run, and this call holds values or queries that it cannot.",
            hint="Name a folder, and files in the place of tables and lists in memory.",
        )
    return None if shard is None else parse_shard(shard)
