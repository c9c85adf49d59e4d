"""Calibrate the back-ends of a pack: the fastest on this machine of those that leave its scores as they are.

Half of the images choose: every back-end computes them, and what breaks its bound is out. The fastest of the others is
judged on the other half, patients apart where they are known; what breaks its bound there is out as well, and the next
is judged. The largest change over the images that chose is the least of several largest changes, and says too little
of others.
"""

from __future__ import annotations

import copy
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.pack.pack_head import read_pack_texts
from medclip.errors import MedclipError, Reason
from medclip.files.readers.pool import ReadingPool
from medclip.files.recognise.inspect import inspect_file
from medclip.models.backends.backend_calibration import Calibration, Candidate, Judgement, cost_ms
from medclip.models.backends.known import BACKENDS, EAGER, BackendKind, cpu_flags, cpu_name, usable
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

    Returns:
        The calibration, without a folder, and the graph of its choice, None where that runs none.

    Raises:
        MedclipError: WRONG_USE where the pack has no question to compare answers of; NOTHING_TO_DO where fewer than
            `LEAST_IMAGES` images can be read.
    """
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
    kinds, left_out = usable([BACKENDS[name] for name in dict.fromkeys((EAGER, *(kind.name for kind in backends)))])
    judges_U = hold_out([patient or unit.sha256 for patient, unit in zip(patients, seen.units, strict=True)])
    choosing, judging = seen.part(~judges_U), seen.part(judges_U)
    examples = choosing.part(np.arange(len(choosing.units)) % _SCALES_FROM == 0)
    directions_ND = directions_of(Scorer(model), tasks, examples.features_ND, examples.modalities)
    loaded, graphs, start_s = _load(model, kinds, examples, directions_ND, left_out, progress)
    candidates = _measure(loaded, tasks, choosing, start_s, progress)
    choice, candidates = _choose(candidates, loaded, tasks, judging, run_images)
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
        run_images=run_images if start_s else 0,
        graph="" if graph is None else hashlib.sha256(graph).hexdigest(),
    )
    return calibration, graph


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
    if len(modalities) < LEAST_IMAGES:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"{count(len(modalities), 'image')} could be read{f' (others: {by_reason(reasons)})' if reasons else ''}; "
            f"a calibration needs {LEAST_IMAGES} or more.",
            hint="Name more images of the kind that will be scored, and --modality where files do not state it.",
        )
    if reasons:
        progress.note(f"{count(len(problems), 'file')} could not be used: {by_reason(reasons)}.")
    return _Images(tuple(units), modalities), patients


def _load(
    model: Model,
    kinds: Sequence[BackendKind],
    examples: _Images,
    directions_ND: NDArray[np.float32],
    left_out: dict[str, str],
    progress: Progress,
) -> tuple[dict[str, Model], dict[str, bytes], dict[str, float]]:
    """Load the model with each back-end; what cannot be is left out and named.

    Returns:
        Models, graphs, and the seconds of processor time that compiling took, here and in the compiler.
    """
    progress.stage("Preparing back-ends", len(kinds))
    loaded: dict[str, Model] = {}
    graphs: dict[str, bytes] = {}
    start_s: dict[str, float] = {}
    plain: bytes | None = None
    for kind in kinds:
        began = _processor_s()
        try:
            refuse_misfit(model, kind)
            if kind.runs_graph and plain is None:
                plain = make_graph(model, BACKENDS["onnx"])
            graph = make_graph(model, kind, plain=plain, images=examples.views, directions_ND=directions_ND)
            loaded[kind.name] = load_backend(model, kind, graph)
        except MedclipError as e:
            left_out[kind.name] = e.message
        else:
            if graph is not None:
                graphs[kind.name] = graph
            if kind.compiles:
                start_s[kind.name] = _processor_s() - began
        progress.step()
    return loaded, graphs, start_s


def _processor_s() -> float:
    """Return the processor time of this process and of those that it waited for: a clock would count other programs."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _measure(
    loaded: Mapping[str, Model],
    tasks: Sequence[AskedTask],
    seen: _Images,
    start_s: Mapping[str, float],
    progress: Progress,
) -> tuple[Candidate, ...]:
    progress.stage("Comparing scores", len(loaded))
    candidates = []
    for name, model in loaded.items():
        change, least = _change(model, loaded[EAGER], tasks, seen)
        candidates.append(
            Candidate(
                name,
                BACKENDS[name].bound,
                change.largest,
                change.where,
                change.decisions,
                change.ranks,
                least,
                0.0,
                1.0,
                start_s.get(name, 0.0),
                change.refused(BACKENDS[name]),
            )
        )
        progress.step()
    seconds = _time(loaded, seen.views, progress)
    eager_R = np.array(seconds[EAGER])
    return tuple(
        replace(
            candidate,
            cpu_ms=1000 * float(np.median(seconds[candidate.name])),
            times_as_fast=float(np.median(eager_R / np.array(seconds[candidate.name]))),
        )
        for candidate in candidates
    )


def _change(model: Model, reference: Model, tasks: Sequence[AskedTask], seen: _Images) -> tuple[Change, float]:
    """Compare a back-end's answers with the reference's; return their change and the least cosine of vectors."""
    scorer = Scorer(reference)
    expected_ND = seen.features_ND
    is_reference = model is reference
    features_ND = expected_ND if is_reference else np.concatenate(encode_units(model, [u.pixels for u in seen.units]))
    answers = (answer_all(scorer, tasks, features, seen.modalities) for features in (expected_ND, features_ND))
    cosines_N = (features_ND.astype(np.float64) * expected_ND).sum(axis=1)
    return compare_answers(*answers), min(1.0, float(cosines_N.min()))


def _choose(
    candidates: tuple[Candidate, ...],
    loaded: Mapping[str, Model],
    tasks: Sequence[AskedTask],
    judging: _Images,
    run_images: int,
) -> tuple[str, tuple[Candidate, ...]]:
    """Return the name of the fastest candidate that holds on the images held out, and what they said of each judged."""
    by_name = {candidate.name: candidate for candidate in candidates}
    while True:  # the reference changes nothing, and is left at the end
        held = [candidate for candidate in by_name.values() if not candidate.refused]
        fastest = min(cost_ms(candidate, run_images) for candidate in held)
        choice = next(candidate for candidate in held if cost_ms(candidate, run_images) * MARGIN <= fastest)
        change, _ = _change(loaded[choice.name], loaded[EAGER], tasks, judging)
        broken = change.refused(BACKENDS[choice.name])
        by_name[choice.name] = replace(
            choice,
            refused=f"on images held out {broken}" if broken else "",
            held_out=Judgement(change.largest, change.where, change.decisions, change.ranks),
        )
        if not broken:
            return choice.name, tuple(by_name.values())


def _time(loaded: Mapping[str, Model], views: Sequence[Any], progress: Progress) -> dict[str, list[float]]:
    """Return the processor time of an image in seconds for each round of each back-end, one thread, all in turn."""
    progress.stage("Timing back-ends", ROUNDS + 1)
    seconds: dict[str, list[float]] = {name: [] for name in loaded}
    size = next(iter(loaded.values())).batch_size
    with torch_threads(1):
        for number in range(ROUNDS + 1):
            batch = [views[(number * size + place) % len(views)] for place in range(size)]
            for name, model in loaded.items():
                normalised = model.normalise(batch)
                start = time.process_time()
                model.encode_tensor(normalised)
                seconds[name].append((time.process_time() - start) / size)
            progress.step()
    return {name: values[1:] for name, values in seconds.items()}  # the first warms up


def with_batch(model: Model, batch_size: int | None) -> Model:
    """Return a model that computes so many images in one pass; None leaves it as it is."""
    if batch_size is None:
        return model
    other = copy.copy(model)
    other.batch_size = batch_size
    return other
