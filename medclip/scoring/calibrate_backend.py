"""Calibrate the back-ends of a pack: the fastest on this machine of those that leave its scores as they are.

Half of the images choose: every back-end computes a few of them, in turn with the reference, and what breaks its bound
or is no faster is out. The fastest of the others computes all of them, and is judged on the other half, patients apart
where they are known; what breaks its bound on either is out as well, and the next is tried. The largest change over the
images that chose is the least of several largest changes, and says too little of others.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.pack.pack_head import read_pack_texts
from medclip.errors import MedclipError, Reason
from medclip.files.readers.pool import ReadingPool
from medclip.files.recognise.inspect import inspect_file
from medclip.models.backends.backend_calibration import Calibration, Candidate, Judgement, cost_ms, processor_s
from medclip.models.backends.choice import kept_graph
from medclip.models.backends.known import (
    BACKENDS,
    EAGER,
    EXPORT_S,
    BackendKind,
    check_backend,
    cpu_flags,
    cpu_name,
    usable,
)
from medclip.models.backends.load import load_backend, make_graph, refuse_misfit
from medclip.models.devices import torch_threads
from medclip.models.encoding.unit_reader import ReadUnit, UnitReader, encode_units
from medclip.models.model import Model
from medclip.models.packs.manifest import pack_digest
from medclip.progress import Progress
from medclip.runs.planning.options import ScoreOptions
from medclip.sample import Modality
from medclip.scoring.backend_changes import Change, answer_all, compare_answers, directions_of
from medclip.scoring.tasks import AskedTask, Scorer, asked_tasks, check_words, only_modality
from medclip.settings import Settings
from medclip.version import __version__
from medclip.wording import by_reason, count

_AHEAD = 64


def hold_out(keys: Sequence[str]) -> NDArray[np.bool_]:
    """Choose the images that judge, about half of them.

    Args:
        keys: Key of each image: its patient, or its bytes where nothing names the patient. Equal ones stay in one half.

    Returns:
        bool [N]. Where all images have one key, every other one judges.

    Example:
        >>> hold_out(["a", "a", "b", "b", "c"]).tolist()
        [False, False, True, True, False]
    """
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    if len(places) == 1:
        return np.arange(len(keys)) % 2 == 1
    num_of = np.bincount([places[key] for key in keys])
    judges = np.zeros(len(places), bool)
    chosen = held = 0
    for place, num in enumerate(num_of):
        judges[place] = held < chosen
        held, chosen = (held + num, chosen) if judges[place] else (held, chosen + num)
    return judges[[places[key] for key in keys]]


def patients_of(paths: Sequence[Path], stated: Sequence[str | None], settings: Settings) -> list[str]:
    """Return what is equal for images of one patient, "" for an image that names none: the table's word, or a header's.

    Args:
        paths: Paths of the images; headers are read in reading processes.
        stated: Patient that a table states for each image; None where it states none.
        settings: Limits.
    """
    patients = [patient or "" for patient in stated]
    jobs = [(path, settings) for path, patient in zip(paths, patients, strict=True) if not patient]
    if not jobs:
        return patients
    with ReadingPool.of(settings) as pool:
        of_headers = iter([_result(future) for future in pool.map(patient_in_header, jobs, ahead=_AHEAD)])
    return [patient or next(of_headers) for patient in patients]


def patient_in_header(path: Path, settings: Settings) -> str:
    """Return a hash of the patient id in a file's header, "" where there is none."""
    header = inspect_file(path, settings).header
    named = "" if header is None else header.patient_id
    return hashlib.sha256(named.encode()).hexdigest() if named else ""


def _result(future: object) -> str:
    try:
        return future.result()  # type: ignore[attr-defined]
    except MedclipError:  # it will not be read either, with its reason
        return ""


LEAST_IMAGES = 16
"""Fewer say little about the largest change."""
FIRST_IMAGES = 16
"""Images of those that choose on which each back-end is tried before it is compared and timed further."""
ROUNDS = 7
"""Batches that each back-end is timed on, all back-ends in turn: a busy moment of the machine meets all of them."""
_SCALES_FROM = 2
"""One image of so many of those that choose sets the scales of a back-end that needs images."""
RUN_IMAGES = 10_000
"""Images of a run where nobody says how many: a night of one department."""
MARGIN = 0.95
"""A back-end later in the table has to be this much faster to be chosen."""


@dataclass(frozen=True)
class NamedImage:
    """One image of a calibration."""

    path: Path
    modality: Modality | None = None
    patient: str | None = None


@dataclass(frozen=True, eq=False)
class _Images:
    units: tuple[ReadUnit, ...]
    modalities: tuple[Modality, ...]
    """Of each view."""

    @property
    def views(self) -> list[Any]:
        return [view for unit in self.units for view in unit.pixels]

    @property
    def features_ND(self) -> NDArray[np.float32]:
        """Of each view, from torch in float32."""
        return np.concatenate([unit.features for unit in self.units])

    def part(self, wanted_U: NDArray[np.bool_]) -> _Images:
        """Return those of some units."""
        of_view = np.repeat(wanted_U, [len(unit.pixels) for unit in self.units])
        return _Images(
            tuple(unit for unit, is_wanted in zip(self.units, wanted_U, strict=True) if is_wanted),
            tuple(modality for modality, is_wanted in zip(self.modalities, of_view, strict=True) if is_wanted),
        )


def calibrate_backends(
    model: Model,
    images: Sequence[NamedImage],
    options: ScoreOptions,
    backends: Sequence[BackendKind],
    settings: Settings,
    progress: Progress,
    *,
    run_images: int = RUN_IMAGES,
    ends_s: float | None = None,
    began_s: float | None = None,
) -> tuple[Calibration, bytes | None]:
    """Measure what back-ends do to a model's scores, and how fast they are, and choose one.

    Args:
        model: Model that is loaded, on the CPU.
        images: Images that are measured on, as the model will see them.
        options: Tasks, prompts, modality of images that name none.
        backends: Back-ends to try; the reference is tried always.
        settings: Limits and number of reading processes.
        progress: Progress bar of the calibration.
        run_images: Images that a run has: what a back-end costs each run before its first image is divided by them.
        ends_s: End of the calibration, as `processor_s` counts. A back-end that is not expected to be ready by then is
            left out; None tries all.
        began_s: Time of the beginning, by the clock; None for now.

    Returns:
        The calibration, without a folder, and the graph of its choice, None where that runs none.

    Raises:
        MedclipError: WRONG_USE where the pack has no question to compare answers of; NOTHING_TO_DO where fewer than
            `LEAST_IMAGES` images can be read.
    """
    began_s = processor_s() if began_s is None else began_s
    kinds, left_out = usable([BACKENDS[name] for name in dict.fromkeys((EAGER, *(kind.name for kind in backends)))])
    head_tasks = read_pack_texts(model.path, model.card)
    tasks = asked_tasks(model.card, options, head_tasks)
    check_words(model.path, model.card, tasks, head_tasks)
    if not tasks:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the card of the pack {model.name} lists no task, so there are no scores to compare.",
            hint="Name what is asked with --task or --prompt.",
        )
    only = options.modality or only_modality(model.card, head_tasks, model.preprocess)
    seen, patients = _read(model, images, only, settings, progress)
    tasks = tuple(question for question in tasks if any(map(question.fits_modality, set(seen.modalities))))
    if not tasks:
        raise MedclipError(
            Reason.WRONG_USE,
            "none of the pack's tasks is about these images.",
            hint="Name images of its modalities, or what is asked with --task or --prompt.",
        )
    judges_U = hold_out([patient or unit.sha256 for patient, unit in zip(patients, seen.units, strict=True)])
    choosing, judging = seen.part(~judges_U), seen.part(judges_U)
    examples = choosing.part(np.arange(len(choosing.units)) % _SCALES_FROM == 0)
    directions_ND = directions_of(Scorer(model), tasks, examples.features_ND, examples.modalities)
    trial = _Trial(model, tasks, _first_of(choosing, model.batch_size), examples, directions_ND, run_images, settings)
    trial.run(kinds, ends_s, left_out, progress)
    loaded, graphs = trial.loaded, trial.graphs
    candidates = _measure(trial.candidates, loaded, choosing, progress)
    choice, candidates = _choose(candidates, loaded, tasks, choosing, judging, run_images)
    graph = graphs.get(choice)
    calibration = Calibration(
        pack={"name": model.name, "version": str(model.card.version), "digest": pack_digest(model.path)},
        medclip=__version__,
        cpu=cpu_name(),
        flags=tuple(sorted(cpu_flags())),
        versions=BACKENDS[choice].versions(),
        batch_size=model.batch_size,
        num_images=len(seen.modalities),
        num_held_out=len(judging.modalities),
        num_patients=len({patient for patient in patients if patient}),
        num_held_out_patients=_num_known([patients[place] for place in np.flatnonzero(judges_U)]),
        images=hashlib.sha256("\n".join(sorted(unit.sha256 for unit in seen.units)).encode()).hexdigest(),
        tasks=tuple(dict.fromkeys(question.task.name for question in tasks)),
        choice=choice,
        candidates=candidates,
        left_out=left_out,
        run_images=run_images,
        graph="" if graph is None else hashlib.sha256(graph).hexdigest(),
        seconds=processor_s() - began_s,
    )
    return calibration, graph


def refuse_early(num_images: int, backends: Sequence[BackendKind]) -> None:
    """Refuse, before anything is loaded, a calibration that cannot be.

    Args:
        num_images: Images that it may read.
        backends: Back-ends that it would try.

    Raises:
        MedclipError: NOTHING_TO_DO for fewer images than `LEAST_IMAGES`; what `check_backend` raises of the first,
            where none of them can be used here.
    """
    if all(kind.lacking() for kind in backends):
        check_backend(backends[0])
    _refuse_few(num_images)


def _refuse_few(num: int, reasons: str = "") -> None:
    if num < LEAST_IMAGES:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"{count(num, 'image')} could be read{f' (others: {reasons})' if reasons else ''}; "
            f"a calibration needs {LEAST_IMAGES} or more.",
            hint="Name more images of the kind that will be scored, and --modality where files do not state it.",
        )


def _num_known(patients: Sequence[str]) -> int:
    """Return how many patients there are; 0 where one is not named."""
    return len(set(patients)) if all(patients) else 0


def spread_out(images: Sequence[NamedImage], num: int) -> list[NamedImage]:
    """Return at most so many images, evenly spaced in their order: the same ones for the same list."""
    if len(images) <= num:
        return list(images)
    return [images[int(place)] for place in np.linspace(0, len(images) - 1, num).round()]


def _read(
    model: Model, images: Sequence[NamedImage], otherwise: Modality | None, settings: Settings, progress: Progress
) -> tuple[_Images, list[str]]:
    """Read images; return those that can be, and the patient of each unit, "" where nothing names one."""
    patients = patients_of([image.path for image in images], [image.patient for image in images], settings)
    progress.stage("Reading images", len(images))
    with UnitReader(model, settings) as reader:
        units = reader.read(images, progress.step, otherwise=otherwise)
    problems = [unit.problem for unit in units if unit.problem is not None]
    patients = [patient for patient, unit in zip(patients, units, strict=True) if unit.problem is None]
    units = [unit for unit in units if unit.problem is None]
    reasons = {reason: sum(str(p.reason) == reason for p in problems) for reason in {str(p.reason) for p in problems}}
    modalities = tuple(Modality(unit.way.partition(":")[0]) for unit in units for _ in unit.pixels)
    _refuse_few(len(modalities), by_reason(reasons) if reasons else "")
    if reasons:
        progress.note(f"{count(len(problems), 'file')} could not be used: {by_reason(reasons)}.")
    return _Images(tuple(units), modalities), patients


def _first_of(choosing: _Images, batch_size: int) -> _Images:
    """Return evenly spaced units that give each back-end two batches at least, as far as there are so many."""
    num = min(len(choosing.units), max(FIRST_IMAGES, 2 * batch_size))
    places = np.linspace(0, len(choosing.units) - 1, num).round().astype(int)
    return choosing.part(np.isin(np.arange(len(choosing.units)), places))


class _Trial:
    """Loads back-ends one by one and tries each on a few images; what cannot be is left out and named.

    After `run`, `candidates` has all that were tried, and `loaded` and `graphs` those of them that may still be chosen.
    """

    def __init__(
        self,
        model: Model,
        tasks: Sequence[AskedTask],
        first: _Images,
        examples: _Images,
        directions_ND: NDArray[np.float32],
        run_images: int,
        settings: Settings,
    ) -> None:
        self._model, self._tasks, self._first = model, tasks, first
        self._examples, self._directions_ND = examples, directions_ND
        self._run_images, self._home = run_images, settings.home
        self._plain: bytes | None = None
        self.candidates: list[Candidate] = []
        self.loaded: dict[str, Model] = {}
        self.graphs: dict[str, bytes] = {}

    def run(
        self, kinds: Sequence[BackendKind], ends_s: float | None, left_out: dict[str, str], progress: Progress
    ) -> None:
        """Try back-ends while the processor's clock is not expected to pass `ends_s`; None is no end."""
        progress.stage("Trying back-ends", len(kinds))
        for kind in kinds:
            expected_s = kind.prepare_s + (EXPORT_S if kind.runs_graph and self._plain is None else 0.0)
            try:
                refuse_misfit(self._model, kind)
                if ends_s is not None and not kind.is_reference and processor_s() + expected_s > ends_s:
                    left_out[kind.name] = (
                        "--max-seconds leaves it no time; named with --candidate, it is tried all the same"
                    )
                else:
                    self._try(kind)
            except MedclipError as e:
                left_out[kind.name] = e.message
            progress.step()

    def _try(self, kind: BackendKind) -> None:
        if kind.runs_graph and self._plain is None:
            self._plain = kept_graph(self._model, BACKENDS["onnx"], pack_digest(self._model.path), self._home)
        graph = make_graph(
            self._model, kind, plain=self._plain, images=self._examples.views, directions_ND=self._directions_ND
        )
        began = processor_s()
        model = load_backend(self._model, kind, graph)
        candidate = self._look(kind, model, 0.0 if kind.is_reference else processor_s() - began)
        self.candidates.append(candidate)
        if not candidate.refused:
            self.loaded[kind.name] = model
            if graph is not None:
                self.graphs[kind.name] = graph

    def _look(self, kind: BackendKind, model: Model, start_s: float) -> Candidate:
        """Compare and time a back-end on the first images, batch by batch in turn with the reference."""
        pair = {EAGER: self.loaded.get(EAGER, model), kind.name: model}
        views = self._first.views
        seconds, features = _time(pair, views, max(2, -(-len(views) // model.batch_size)), lambda: None)
        change, least = _change_of(pair[EAGER], self._tasks, self._first, features[kind.name])
        eager_R, own_R = np.array(seconds[EAGER]), np.array(seconds[kind.name])
        cpu_ms, times_as_fast = 1000 * float(np.median(own_R)), float(np.median(eager_R / own_R))
        candidate = Candidate(
            kind.name,
            kind.bound,
            change.largest,
            change.where,
            change.decisions,
            change.ranks,
            least,
            cpu_ms,
            times_as_fast,
            start_s,
            change.refused(kind),
            num_images=len(views),
        )
        cost, eager_ms = cost_ms(candidate, self._run_images), cpu_ms * times_as_fast
        if candidate.refused or kind.is_reference or cost < eager_ms:
            return candidate
        return replace(candidate, refused=f"{cost:.1f} ms an image with its start, and torch {eager_ms:.1f}")


def _measure(
    candidates: Sequence[Candidate], loaded: Mapping[str, Model], seen: _Images, progress: Progress
) -> tuple[Candidate, ...]:
    """Time those that are left, all in turn; the others keep what their first images said."""
    progress.stage("Timing back-ends", ROUNDS + 1)
    seconds, _ = _time(loaded, seen.views, ROUNDS, progress.step)
    eager_R = np.array(seconds[EAGER])
    return tuple(
        replace(
            candidate,
            cpu_ms=1000 * float(np.median(seconds[candidate.name])),
            times_as_fast=float(np.median(eager_R / np.array(seconds[candidate.name]))),
        )
        if candidate.name in seconds
        else candidate
        for candidate in candidates
    )


def _change(model: Model, reference: Model, tasks: Sequence[AskedTask], seen: _Images) -> tuple[Change, float]:
    """Compare a back-end's answers with the reference's; return their change and the least cosine of vectors."""
    is_reference = model is reference
    features_ND = seen.features_ND
    if not is_reference:
        features_ND = np.concatenate(encode_units(model, [unit.pixels for unit in seen.units]))
    return _change_of(reference, tasks, seen, features_ND)


def _change_of(
    reference: Model, tasks: Sequence[AskedTask], seen: _Images, features_ND: NDArray[np.float32]
) -> tuple[Change, float]:
    scorer = Scorer(reference)
    expected_ND = seen.features_ND
    answers = (answer_all(scorer, tasks, features, seen.modalities) for features in (expected_ND, features_ND))
    cosines_N = (features_ND.astype(np.float64) * expected_ND).sum(axis=1)
    return compare_answers(*answers), min(1.0, float(cosines_N.min()))


def _choose(
    candidates: tuple[Candidate, ...],
    loaded: Mapping[str, Model],
    tasks: Sequence[AskedTask],
    choosing: _Images,
    judging: _Images,
    run_images: int,
) -> tuple[str, tuple[Candidate, ...]]:
    """Return the name of the fastest candidate that holds on all images, and what they said of each that was judged."""
    by_name = {candidate.name: candidate for candidate in candidates}
    while True:  # the reference changes nothing, and is left at the end
        held = [candidate for candidate in by_name.values() if not candidate.refused]
        fastest = min(cost_ms(candidate, run_images) for candidate in held)
        choice = next(candidate for candidate in held if cost_ms(candidate, run_images) * MARGIN <= fastest)
        model, kind = loaded[choice.name], BACKENDS[choice.name]
        change, least = _change(model, loaded[EAGER], tasks, choosing)
        choice = replace(
            choice,
            largest_change=change.largest,
            where=change.where,
            changed_decisions=change.decisions,
            changed_ranks=change.ranks,
            least_cosine=least,
            refused=change.refused(kind),
            num_images=len(choosing.modalities),
        )
        if not choice.refused:
            change, _ = _change(model, loaded[EAGER], tasks, judging)
            broken = change.refused(kind)
            choice = replace(
                choice,
                refused=f"on images held out {broken}" if broken else "",
                held_out=Judgement(change.largest, change.where, change.decisions, change.ranks),
            )
        by_name[choice.name] = choice
        if not choice.refused:
            return choice.name, tuple(by_name.values())


def _time(
    loaded: Mapping[str, Model], views: Sequence[Any], num_rounds: int, step: Callable[[], None]
) -> tuple[dict[str, list[float]], dict[str, NDArray[np.float32]]]:
    """Compute batches with each back-end in turn, on one thread, the order turned from batch to batch.

    Returns:
        For each back-end the processor time of an image in seconds for each round, and the features of the first views.
    """
    seconds: dict[str, list[float]] = {name: [] for name in loaded}
    features: dict[str, list[NDArray[np.float32]]] = {name: [] for name in loaded}
    size = next(iter(loaded.values())).batch_size
    with torch_threads(1):
        for number in range(-1, num_rounds):  # the first warms up
            batch = [views[(max(0, number) * size + place) % len(views)] for place in range(size)]
            turn = list(loaded.items())
            for name, model in turn if number % 2 else reversed(turn):
                normalised = model.normalise(batch)
                start = time.process_time()
                rows = model.encode_tensor(normalised)
                if number >= 0:
                    seconds[name].append((time.process_time() - start) / size)
                    features[name].append(rows)
            step()
    return seconds, {name: np.concatenate(rows)[: len(views)] for name, rows in features.items()}


def with_batch(model: Model, batch_size: int | None) -> Model:
    """Return a model that computes so many images in one pass; None leaves it as it is."""
    if batch_size is None:
        return model
    other = copy.copy(model)
    other.batch_size = batch_size
    return other
