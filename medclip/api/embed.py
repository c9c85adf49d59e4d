"""The public verb `medclip.embed`: a folder of studies goes in, vectors come out that many questions can be put to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.asked import what_was_asked
from medclip.api.remote_arguments import is_elsewhere, place_to_publish, refuse_for_remote, remote_files
from medclip.api.run_arguments import Inputs, inputs_of, local_of, path_of, table_of
from medclip.api.shard_call import shard_of
from medclip.api.watched import watched
from medclip.embeddings.open_embeddings import Embeddings
from medclip.files.disk.temporary_folder import TemporaryFolder
from medclip.files.grouping.studies import GroupBy
from medclip.models.backends.choice import choose_backend
from medclip.progress import Progress, Silent
from medclip.runs.call import Call
from medclip.runs.engines.choose_engine import choose_engine
from medclip.runs.outputs.publication import Publication
from medclip.runs.planning.options import ScoreOptions, failed_for, parse_modality
from medclip.sample import Modality
from medclip.scoring.vectors.embed import preview_embedding, run_embedding
from medclip.settings import DEFAULT_MODEL, Settings

if TYPE_CHECKING:
    from medclip.models.model import Model


@watched
def embed(
    path: Any,
    out: str | Path | None = None,
    *,
    work: str | Path | None = None,
    query: str | Mapping[str, str] = "",
    model: str | Path | Model = DEFAULT_MODEL,
    dtype: str = "float32",
    table: Any = None,
    modality: Modality | str | None = None,
    min_confidence: float = 0.8,
    group_by: GroupBy = "auto",
    workers: int | None = None,
    memory: int | str | None = None,
    add: bool = False,
    retry_failed: str | None = None,
    hash_paths: bool = False,
    weeks: bool = False,
    thumbnails: bool = True,
    spool: int | str | None = None,
    key_file: str | Path | None = None,
    device: str = "cpu",
    batch_size: int | None = None,
    backend: str | Path | None = None,
    dry_run: bool = False,
    limit: int | None = None,
    log: str | Path | None = None,
    metrics: str | Path | None = None,
    engine: str = "local",
    shard: str | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Embeddings:
    """Embed a file or a folder of studies: vectors of each view, unit and study, kept for many questions.

    What comes out is personal data, as the images are: it names files, and people may be known again by vectors.

    Args:
        path: A file or folder, also of an object store (s3://BUCKET/FOLDER); a list of paths and arrays, an array, or a
            data frame, as `medclip.score` takes them. Or a PACS, as "dicomweb://HOST:PORT/PATH" ("dicomwebs://" for
            https), whose studies are fetched, embedded and removed.
        out: Output folder for files.parquet, the tables of vectors, run.json and the ledger. The same call on the same
            folder goes on where it was stopped; nothing that is known is read again. None works in a temporary folder
            that lives as long as the result. Or a folder of an object store, as "s3://BUCKET/FOLDER": tables and
            run.json are copied there once they are written, run.json as the last.
        work: Where `out` is a store, the folder on a disk of this machine that holds the ledger: the same call with the
            same work folder goes on.
        query: Which studies of a PACS, as QIDO matches: "ModalitiesInStudy=CR,StudyDate=20240101-20240131", or a
            mapping of DICOM keywords to values.
        model: Name or folder of a model pack, or a loaded model.
        dtype: How vectors are stored: float32, or float16 in half the room.
        table: CSV, TSV or Parquet file, or a data frame, that names study, patient and modality of files.
        modality: Modality of the files that neither the table nor their header names.
        min_confidence: Least probability at which an inferred modality is believed.
        group_by: How files become studies: by UID, table and folder ("auto"), by "folder", or one "file" each.
        workers: Reading processes; the settings' where None.
        memory: What all processes may take together, such as "12GB"; where None the settings', by default 60 % of what
            the machine or its cgroup has.
        add: Embed files that came since an earlier call on this folder, and those that changed; the rows of all others
            stay as they are. Without it a folder that grew is refused.
        retry_failed: Try the files once more that failed in an earlier call: those of a reason such as "timeout", or
            "all".
        hash_paths: Put keyed hashes in the place of paths in the tables, and in the ledger once the run is finished.
        weeks: Write the ISO week of each DICOM examination ("2024-W05") into the column `headers` of files.parquet, for
            `medclip.monitor`. Without it tables hold no date of any kind.
        thumbnails: Keep small images for reports and for the results of a search.
        spool: What of a PACS or a store may lie on this machine at once, such as "20GB", which it is where None.
        key_file: Identity key, where it is not the one in the settings' home.
        device: Torch device that the model computes on.
        batch_size: Images in one forward pass; 4 where None, 64 on a card. It is part of what the run is, as the device
            is: other ones may change the last bits.
        backend: What computes the images: the name of a back-end, the folder of a calibration by
            `medclip.models.calibrate`, or "auto" for the one in the settings' home; torch in float32 where None. It is
            part of what the run is.
        dry_run: Look at the files and match them with the model, decode no pixel and write nothing: `.counts`, `.files`
            and `.planned` of what is returned are what would be done. Of a PACS or a store nothing is fetched:
            `.planned["listed"]` has what it says of itself.
        limit: Stop once so many files have their row, up to the end of a block of some files. The same call without it
            goes on, and ends in the same bytes as if it had never been limited.
        log: File that JSON lines are appended to: how the run began, goes on (every ten seconds) and ended, by counts
            and reasons. No path and no identifier is in it.
        metrics: File of metrics for Prometheus' node_exporter; its name ends in .prom.
        engine: Who computes: this process ("local"), or workers on a Ray cluster, "ray" or "ray:N" with their number;
            one for each node where none is named, or for each GPU on CUDA. RAY_ADDRESS names the cluster; without it
            one is started for the run. Tables are the same.
        shard: Do one part of the run, "i/n", in a folder of its own, beside others on other machines;
            `medclip.runs.merge` makes the tables of the whole run of all n.
        settings: Limits.
        progress: Told how far the run is.

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
    asked = what_was_asked(locals())
    settings = (settings or Settings()).on_machine(workers, memory)
    path = local_of(path)
    refuse_for_remote(path, query, table=table, hash_paths=hash_paths, engine=engine, shard=shard)
    inputs = (
        Inputs(Path(), (), table_of(table))
        if is_elsewhere(path)
        else inputs_of(path, table, "what is embedded", follow_links=settings.follow_links)
    )
    options = ScoreOptions(
        table=inputs.table,
        modality=parse_modality(modality),
        min_confidence=min_confidence,
        group_by=group_by,
        hash_paths=hash_paths,
        weeks=weeks,
        thumbnails=thumbnails,
    )
    keep = TemporaryFolder("embed") if out is None else None
    publish_at = place_to_publish(out, work, path, shard)
    named = out if publish_at is None else work
    folder = keep.path if keep is not None else path_of(named, "the output folder")
    progress = progress or Silent()
    remote = remote_files(path, query, spool, folder, progress)
    call = Call(
        inputs.root if remote is None else remote.folder,
        folder,
        given=inputs.given if remote is None else None,
        model=model,
        options=options,
        key_file=None if key_file is None else path_of(key_file, "the key file"),
        settings=settings,
        progress=progress,
        publication=None if publish_at is None else Publication(publish_at, folder, progress),
        add=add,
        retry_failed=failed_for(retry_failed),
        device=device,
        batch_size=batch_size,
        backend=choose_backend(backend, model, settings.home, device),
        limit=limit,
        remote=remote,
        engine=choose_engine(engine, workers),
        asked=asked,
        shard=None if shard is None else shard_of(shard, asked, out, add=add),
    )
    if dry_run:
        return preview_embedding(call, dtype=dtype)
    published = None if publish_at is None else publish_at.url
    return replace(run_embedding(call, dtype=dtype), _keep=keep, published=published)
