"""Score a folder, or embed it: the runs of `medclip.runs.conduct` that ask questions of units, or keep their vectors.

Whatever tasks there are, in an embedding each unit that an adapter reads gets its vectors; what `score` would pass over
for its question is decided when the question is put.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from medclip.adaptation.pack.pack_head import read_pack_texts
from medclip.embeddings.embedded_unit import DTYPES, EmbeddingPack
from medclip.embeddings.open_embeddings import Embeddings, is_embeddings, open_embeddings
from medclip.embeddings.write_embeddings import begin_embeddings, write_embeddings
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.tables.write import schema_of, write_rows
from medclip.models.packs.image_tower import image_tower_digest, pixels_digest
from medclip.models.packs.manifest import FUSION, read_config
from medclip.models.packs.pack import load_model, read_preprocess
from medclip.progress import Progress
from medclip.runs.call import Call, RunPack, pack_of_call
from medclip.runs.conduct import conduct
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.operations.preview import preview
from medclip.runs.outputs.results import EMBED, EMBEDDED, FILES, embedded_counts, write_results, write_run
from medclip.runs.outputs.score_run import STEPS, UNLEARNED, ScoreRun, Unlearned
from medclip.runs.planning.options import ScoreOptions
from medclip.runs.rows import FileRow, Ranking, ScoreRow
from medclip.runs.units.chunk import Answers
from medclip.runs.units.unit_rows import unit_rows, units_in
from medclip.runs.verb import RowSink, Verb
from medclip.sample import Modality, every_modality
from medclip.scoring.cautions import (
    KEY,
    answer_cautions,
    far_notes,
    kind_notes,
    none_notes,
    place_notes,
    question_notes,
    unanswered_notes,
    unlearned_answers,
    word_notes,
)
from medclip.scoring.exam_scores import MEAN, ExamScores
from medclip.scoring.image_maps import ImageMaps, map_questions
from medclip.scoring.study_scores import StudyScores
from medclip.scoring.tasks import (
    AskedTask,
    Scorer,
    asked_tasks,
    check_words,
    modality_task,
    only_modality,
    region_task,
    score_named,
)
from medclip.text.vocabulary.own_words import Prompt, templates_of

Finish = Callable[[Ledger, Any, Path, Ranking | None], None]
"""Called with the complete ledger, the pack's card, the output folder, and what studies are to be sorted by,
e.g. to write a report."""
Sink = Callable[[Any, Sequence[Unlearned]], RowSink]
"""From the pack's card, and the answers that are worth little of studies of any modality, to what takes rows."""


def run_scoring(
    call: Call,
    *,
    sort_by: str | None = None,
    finish: Finish | None = None,
    sink: Sink | None = None,
) -> ScoreRun:
    """Score the files below a path into a folder.

    Args:
        call: Files, model and options of the run.
        sort_by: Task, or task and class (TASK:CLASS), that `finish` is to sort studies by; no part of what the run is.
        finish: Function called before the run counts as finished.
        sink: Function that returns what takes rows as they are committed.
    """
    pack, verb = _pack_and_verb(call, sort_by, finish, sink)
    counts, already = conduct(call, pack, verb)
    shard = None if call.shard is None else str(call.shard)
    return ScoreRun(call.folder, counts, already_finished=already, shard=shard, work=call.watch.report().to_json())


def preview_scoring(call: Call, *, sort_by: str | None = None) -> ScoreRun:
    """Return what scoring would do; nothing is written.

    Args:
        call: Files, model and options of the run.
        sort_by: Task, or task and class, as `run_scoring` takes it; it is checked.
    """
    pack, verb = _pack_and_verb(call, sort_by, None)
    counts, files, planned = preview(call, pack, verb)
    tables = {"files": files, "scores": schema_of(ScoreRow).empty_table()}
    return ScoreRun(
        call.folder, counts, _tables=tables, _notes=verb.notes, _unlearned=(), planned=planned
    )  # modalities that are inferred are not known yet, and so is what of them nobody has measured


def _pack_and_verb(
    call: Call, sort_by: str | None, finish: Finish | None, sink: Sink | None = None
) -> tuple[RunPack, Verb]:
    pack = pack_of_call(call)
    head_tasks = read_pack_texts(pack.path, pack.card)
    tasks = asked_tasks(pack.card, call.options, head_tasks)
    check_words(pack.path, pack.card, tasks, head_tasks)
    only = only_modality(pack.card, head_tasks, read_preprocess(pack.path))
    verb = score_verb(pack, tasks, call.options, call.folder, only, sort_by, finish, call.progress)
    if sink is not None:  # which modalities there are is not known yet
        verb = replace(verb, sink=sink(pack.card, unlearned_answers(pack.card, tasks, every_modality(), pack.path)))
    return pack, verb if call.backend is None else replace(verb, notes=(*verb.notes, *call.backend.notes))


def score_verb(
    pack: RunPack,
    tasks: tuple[AskedTask, ...],
    options: ScoreOptions,
    folder: Path,
    only: Any,
    sort_by: str | None,
    finish: Finish | None,
    progress: Progress,
) -> Verb:
    """Return what scoring makes of a run.

    Args:
        pack: Pack that answers the tasks.
        tasks: The questions.
        options: Options of the run, the prompts among them.
        folder: The output folder.
        only: Only modality that the pack knows, as in `Verb.only`.
        sort_by: Task, or task and class, as `run_scoring` takes it.
        finish: Function called before the run counts as finished, as `run_scoring` takes it.
        progress: Object that is told what is to be known of the images.

    Raises:
        MedclipError: WRONG_USE for a task or class that studies cannot be sorted by.
    """
    score = None if sort_by is None else score_named(tasks, sort_by)
    question = {
        "tasks": [asked_task.task.name for asked_task in tasks],
        "prompts": [prompt.to_json() for prompt in options.prompts],
        "templates": options.templates,
    }
    if exam := fusion_asked(pack, options):
        question["exam"] = exam
        question |= {} if options.pool is None else {"pool": options.pool}
    if of_maps := [one.task.name for one in map_questions(tasks)]:
        question["maps"] = of_maps
    return Verb(
        stage="Reading and scoring",
        identity=question,
        answers=partial(_answers, pack, tasks, exam, options.pool),
        write=partial(_write, folder, pack, tasks, question, progress),
        finish=None if finish is None else lambda ledger: finish(ledger, pack.card, folder, score),
        notes=question_notes(pack.card, tasks, pack.path),
        only=only,
    )


def fusion_asked(pack: RunPack, options: ScoreOptions) -> str | None:
    """Return how the views of mammography examinations become one answer; None where they are not asked by their views.

    They are where the pack has a fusion, or where the caller asks for it.
    """
    config = read_config(pack.path)["model_cfg"].get(FUSION)
    if options.exam is False or not (config or options.exam):
        return None
    return str(config["kind"]) if config else MEAN


def study_scores(model: Any, tasks: tuple[AskedTask, ...], exam: str | None, pool: str | None = None) -> StudyScores:
    """Return what answers the questions of a run.

    Args:
        model: Model that is loaded.
        tasks: The questions.
        exam: Fusion of an examination's views, as `fusion_asked` returned it.
        pool: Pooling of its breasts; None as the pack's card says.
    """
    scorer, cautions = Scorer(model), answer_cautions(model.card, tasks, Path(model.path))
    exams = ExamScores(model, scorer, exam, cautions, pool) if exam else None
    return StudyScores(model, scorer, tasks, exams, cautions)


def _answers(pack: RunPack, tasks: tuple[AskedTask, ...], exam: str | None, pool: str | None, model: Any) -> Answers:
    scores = study_scores(model, tasks, exam, pool)
    maps = ImageMaps(model, scores.scorer, map_questions(tasks))
    return Answers(
        infer=infer_of(model, pack.card, scores.scorer),
        part=part_of(model, pack.card, scores.scorer),
        refuse=scores.refuse,
        refuse_stranger=scores.refuse_stranger,
        result=lambda work: work.result(
            scores=tuple(scores.rows(work)), withheld=scores.withheld, maps=tuple(maps.of_chunk(work))
        ),
        asks_where=bool(maps.questions),
        encoder=scores.scorer.encoder,
    )


def infer_of(model: Any, card: Any, scorer: Scorer | None = None) -> Any:
    """Return what finds the likeliest modality of a unit, None for a pack that cannot tell modalities apart."""
    task = modality_task(card)
    return None if task is None else partial((scorer or Scorer(model)).likeliest, question=task)


def part_of(model: Any, card: Any, scorer: Scorer | None = None) -> Any:
    """Return what finds the body part that a unit shows, None for a pack that cannot tell parts apart."""
    task = region_task(card)
    return None if task is None else partial((scorer or Scorer(model)).part, question=task)


def _write(
    folder: Path,
    pack: RunPack,
    tasks: tuple[AskedTask, ...],
    question: Mapping[str, Any],
    progress: Progress,
    ledger: Ledger,
    run: dict[str, Any],
) -> None:
    modalities = ledger.counts_by("modality")
    kinds = ledger.kinds_scored()
    of_places = (*word_notes(pack.card, tasks, modalities), *place_notes(pack.card, tasks, modalities))
    of_places = (*of_places, *kind_notes(pack.card, tasks, kinds), *unanswered_notes(tasks, modalities))
    of_places = (*of_places, *none_notes(tasks, modalities))
    notes = (*of_places, *far_notes(ledger, pack.path))
    unlearned = unlearned_answers(pack.card, tasks, modalities, pack.path, kinds)
    steps = {question.task.name: question.steps for question in tasks if len(question.steps) > 1}
    ledger.remember({KEY: list(notes), STEPS: steps, UNLEARNED: [answers.to_json() for answers in unlearned]})
    for note in notes:
        progress.note(note)
    write_results(ledger, folder, _with_question(ledger, run, question))


def _with_question(ledger: Ledger, run: dict[str, Any], question: Mapping[str, Any]) -> dict[str, Any]:
    bare = question["templates"] and any(Prompt.from_json(p).is_bare for p in question["prompts"])
    scored = [Modality(name) for name in ledger.counts_by("modality")] if bare else []
    templates = {str(modality): list(templates_of(modality)) for modality in sorted(scored)}
    return {
        **run,
        "options": {**run["options"], **question, "templates": templates},
        "notes": [*(ledger.get("notes") or []), *(ledger.get(KEY) or [])],
        UNLEARNED: ledger.get(UNLEARNED) or [],
    }


def run_embedding(call: Call, *, dtype: str = "float32") -> Embeddings:
    """Embed the files below a path into a folder.

    Args:
        call: Files, model and options of the run.
        dtype: Type of the stored vectors: float32 or float16.

    Raises:
        MedclipError: WRONG_USE for another dtype.
    """
    pack, verb = _pack_and_embedding(call, dtype)
    counts, already = conduct(call, pack, verb)
    if call.shard is not None:
        return replace(_without_vectors(call, pack, dtype, counts), already_finished=already, shard=str(call.shard))
    return replace(open_embeddings(call.folder), already_finished=already)


def preview_embedding(call: Call, *, dtype: str = "float32") -> Embeddings:
    """Return what embedding would do; nothing is written.

    Args:
        call: Files, model and options of the run.
        dtype: Type of the stored vectors, as `run_embedding` takes it; it is checked.
    """
    pack, verb = _pack_and_embedding(call, dtype)
    counts, files, planned = preview(call, pack, verb)
    return replace(_without_vectors(call, pack, dtype, counts), planned=planned, _files=files)


def _pack_and_embedding(call: Call, dtype: str) -> tuple[RunPack, Verb]:
    if dtype not in DTYPES:
        raise MedclipError(
            Reason.WRONG_USE, f"vectors are not stored as {dtype!r}.", hint=did_you_mean(dtype, DTYPES, "Types are")
        )
    pack = pack_of_call(call)
    return pack, Verb(
        stage="Reading and embedding",
        identity={"command": EMBED, "dtype": dtype},
        answers=partial(_vectors_alone, pack),
        write=partial(_write_vectors, call, pack, dtype),
        begin=partial(_begin_folder, call.folder),
        compute=partial(begin_embeddings, call.folder),  # a folder that is half written says so
        shows_parts=False,
        keeps_looks=True,
        notes=() if call.backend is None else call.backend.notes,
        only=only_modality(pack.card, read_pack_texts(pack.path, pack.card), read_preprocess(pack.path)),
    )


def _without_vectors(call: Call, pack: RunPack, dtype: str, counts: dict[str, int]) -> Embeddings:
    """Return what a shard and a dry run have: counts."""
    remembered = embedding_pack(pack.path, pack.card, pack.digest)
    return Embeddings(call.folder, remembered, 0, dtype, 0, 0, 0, own_counts=embedded_counts(counts))


def embedding_pack(path: Path, card: Any, digest: str) -> EmbeddingPack:
    """Return what a folder of embeddings remembers of a pack."""
    return EmbeddingPack(card.name, str(card.version), digest, image_tower_digest(path), pixels_digest(path))


def _begin_folder(folder: Path) -> None:
    """Mark a new folder at once, so that one whose run is killed early is never taken for a folder of images."""
    if not is_embeddings(folder):
        begin_embeddings(folder)


def _vectors_alone(pack: RunPack, model: Any) -> Answers:
    return Answers(
        infer=infer_of(model, pack.card),
        part=part_of(model, pack.card),
        refuse=lambda modality, body_part, kind: None,
        refuse_stranger=lambda modality: None,
        result=lambda work: work.result(units=unit_rows(work)),
    )


def _write_vectors(call: Call, pack: RunPack, dtype: str, ledger: Ledger, run: dict[str, Any]) -> None:
    folder, dim = call.folder, _dim(pack)
    begin_embeddings(folder)
    files = (replace(row, status=EMBEDDED) if row.status == "scored" else row for row in ledger.files())
    write_rows(folder / FILES, FileRow, files)
    write_embeddings(
        folder,
        units_in(ledger, dim),
        embedding_pack(pack.path, pack.card, pack.digest),
        dim=dim,
        dtype=dtype,
        by_study=units_in(ledger, dim, by_study=True),
        failed=units_in(ledger, dim, failed=True),
        thumbnails=ledger.thumbnails(),
    )
    run = {**run, "options": {**run["options"], "dtype": dtype}, "identity": ledger.get("identity")}
    write_run(folder, run, embedded_counts(ledger.counts()))


def _dim(pack: RunPack) -> int:
    """Return the length of a pack's vectors; the config of an image tower alone may leave it to the tower."""
    stated = read_config(pack.path)["model_cfg"].get("embed_dim")
    return int(stated) if stated else load_model(pack.path, verify=False).dim
