"""The public verb `medclip.score`: a folder of studies goes in, tables and a report come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.asked import what_was_asked
from medclip.api.remote_arguments import is_elsewhere, place_to_publish, refuse_for_remote, remote_files
from medclip.api.run_arguments import Inputs, inputs_of, local_of, path_of, table_of
from medclip.api.shard_call import shard_of
from medclip.api.watched import watched
from medclip.embeddings.open_embeddings import Embeddings, is_embeddings, open_embeddings
from medclip.errors import MedclipError, Reason
from medclip.export.result_formats import RESULT_FORMATS
from medclip.export.results_folder import Exported, ResultsFolder
from medclip.export.running_results import RunningResults
from medclip.export.stored_results import StoreNote, store_results
from medclip.files.dicomweb.address import address_of
from medclip.files.dicomweb.server import FEW_PAUSES_S, DicomwebServer
from medclip.files.dicomweb.spool import DicomwebFiles
from medclip.files.discover import name_of_spelled
from medclip.files.disk.temporary_folder import TemporaryFolder
from medclip.files.grouping.studies import GroupBy
from medclip.models.backends.choice import choose_backend
from medclip.progress import Progress, Silent
from medclip.reports.score.answers import collect_answers
from medclip.reports.score.heat_maps import TOP, HeatMaps, check_named
from medclip.reports.score.report import write_score_report
from medclip.runs.call import Call
from medclip.runs.engines.choose_engine import LOCAL, choose_engine
from medclip.runs.outputs.publication import Publication
from medclip.runs.outputs.results import write_csv_tables
from medclip.runs.outputs.score_run import ScoreRun
from medclip.runs.planning.options import ScoreOptions, failed_for, parse_modality
from medclip.sample import FileRef, Modality
from medclip.scoring.run import Sink, preview_scoring, run_scoring
from medclip.scoring.vectors.score_embeddings import answer_embeddings, score_embeddings
from medclip.settings import DEFAULT_MODEL, Settings
from medclip.text.vocabulary.own_words import Asked, read_prompts

if TYPE_CHECKING:
    from medclip.models.model import Model


@watched
def score(
    path: Any,
    out: str | Path | None = None,
    *,
    work: str | Path | None = None,
    query: str | Mapping[str, str] = "",
    exclude: Sequence[str | Path] = (),
    model: str | Path | Model = DEFAULT_MODEL,
    task: str | Sequence[str] = (),
    prompt: Asked = (),
    against: Asked = (),
    templates: bool = True,
    table: Any = None,
    modality: Modality | str | None = None,
    min_confidence: float = 0.8,
    group_by: GroupBy = "auto",
    exam: bool | None = None,
    workers: int | None = None,
    memory: int | str | None = None,
    add: bool = False,
    retry_failed: str | None = None,
    sort_by: str | None = None,
    report_paths: bool = False,
    hash_paths: bool = False,
    weeks: bool = False,
    thumbnails: bool = True,
    csv: bool = False,
    explain: str | None = None,
    results_to: str | Path | None = None,
    results_as: str | Sequence[str] = (),
    store_to: str | None = None,
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
) -> ScoreRun:
    """Score a file or a folder of studies in words, or put a question to embeddings of them.

    Args:
        path: A file or folder, also of an object store (s3://BUCKET/FOLDER); a list of paths and arrays (H x W or H x W
            x 3; they are named "image 0" and so on), an array, or a data frame as `table` takes it, whose files are
            scored; or embeddings, or a folder of them, and then no image is read: results equal those of the files,
            where vectors are stored as float32. What was decided when they were embedded (table, modality, least
            probability, grouping, policy) stays. Or a PACS, as "dicomweb://HOST:PORT/PATH" ("dicomwebs://" for https),
            whose studies are fetched, scored and removed.
        out: Output folder for files.parquet, scores.parquet, run.json, report.html and the ledger. The same call on the
            same folder goes on where it was stopped; nothing that is known is read again. None works in a temporary
            folder that lives as long as the result; of embeddings, it answers in memory and writes no report. Or a
            folder of an object store, as "s3://BUCKET/FOLDER": tables, report and run.json are copied there as they
            come, run.json as the last.
        work: Where `out` is a store, the folder on a disk of this machine that holds the ledger: the same call with the
            same work folder goes on.
        query: Which studies of a PACS, as QIDO matches: "ModalitiesInStudy=CR,StudyDate=20240101-20240131", or a
            mapping of DICOM keywords to values.
        exclude: Files and folders below `path` to leave out, as if they were not there; rows that they have from an
            earlier call stay.
        model: Name or folder of a model pack, or a loaded model, which answers for embeddings as it is.
        task: Task or tasks to score; where neither tasks nor a prompt are given, those of the pack's card that fit
            each study.
        prompt: What to score in your own words: a text, several (each a class of its own), or a mapping of names to
            texts. "pneumonia | consolidation of the lung" and a list in the place of a text are ways to say one thing:
            their vectors are averaged, and the tables have by how much the answer changes with the wording.
        against: What each prompt is compared with, in their order or by name, in one way or several; "no {prompt}"
            where none is given.
        templates: Put prompts that but name a finding, in three words or fewer, into the sentences of the study's
            modality, such as "an X-ray image with {}".
        table: CSV, TSV or Parquet file, or a data frame, that names study, patient and modality of files.
        modality: Modality of the files that neither the table nor their header names.
        min_confidence: Least probability at which an inferred modality is believed.
        group_by: How files become studies: by UID, table and folder ("auto"), by "folder", or one "file" each.
        exam: Ask mammography examinations by their views: `exam_scores.parquet` has rows of the examination, its
            breasts and its images, and the answer of the examination is that of its views together. None does so where
            the pack fuses views; True takes the mean of the views' logits where it does not.
        workers: Reading processes; the settings' where None.
        memory: What all processes may take together, such as "12GB"; where None the settings', by default 60 % of what
            the machine or its cgroup has.
        add: Score files that came since an earlier call on this folder, and those that changed; the rows of all
            others stay as they are. Without it a folder that grew is refused.
        retry_failed: Try the files once more that failed in an earlier call: those of a reason such as "timeout", or
            "all"; their studies are scored anew.
        sort_by: Task and class, as TASK:CLASS (TASK alone where it has one class), by whose probability studies are
            sorted in the report, the highest first; by default they stand in the order of their files. Another call
            with another one writes the report anew and computes nothing.
        report_paths: Show relative paths in the report. By default it names files by row number and format.
        hash_paths: Put keyed hashes in the place of paths in the tables, and in the ledger once the run is finished.
        weeks: Write the ISO week of each DICOM examination ("2024-W05") into the column `headers` of files.parquet, for
            `medclip.monitor`. Without it tables hold no date of any kind.
        thumbnails: Keep small images of the studies for the report.
        csv: Write files.csv, scores.csv and exam_scores.csv beside the Parquet tables; a later call writes them too.
        explain: Draw heat maps beside the images of the report's first page: "top" for the most probable finding of
            each study, or a TASK or TASK:CLASS. Files are read once more; another call with another one computes no
            score again.
        results_to: Folder for the results of each study in forms that other systems take, as `results_as` names them.
            These files name patients, as the headers of the images do.
        results_as: Forms of those: "sr" (DICOM SR, which is "sr/STUDY.dcm"), "sc" (the heat map that `explain` names,
            by default that of the most probable finding, as a DICOM image), "fhir-r4b" and "fhir-r5"; "sr" where none
            is named. A study without a DICOM header has no SR; `.exported` counts them.
        store_to: PACS that the DICOM results are sent to, as `path` names one; `results_to` is then a folder in `out`
            where it is not named. Each object is sent once, also by later calls on the same folder.
        spool: What of a PACS may lie on this machine at once, such as "20GB", which it is where None.
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
        The run: `.files`, `.scores` and `.exam_scores` as Arrow tables, `.report_path`, `.counts`, `.exit_code`.

    Raises:
        MedclipError: For a call that cannot be carried out. A file that cannot be read raises nothing: it has its row.

    Example:
        >>> import medclip
        >>> run = medclip.score("examples")  # doctest: +SKIP
        >>> run.scores.column_names[:4]  # doctest: +SKIP
        ['study', 'patient', 'modality', 'task']
    """
    asked = what_was_asked(locals())
    settings = (settings or Settings()).on_machine(workers, memory)
    path = local_of(path)
    refuse_for_remote(
        path, query, table=table, hash_paths=hash_paths, engine=engine, shard=shard,
        maps=explain is not None or _with_maps(results_as), explain=explain is not None,
        results=results_to is not None or store_to is not None,
    )  # fmt: skip
    inputs = (
        Inputs(Path(), (), table_of(table))
        if is_elsewhere(path)
        else inputs_of(
            path.folder if isinstance(path, Embeddings) else path,
            table,
            "what is scored",
            follow_links=settings.follow_links,
        )
    )
    options = ScoreOptions(
        tasks=_several(task),
        prompts=read_prompts(prompt, against),
        templates=templates,
        table=inputs.table,
        modality=parse_modality(modality),
        min_confidence=min_confidence,
        group_by=group_by,
        hash_paths=hash_paths,
        weeks=weeks,
        thumbnails=thumbnails,
        exam=exam,
    )
    if hash_paths and report_paths:
        raise MedclipError(Reason.WRONG_USE, "paths are either hashed or shown in the report.", hint="Choose one.")
    is_stored = isinstance(path, Embeddings) or (inputs.given is None and is_embeddings(inputs.root))
    if is_stored:
        _refuse_for_stored(backend, limit)
    if is_stored and engine != LOCAL:
        raise MedclipError(
            Reason.WRONG_USE,
            "embeddings are scored, and no image is computed: there is nothing for --engine to do.",
            hint="Leave it out; it is named where images are embedded.",
        )
    if shard is not None and (is_stored or explain is not None or results_to is not None or store_to is not None):
        what = "embeddings are scored" if is_stored else "heat maps or results for other systems are asked for"
        raise MedclipError(
            Reason.WRONG_USE,
            f"a shard reads files and writes no report, and {what}.",
            hint="Leave one of the two out; the same call on the merged folder draws and exports.",
        )
    in_memory = is_stored and out is None
    if csv and out is None:
        raise MedclipError(
            Reason.WRONG_USE,
            "CSV tables are asked for and no output folder.",
            hint="Name it with out, or leave csv out.",
        )
    keep = TemporaryFolder("score") if out is None and not is_stored else None
    publish_at = place_to_publish(out, work, path, shard)
    named = out if publish_at is None else work
    folder = inputs.root if in_memory else keep.path if keep is not None else path_of(named, "the output folder")
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
        exclude=tuple(path_of(place, "what is left out") for place in exclude),
        retry_failed=failed_for(retry_failed),
        device=device,
        batch_size=batch_size,
        backend=choose_backend(backend, model, settings.home, device),
        limit=limit,
        engine=choose_engine(engine, workers),
        remote=remote,
        asked=asked,
        shard=None if shard is None else shard_of(shard, asked, out, add=add),
    )
    if dry_run:
        return _dry_run(call, sort_by, is_stored)
    maps = _heat_maps(explain, results_as, inputs, is_stored, call)
    sent = _for_others(results_to, results_as, store_to, maps, inputs, call, is_stored)
    exported: list[Exported] = []
    in_report = None if explain is None else maps
    answers: list[dict[str, Any]] = []
    finish = partial(_report, report_paths, csv, in_report, sent.results, sent.store, exported, answers, call.progress)
    if is_stored:
        embeddings = open_embeddings(path)
        if in_memory:
            return answer_embeddings(embeddings, call)
        run = score_embeddings(embeddings, call, sort_by=sort_by, finish=finish)
        return replace(run, published=None if publish_at is None else publish_at.url, answers=tuple(answers))
    with closing(sent.store) if sent.store is not None else nullcontext():
        run = run_scoring(call, sort_by=sort_by, finish=finish, sink=sent.sink)
    return replace(
        run,
        _keep=keep,
        published=None if publish_at is None else publish_at.url,
        exported=exported[0].to_json() if exported else None,
        answers=tuple(answers),
    )


def _dry_run(call: Call, sort_by: str | None, is_stored: bool) -> ScoreRun:
    """Return what a call would do.

    Raises:
        MedclipError: WRONG_USE for embeddings; as `preview_scoring`.
    """
    if is_stored:
        raise MedclipError(
            Reason.WRONG_USE, "embeddings are scored, and no file is read.", hint="Leave the dry run out."
        )
    return preview_scoring(call, sort_by=sort_by)


def _refuse_for_stored(backend: str | Path | None, limit: int | None) -> None:
    """Refuse what is about images where embeddings are scored."""
    if backend is not None:
        raise MedclipError(
            Reason.WRONG_USE,
            "embeddings are scored, and no image is computed: there is nothing for --backend to do.",
            hint="Leave it out; it is named where images are embedded.",
        )
    if limit is not None:
        raise MedclipError(
            Reason.WRONG_USE, "embeddings are scored as a whole, and no image is computed.", hint="Leave the limit out."
        )


def _heat_maps(
    explain: str | None, results_as: str | Sequence[str], inputs: Inputs, is_stored: bool, call: Call
) -> HeatMaps | None:
    """Return what draws heat maps, once it is sure that it can; None where none are asked for."""
    named = explain if explain is not None else TOP if _with_maps(results_as) else None
    if named is None:
        return None
    _check_explain(named, call.options.hash_paths, is_stored, inputs.given is not None)
    check_named(named, call.model, call.options)
    return HeatMaps(inputs.root, call.model, call.options, call.settings, named, call.device, call.progress)


def _with_maps(results_as: str | Sequence[str]) -> bool:
    """Return whether a form of results holds heat maps."""
    return any(name in RESULT_FORMATS and RESULT_FORMATS[name].needs_map for name in _several(results_as))


def _several(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _check_explain(explain: str, hash_paths: bool, is_stored: bool, is_given: bool) -> None:
    if hash_paths or is_stored or is_given:
        what = (
            "paths are hashed"
            if hash_paths
            else "embeddings are scored"
            if is_stored
            else "images are given one by one"
        )
        raise MedclipError(
            Reason.WRONG_USE,
            f"heat maps read the files of a folder once more, and {what}.",
            hint="Leave one of the two out, or use medclip explain on a file.",
        )
    if not explain.strip():
        raise MedclipError(Reason.WRONG_USE, "nothing is named to explain.", hint="Name 'top', or a TASK:CLASS.")


@dataclass(frozen=True)
class _ForOthers:
    """What goes to other systems."""

    results: ResultsFolder | None = None
    store: DicomwebServer | None = None
    sink: Sink | None = None
    """Returns what writes results while the run goes on."""


def _for_others(
    results_to: str | Path | None,
    results_as: str | Sequence[str],
    store_to: str | None,
    maps: HeatMaps | None,
    inputs: Inputs,
    call: Call,
    is_stored: bool,
) -> _ForOthers:
    """Return what writes and sends results, once it is sure that it can: the PACS that they go to is asked for."""
    store = None if store_to is None else DicomwebServer(address_of(store_to))
    if store is not None:
        results_to, results_as = results_to or call.folder / "results", results_as or "sr"
        if not any(name in RESULT_FORMATS and RESULT_FORMATS[name].suffix == ".dcm" for name in _several(results_as)):
            raise MedclipError(
                Reason.WRONG_USE, "a PACS takes DICOM, and no form of results is that.", hint="Add --results-as sr."
            )
    if results_to is None and not results_as:
        return _ForOthers()
    remote = call.remote
    read_from = remote.header_of if isinstance(remote, DicomwebFiles) else partial(_place, inputs.root, inputs.given)
    results = _results(results_to, _several(results_as), inputs, call, call.options.hash_paths, is_stored, read_from)
    results = replace(results, drawer=maps if _with_maps(results_as) else None)
    if store is None:
        return _ForOthers(results, None, partial(RunningResults, results))
    try:
        store.check(FEW_PAUSES_S)  # a wrong address is known before the night, and not behind it
    except BaseException:
        store.close()
        raise
    # A study of a PACS is whole when it is scored. One of a folder may have more files in a folder that comes later,
    # and what was sent is not taken back: it is sent at the end.
    early = StoreNote(results.folder, store) if isinstance(remote, DicomwebFiles) else None
    return _ForOthers(results, store, partial(RunningResults, results, store=early, close=store.close))


def _results(
    results_to: str | Path | None,
    formats: tuple[str, ...],
    inputs: Inputs,
    call: Call,
    hash_paths: bool,
    is_stored: bool,
    path_of_name: Callable[[str], Path],
) -> ResultsFolder:
    """Return what writes results for other systems, once it is sure that it can."""
    if results_to is None:
        raise MedclipError(
            Reason.WRONG_USE,
            "a format of results is named and no folder for them.",
            hint="Name it with --results-to DIR (results_to in Python).",
        )
    if hash_paths or is_stored:
        what = "paths are hashed" if hash_paths else "embeddings are scored"
        raise MedclipError(
            Reason.WRONG_USE,
            f"results for other systems take patient and study from the files, and {what}.",
            hint="Score the files, and leave paths as they are.",
        )
    results = ResultsFolder(
        path_of(results_to, "the folder of results"),
        formats or ("sr",),
        path_of_name,
        call.settings,
        call.progress,
    )
    if results.folder.resolve() == call.folder.resolve():
        raise MedclipError(
            Reason.WRONG_USE,
            "this is the output folder; results for other systems lie in one of their own.",
            where=results.folder,
            hint="Name another folder, such as one in it.",
        )
    inside = results.folder.resolve().is_relative_to(call.folder.resolve())
    is_elsewhere = inputs.given is not None or call.remote is not None or inside
    results.check({} if is_elsewhere else {"what is scored": inputs.root})
    return results


def _place(root: Path, given: Sequence[FileRef] | None, name: str) -> Path:
    """Return where a file of the tables lies."""
    if given is not None:
        return next((ref.path for ref in given if ref.name == name), Path(name))
    return root / name_of_spelled(name) if root.is_dir() else root


def _report(
    show_paths: bool,
    csv: bool,
    heat_maps: HeatMaps | None,
    results: ResultsFolder | None,
    store: DicomwebServer | None,
    exported: list[Exported],
    answers: list[dict[str, Any]],
    progress: Progress,
    ledger: Any,
    card: Any,
    folder: Path,
    sort_by: tuple[str, str] | None,
) -> None:
    if csv:
        write_csv_tables(folder)
    write_score_report(ledger, card, folder, show_paths=show_paths, sort_by=sort_by, heat_maps=heat_maps)
    answers += collect_answers(ledger, card, show_paths=show_paths, sort_by=sort_by)
    if results is not None:
        exported.append(results.write(ledger, card, folder))
    if results is not None and store is not None:
        stored = store_results(results.folder, store, progress)
        exported[:] = [replace(exported[0], stored=asdict(stored))]
