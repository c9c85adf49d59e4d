"""The verb `explain`: heat maps of what in an image moves the score of a prompt or of a class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Problem, Reason
from medclip.explaining.methods import ExplainOptions
from medclip.explaining.result import Explained, padding_notes
from medclip.files.disk.input_paths import refuse_missing
from medclip.files.output import claim_folder, in_use
from medclip.models.devices import check_device
from medclip.progress import Progress, Silent
from medclip.runs.planning.options import ScoreOptions, parse_modality
from medclip.sample import Modality, ModalitySource
from medclip.settings import DEFAULT_MODEL, Settings
from medclip.text.vocabulary.own_words import Asked, read_prompts
from medclip.wording import number

if TYPE_CHECKING:
    from medclip.inspecting.opened_study import OpenedUnit
    from medclip.models.model import Model

MAX_UNITS = 500
"""More images, series and slides than these are a collection to score, not to look at one by one."""


def explain(
    path: str | Path | Sequence[str | Path],
    prompt: Asked = (),
    *,
    against: Asked = (),
    task: str | Sequence[str] = (),
    out: str | Path | None = None,
    model: str | Path | Model = DEFAULT_MODEL,
    modality: Modality | str | None = None,
    min_confidence: float = 0.8,
    method: str | None = None,
    contrast: bool = True,
    checks: bool = True,
    scale: str = "own",
    device: str = "cpu",
    seed: int = 0,
    report_paths: bool = False,
    overwrite: bool = False,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Explained:
    """Show what in an image moves a score: a heat map in the image's own coordinates, and whether to believe it.

    Transformers are read by gradient-weighted attention, convolutional towers by Grad-CAM. What is explained is what
    scoring computes: the logit of a prompt less that of its opposite, or the logit of a class as the pack's head has
    it. A map is model attention evidence. It is no localisation, and it does not say why.

    Args:
        path: File, folder, or several of them. What cannot be read has its row and stops nothing, unless it is alone.
        prompt: Sentence or sentences, as `medclip.score` takes them; several stand side by side.
        against: What each prompt is compared with; "no {prompt}" where none is given.
        task: Tasks, whose most probable class is explained, or a class as TASK:CLASS. Where neither a prompt nor a task
            is named: the most probable finding of the card's tasks.
        out: Folder for explain.html, explain.json, an overlay and the arrays of each unit; None writes nothing.
        model: Name or folder of a model pack, or a loaded model.
        modality: Modality of files whose header does not name it.
        min_confidence: Least probability at which an inferred modality is believed.
        method: gradient-attention, gradient-rollout, rollout, grad-cam, score-cam or gscore-cam; by default the first
            for transformers and grad-cam for others. A model of ECGs takes occlusion, and no other.
        contrast: False explains the logit of a prompt or class by itself, compared with nothing.
        checks: Sanity check by re-initialised weights, insertion and deletion, sensitivity to the prompt: they take
            some hundred passes of the image that carries most.
        scale: The strongest colour is the largest value of each prompt's "own" maps, or of all in "common".
        device: Torch device.
        seed: Of the random weights and orders of the checks.
        report_paths: Name files in the page; their names may identify patients.
        overwrite: Replace heat maps that are there already.
        settings: Limits and policy.
        progress: Told of each unit.

    Returns:
        One entry for each image, series, slide or record, with `.maps`; in a notebook it shows its overlays.

    Raises:
        MedclipError: What is wrong with the only file; WRONG_USE for a task, class, method or device that there is not;
            NOTHING_TO_DO, OUTPUT_IN_USE, NOT_SUPPORTED_YET for a tower that is not understood, and what loading a model
            raises.

    Example:
        >>> import medclip
        >>> maps = medclip.explain("examples/studies/chest_pa.dcm", "pleural effusion", checks=False)
        >>> maps.maps[0]["pleural effusion against no pleural effusion"][0].shape
        (512, 512)
    """
    roots = [Path(path)] if isinstance(path, (str, os.PathLike)) else [Path(p) for p in path]
    for root in roots:
        refuse_missing(root)
    named = (task,) if isinstance(task, str) else tuple(task)
    asked = ScoreOptions(prompts=read_prompts(prompt, against), min_confidence=min_confidence)
    options = ExplainOptions(method, checks, scale, seed)
    settings, progress, known = settings or Settings(), progress or Silent(), parse_modality(modality)
    folder = None if out is None else Path(out)
    if folder is not None:
        _claim(folder, roots, overwrite)
    check_device(device)
    from medclip.models.packs.pack import find_pack

    find_pack(model)
    units = list(_units(roots, known, settings))
    explained = _explained(
        units, named, asked, options, contrast, model, device, settings, progress, is_named=known is not None
    )
    if len(explained) == 1 and (problem := explained[0].problem) is not None:
        raise problem.error(roots[0])
    if folder is None:
        return explained
    from medclip.reports.explain.report import write_explained

    return write_explained(explained, folder, show_paths=report_paths)


def _claim(folder: Path, roots: Sequence[Path], overwrite: bool) -> None:
    inputs = {f"what is explained ({root.name})": root for root in roots}
    holds = claim_folder(folder, "folder of heat maps", marks=("explain.json",), inputs=inputs, in_one_step=True)
    if holds and not overwrite:
        remedy = "Name another folder, or replace them with --overwrite."
        raise in_use(folder, "this folder holds heat maps already", remedy)


def _units(
    roots: Sequence[Path], modality: Modality | None, settings: Settings
) -> Iterator[tuple[str, OpenedUnit | Problem]]:
    """Yield the name and the unit, or the problem, of all that is to be explained."""
    from medclip.inspecting.opened_study import find_units

    num = 0
    for root in roots:
        units, problems, _ = find_units(root, modality, settings)
        parent = root if root.is_dir() else root.parent
        rows = [(unit.source.paths[0], unit) for unit in units] + list(problems)
        if not rows:
            raise MedclipError(Reason.NOTHING_TO_DO, "there is no image here.", where=root, hint="Name another file.")
        num += len(rows)
        if num > MAX_UNITS:
            raise MedclipError(
                Reason.WRONG_USE,
                f"there are more than {number(MAX_UNITS)} images, series and slides here.",
                where=root,
                hint="Score them first, and explain those that matter.",
            )
        for place, what in rows:
            yield (place.relative_to(parent).as_posix() if place.is_relative_to(parent) else place.name), what


def _explained(
    units: Sequence[tuple[str, OpenedUnit | Problem]],
    named: Sequence[str],
    asked: ScoreOptions,
    options: ExplainOptions,
    contrast: bool,
    model: Any,
    device: str,
    settings: Settings,
    progress: Progress,
    *,
    is_named: bool,
) -> Explained:
    """Explain units one by one; where the caller names their modality, a photograph may be explained as a film."""
    from medclip.explaining.explanation import Explanation
    from medclip.explaining.run import explain_unit
    from medclip.explaining.seen import read_seen
    from medclip.files.readers.pool import ReadingPool
    from medclip.models.packs.manifest import pack_digest
    from medclip.models.packs.pack import load_model
    from medclip.runs.units.problems import in_colour
    from medclip.scoring.modality import KnownModality
    from medclip.scoring.targets import Targets

    loaded = load_model(model, device=device) if isinstance(model, (str, Path)) else model
    targets = Targets(loaded, asked, named, contrast=contrast)
    modalities = KnownModality(loaded, asked.min_confidence)
    rows = []
    progress.stage("Explaining", len(units))
    for note in targets.notes:
        progress.note(note)
    with ReadingPool.of(settings, 1) as pool:
        for number_, (name, unit) in enumerate(units, start=1):
            try:
                if isinstance(unit, Problem):
                    raise unit.error(None)
                known = unit.modality or modalities.stated
                if known is None:
                    generic = pool.submit(read_seen, unit.source, None, loaded.preprocess, settings).result()
                    known = modalities.infer(generic.kind, generic.images, coloured=generic.coloured)
                seen = pool.submit(read_seen, unit.source, known, loaded.preprocess, settings).result()
                if seen.coloured and not is_named and (problem := in_colour(known, _who_says(unit))) is not None:
                    raise problem.error(None)
                rows.append(explain_unit(loaded, seen, targets, options, row=number_, file=name))
            except MedclipError as error:
                if error.reason in _STOPS:
                    raise
                rows.append(Explanation(number_, name, problem=error.problem()))
            progress.step()
    explained = [row for row in rows if row.modality]
    kinds = dict.fromkeys((row.modality or "", row.kind) for row in explained)
    of_places = targets.place_notes(
        (row.modality or "", heat.task, heat.name) for row in explained for heat in row.maps
    )
    of_maps = (*of_places, *padding_notes(rows))
    notes = (*targets.notes, *of_maps, *(note for one in kinds if (note := _passed_over(loaded, *one))))
    for note in notes[len(targets.notes) :]:
        progress.note(note)
    return Explained(tuple(rows), f"{loaded.card.name} {loaded.card.version}", pack_digest(loaded.path), notes)


def _who_says(unit: OpenedUnit) -> ModalitySource:
    return ModalitySource.PACK if unit.modality is None else ModalitySource.HEADER


def _passed_over(model: Model, modality: str, kind: str) -> str:
    """Return that a run passes such units over where the model was trained on others of their modality; else blank."""
    from medclip.adapters.registry import slot
    from medclip.sample import Kind, spoken
    from medclip.scoring.unlearned import modality_unlearned

    ways = model.preprocess.adapters
    if modality_unlearned(modality, model.card.modalities) or kind == Kind.IMAGE:
        return ""
    if not ways or slot(Modality(modality), Kind(kind)) in ways:
        return ""
    return f"The model was not trained on {spoken(modality)} {kind}s; medclip score passes them over."


_STOPS = frozenset({Reason.OUT_OF_MEMORY, Reason.WRONG_USE})
"""Reasons that are of the call and no file."""
