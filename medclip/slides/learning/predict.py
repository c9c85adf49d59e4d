"""Answers for whole slides, zero-shot or by a learned head, with maps of what moves them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_folder, in_use, new_folder, write_file
from medclip.files.tables.write import csv_bytes, parquet_bytes
from medclip.models.prototypes.class_vectors import ClassVectors, class_logits, probabilities
from medclip.progress import Progress
from medclip.result import named_counts
from medclip.sample import Modality, spoken
from medclip.slides.heat_maps import MapFiles, write_maps
from medclip.slides.learning.head_file import SlideHead, check_fit, read_head
from medclip.slides.parametric_map import PatchMap, evidence_for, patch_map
from medclip.slides.slide_features import SlideFeatures
from medclip.slides.slide_store import DONE, SlideRow, SlideStore, StepResult, StepRow
from medclip.text.vocabulary.task import Task
from medclip.text.vocabulary.task_kinds import kind_named
from medclip.wording import list_of

if TYPE_CHECKING:
    import pyarrow as pa


TOP_PATCHES = 50
PREDICTIONS, NOTE, MAPS = "predictions", "predictions.json", "maps"
_WHAT = "folder of answers for slides"


@dataclass(frozen=True)
class SlidePrediction(StepRow):
    """One slide and its answer, or why it has none."""

    answer: str | None = None
    """The most probable class; of a risk none."""
    probabilities: Mapping[str, float] | None = None
    peak_um: tuple[float, float] | None = None
    """Top and left of the patch that speaks most for what the map shows."""
    map_of: str | None = None
    """What the map shows."""
    map_note: str | None = None
    """Why the map is not drawn over the slide, or why there is no DICOM map."""


@dataclass(frozen=True, eq=False, repr=False)
class SlidePredictions(StepResult[SlidePrediction]):
    """Answers of all slides of a store."""

    question: str
    names: tuple[str, ...]
    notes: tuple[str, ...]
    out: Path

    def to_json(self) -> dict[str, Any]:
        """Return plain data; no name of a file."""
        return {
            "out": str(self.out),
            "question": self.question,
            "names": list(self.names),
            "counts": self.counts,
            "answers": dict(Counter(slide.answer for slide in self.slides if slide.answer)),
            "notes": list(self.notes),
        }

    def _facts(self) -> dict[str, object]:
        answers = Counter(slide.answer for slide in self.slides if slide.answer)
        return {"question": self.question, "slides": named_counts(self.counts), "answers": named_counts(answers)}

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        rows = []
        for slide in self.slides[:most]:
            values = asdict(slide)
            chances, peak = values.pop("probabilities") or {}, values.pop("peak_um") or (None, None)
            columns = {f"p_{name}": chances.get(name) for name in self.names}
            rows.append({**values, **columns, "peak_top_um": peak[0], "peak_left_um": peak[1]})
        return rows


@dataclass(frozen=True, eq=False)
class SlideQuestion:
    """What is asked of each slide."""

    title: str
    names: tuple[str, ...]
    kind: str
    answer: Callable[[SlideFeatures], tuple[NDArray[np.float32], PatchMap]]
    """Makes logits [C] and a map of a slide's features."""
    note: Callable[[SlideFeatures], str]
    software: str
    """What answers, in a few words."""


def claim_answers(folder: Path, store: Path, *, overwrite: bool) -> None:
    """Make sure that answers may be written to a folder.

    Raises:
        MedclipError: OUTPUT_IN_USE.
    """
    holds = claim_folder(folder, _WHAT, marks=(NOTE,), inputs={"the store of slides": store}, in_one_step=True)
    if holds and not overwrite:
        remedy = "Name another folder, or replace them with --overwrite."
        raise in_use(folder, "this folder holds answers already", remedy)


def answer_slides(
    store: SlideStore, question: SlideQuestion, files: MapFiles, folder: Path, progress: Progress
) -> SlidePredictions:
    """Answer a question for every slide of a store, and write predictions.csv, predictions.parquet and maps.

    Raises:
        MedclipError: WRONG_USE for vectors that the question is not for.
    """
    slides, notes = [], dict[str, None]()
    progress.stage("Answering", len(store.rows))
    with new_folder(folder) as draft:
        for row in store.rows:
            slides.append(_predicted(row, store, question, draft, files, notes))
            progress.step()
        predictions = SlidePredictions(tuple(slides), question.title, question.names, tuple(notes), folder)
        table = _table(predictions)
        write_file(draft / f"{PREDICTIONS}.parquet", parquet_bytes(table))
        write_file(draft / f"{PREDICTIONS}.csv", csv_bytes(table))
        facts = {**predictions.to_json(), "answered_by": question.software, "pack": store.pack.to_dict()}
        write_file(draft / NOTE, json.dumps({**facts, "out": None}, indent=1, sort_keys=True) + "\n")
    return predictions


def _predicted(
    row: SlideRow, store: SlideStore, question: SlideQuestion, draft: Path, files: MapFiles, notes: dict[str, None]
) -> SlidePrediction:
    blank = SlidePrediction.of(row)
    if row.status != DONE:
        return blank
    try:
        features = store.read(row.key)
        if note := question.note(features):
            notes[note] = None
        logits_C, drawn = question.answer(features)
        map_note = write_maps(draft / MAPS, drawn, row, features, files)
    except MedclipError as e:
        if e.reason is Reason.WRONG_USE:
            raise
        return blank.after(e)
    chances = probabilities(logits_C[None], question.kind)[0]  # pyright: ignore[reportArgumentType]
    named = {name: float(p) for name, p in zip(question.names, chances, strict=True)}
    top, left = (float(um) for um in features.corners_um_N2[drawn.peak])
    rules = kind_named(question.kind)
    best = None if rules.timed else question.names[int(logits_C.argmax())]
    if rules.independent:
        best = ", ".join(name for name, p in named.items() if p >= 0.5) or "none"
    return replace(
        blank,
        num_patches=len(features),
        answer=best,
        probabilities=named,
        peak_um=(top, left),
        map_of=drawn.title,
        map_note=map_note or None,
    )


def question_of_head(head: SlideHead | str | Path) -> SlideQuestion:
    """Make a question of a learned head, or of the folder of one."""
    import torch

    head = head if isinstance(head, SlideHead) else read_head(head)
    card = head.card

    def answer(features: SlideFeatures) -> tuple[NDArray[np.float32], PatchMap]:
        bag_ND = torch.from_numpy(np.asarray(features.features_ND, np.float32))
        with torch.no_grad():
            logits_C = head.model(bag_ND).slide_C.numpy()
            if kind_named(card.kind).timed:
                return (logits_C, patch_map(features, head.model.attention_of(bag_ND).numpy(), "attention"))
            evidence_NC = head.model.evidence_of(bag_ND).numpy()
        return (logits_C, map_for(features, evidence_NC, logits_C, card.names, card.kind))

    return SlideQuestion(
        f"{card.label} (learned, {card.shape.pooling})",
        card.names,
        card.kind,
        answer,
        lambda features: check_fit(card, features),
        f"{card.shape.pooling} head on {card.pack.name} {card.pack.version}",
    )


def question_in_words(task: Task | str | Path, model: Any, store: SlideStore, top: int) -> SlideQuestion:
    """Make a question of a task's words, which the `top` patches that match a class best answer.

    Raises:
        MedclipError: WRONG_USE for a task about another modality, for a risk and for vectors of another pack.
    """
    from medclip.models.packs.manifest import pack_digest
    from medclip.models.packs.pack import find_pack, load_model
    from medclip.models.packs.words import unmeasured
    from medclip.models.prototypes.class_vectors import class_vectors
    from medclip.text.vocabulary.find_task import find_task

    found_task = find_task(task)
    if found_task.modalities and Modality.PATHOLOGY not in found_task.modalities:
        raise _other_modality(found_task)
    if not found_task.has_words:
        raise MedclipError(Reason.WRONG_USE, "a risk cannot be asked in words.", hint="Learn a head with --years.")
    folder = find_pack(model)
    if pack_digest(folder) != store.pack.digest:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the slides were embedded with {store.pack.name} {store.pack.version} ({store.pack.digest[:12]}), not "
            "with this pack.",
            where=folder,
            hint="Name the pack that they were embedded with: its words alone fit its vectors.",
        )
    loaded = load_model(model) if isinstance(model, (str, Path)) else model
    entry = loaded.card.tasks.get(found_task.name)
    vectors = class_vectors(loaded, found_task, None if entry is None else entry.classes)
    note = "" if entry is not None else " ".join(unmeasured(loaded.card, [found_task]))

    def answer(features: SlideFeatures) -> tuple[NDArray[np.float32], PatchMap]:
        logits_NC = patch_logits(features.features_ND, vectors, found_task.kind, loaded.logit_scale)
        pooled_C = top_pooled(logits_NC, top)
        return (pooled_C, map_for(features, logits_NC, pooled_C, vectors.names, found_task.kind))

    title = f"{found_task.title} (zero-shot, the {top} best patches)"
    software = f"zero-shot, {loaded.card.name} {loaded.card.version}"
    return SlideQuestion(title, vectors.names, found_task.kind, answer, lambda _: note, software)


def _other_modality(task: Task) -> MedclipError:
    from medclip.text.vocabulary.load import load_task, spoken_names

    of_slides = [name for name in spoken_names() if Modality.PATHOLOGY in load_task(name).modalities]
    return MedclipError(
        Reason.WRONG_USE,
        f"the task {task.name} is about {list_of([spoken(name) for name in task.modalities])}, not about slides.",
        hint=f"Tasks about slides are {', '.join(of_slides)}; name one, or a task file of your own.",
    )


def map_for(
    features: SlideFeatures,
    logits_NC: NDArray[np.floating],
    slide_C: NDArray[np.floating],
    names: tuple[str, ...],
    kind: str,
) -> PatchMap:
    """Map the most probable class against the others; findings that exclude no other by themselves."""
    best = int(slide_C.argmax())
    if kind_named(kind).independent:
        return patch_map(features, logits_NC[:, best], f"evidence for {names[best]}")
    others = names[1 - best] if len(names) == 2 else "the others"
    against = f" against {others}" if len(names) > 1 else ""
    return patch_map(features, evidence_for(logits_NC, best), f"evidence for {names[best]}{against}")


def _table(predictions: SlidePredictions) -> pa.Table:
    import pyarrow as pa

    texts = ("key", "file", "status", "reason", "message", "patient", "answer", "map_of", "map_note")
    types = {**dict.fromkeys(texts, pa.string()), "num_patches": pa.int64()}
    rows = predictions._rows()
    columns = list(rows[0]) if rows else [*texts, "num_patches"]
    return pa.table({name: pa.array([row[name] for row in rows], types.get(name, pa.float64())) for name in columns})


def patch_logits(
    features_ND: NDArray[np.floating], vectors: ClassVectors, kind: str, logit_scale: float
) -> NDArray[np.float32]:
    """Score every patch as scoring does an image: a·cos, or a·(cos⁺ − cos⁻) for findings; float32 [N, C].

    Args:
        features_ND: Patch vectors of unit norm.
        vectors: The task's class vectors.
        kind: Kind of the task, a row of `TASK_KINDS`.
        logit_scale: a, the model's exp(logit_scale).
    """
    return class_logits(np.asarray(features_ND, np.float32), vectors, kind, logit_scale)


def top_pooled(logits_NC: NDArray[np.floating], top: int = TOP_PATCHES) -> NDArray[np.float32]:
    """Average the highest patches of each class, float32 [C]: those that match a sentence best stand for the slide.

    The mean of all patches would drown a small lesion; the highest alone follows one smudge. K = 50 of thousands of
    patches was a good middle in the reference (MI-Zero: Lu et al., Visual language pretrained multiple instance
    zero-shot transfer for histopathology images, CVPR 2023).

    Args:
        logits_NC: Logits of each patch, float [N, C].
        top: K, the number of highest patches; all where a slide has fewer.

    Raises:
        MedclipError: WRONG_USE for no patch, or K below 1.

    Example:
        >>> top_pooled(np.array([[1.0, 0.0], [3.0, 4.0], [2.0, 0.0]]), top=2).tolist()
        [2.5, 2.0]
    """
    if not len(logits_NC) or top < 1:
        raise MedclipError(Reason.WRONG_USE, f"the {top} highest of {len(logits_NC)} patches: both take at least 1.")
    count = min(top, len(logits_NC))
    highest_KC = np.partition(np.asarray(logits_NC, np.float64), -count, axis=0)[-count:]
    return highest_KC.mean(axis=0).astype(np.float32)
