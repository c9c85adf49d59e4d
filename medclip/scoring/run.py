"""Score a folder: the run of `medclip.runs.conduct` that asks questions of its units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from medclip.adaptation.pack.pack_head import read_pack_texts
from medclip.files.tables.write import schema_of
from medclip.models.packs.manifest import read_config
from medclip.models.packs.pack import read_preprocess
from medclip.models.packs.views import FUSION
from medclip.progress import Progress
from medclip.runs.call import Call
from medclip.runs.conduct import conduct
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.operations.preview import preview
from medclip.runs.outputs.results import write_results
from medclip.runs.outputs.row_sink import RowSink
from medclip.runs.outputs.score_run import UNLEARNED, ScoreRun, Unlearned
from medclip.runs.planning.options import ScoreOptions
from medclip.runs.rows import ScoreRow
from medclip.runs.run_pack import RunPack, pack_of_call
from medclip.runs.units.chunk import Answers
from medclip.runs.verb import Verb
from medclip.sample import Modality
from medclip.scoring.cautions import answer_cautions
from medclip.scoring.far_images import KEY, far_notes
from medclip.scoring.only_modality import only_modality
from medclip.scoring.studies.exam_scores import MEAN, ExamScores
from medclip.scoring.studies.study_scores import StudyScores
from medclip.scoring.tasks import AskedTask, Scorer, asked_tasks, check_words, modality_task, score_named
from medclip.scoring.unlearned import kind_notes, place_notes, question_notes, unanswered_notes, unlearned_answers
from medclip.text.vocabulary.own_words import Prompt, templates_of

Finish = Callable[[Ledger, Any, Path, tuple[str, str] | None], None]
"""Called with the complete ledger, the pack's card, the output folder, and the task and class that studies are to be
sorted by, e.g. to write a report."""
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

    Raises:
        MedclipError: As `conduct`.
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

    Raises:
        MedclipError: As `preview`.
    """
    pack, verb = _pack_and_verb(call, sort_by, None)
    seen = preview(call, pack, verb)
    tables = {"files": seen.files, "scores": schema_of(ScoreRow).empty_table()}
    return ScoreRun(
        call.folder, seen.counts, _tables=tables, _notes=verb.notes, _unlearned=(), planned=seen.to_json()
    )  # modalities that are inferred are not known yet, and so is what of them nobody has measured


def _pack_and_verb(
    call: Call, sort_by: str | None, finish: Finish | None, sink: Sink | None = None
) -> tuple[RunPack, Verb]:
    pack = pack_of_call(call)
    own = read_pack_texts(pack.path, pack.card)
    tasks = asked_tasks(pack.card, call.options, own)
    check_words(pack.path, pack.card, tasks, own)
    only = only_modality(pack.card, own, read_preprocess(pack.path))
    verb = score_verb(pack, tasks, call.options, call.folder, only, sort_by, finish, call.progress)
    if sink is not None:  # which modalities there are is not known yet
        verb = replace(verb, sink=sink(pack.card, unlearned_answers(pack.card, tasks, list(Modality), pack.path)))
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
        "tasks": [asked.task.name for asked in tasks],
        "prompts": [prompt.to_json() for prompt in options.prompts],
        "templates": options.templates,
    }
    if exam := fusion_asked(pack, options):
        question["exam"] = exam
    return Verb(
        stage="Reading and scoring",
        identity=question,
        answers=partial(_answers, pack, tasks, exam),
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


def study_scores(model: Any, tasks: tuple[AskedTask, ...], exam: str | None) -> StudyScores:
    """Return what answers the questions of a run.

    Args:
        model: Model that is loaded.
        tasks: The questions.
        exam: Fusion of an examination's views, as `fusion_asked` returned it.
    """
    scorer, cautions = Scorer(model), answer_cautions(model.card, tasks, Path(model.path))
    exams = ExamScores(model, scorer, exam, cautions) if exam else None
    return StudyScores(model, scorer, tasks, exams, cautions)


def _answers(pack: RunPack, tasks: tuple[AskedTask, ...], exam: str | None, model: Any) -> Answers:
    scores = study_scores(model, tasks, exam)
    return Answers(
        infer=infer_of(model, pack.card, scores.scorer),
        refuse=scores.refuse,
        refuse_stranger=scores.refuse_stranger,
        result=lambda work: work.result(scores=tuple(scores.rows(work)), withheld=scores.withheld),
        encoder=scores.scorer.encoder,
    )


def infer_of(model: Any, card: Any, scorer: Scorer | None = None) -> Any:
    """Return what finds the likeliest modality of a unit, None for a pack that cannot tell modalities apart."""
    task = modality_task(card)
    return None if task is None else partial((scorer or Scorer(model)).likeliest, asked=task)


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
    of_places = (*place_notes(pack.card, tasks, modalities), *kind_notes(pack.card, tasks, kinds))
    of_places = (*of_places, *unanswered_notes(tasks, modalities))
    notes = (*of_places, *far_notes(ledger, pack.path))
    unlearned = unlearned_answers(pack.card, tasks, modalities, pack.path, kinds)
    ledger.remember({KEY: list(notes), UNLEARNED: [answers.to_json() for answers in unlearned]})
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
