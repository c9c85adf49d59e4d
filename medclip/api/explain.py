"""The verb `explain`: heat maps of what in an image moves the score of a prompt or of a class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups.asking import Chance, Questions, WithModel
from medclip.api.groups.reading import Believed, Limits, NamedModality, Policies
from medclip.api.groups.running import Device, OutFolder, Overwriting, Recipe, ReportPaths, Told, settings_of
from medclip.errors import MedclipError, Problem, Reason
from medclip.explaining.explainers import ALL, CHECKS, DEFAULTS, EXPLAINERS, NONE, QUICK, SCALES, ExplainOptions
from medclip.options import argument, option, options
from medclip.progress import Silent
from medclip.verbs import verb
from medclip.wording import count, duration, list_of, number

if TYPE_CHECKING:
    from medclip.explaining.explain_unit import Cost
    from medclip.explaining.explanation import Explained
    from medclip.inspecting.opened_study import OpenedUnit
    from medclip.models.model import Model
    from medclip.runs.planning.options import ScoreOptions
    from medclip.sample import Modality, ModalitySource
    from medclip.settings import Settings


MAX_UNITS = 500
"""More images, series and slides than these are a collection to score, not to look at one by one."""


def _level(value: Any) -> Any:
    """Refuse the switch that --checks was."""
    if isinstance(value, bool):
        raise ValueError(f"is one of {list_of(CHECKS)}: {(ALL if value else NONE)!r} for {value}")
    return value


@options
class HeatMapOptions(
    Told,
    Limits,
    Recipe,
    OutFolder,
    WithModel,
    Questions,
    NamedModality,
    Believed,
    Policies,
    Device,
    Chance,
    ReportPaths,
    Overwriting,
):
    """What `explain` is asked."""

    path: str | Path | Sequence[str | Path] = argument(
        "File or folder, or several. What cannot be read has its row and stops nothing, unless it is alone.",
        form="FILE...",
        kind=Path,
        place=True,
        present="file or folder",
    )
    task: str | Sequence[str] = option(
        "Class that is explained, as TASK:CLASS, or the most probable one of TASK. Default: without a prompt the most "
        "probable finding of the card's tasks.",
        default=(),
        form="TASK[:CLASS]",
        often=True,
        heading="What is asked",
    )
    contrast: bool = option(
        "Compare as the score does; or explain the logit of a prompt or class alone.",
        default=True,
        heading="What is asked",
    )
    method: str | None = option(
        f"How maps are computed. Default: {DEFAULTS['transformer']} for transformers, {DEFAULTS['convolution']} for "
        f"others, and {DEFAULTS['record']} for models of ECGs, which take no other.",
        default=None,
        choices=EXPLAINERS,
        often=True,
        heading="What is asked",
    )
    checks: str = option(
        "Which checks of the maps are made, on the image that carries most. Quick are random weights and the least "
        "related question, a map more each; all adds each block's weights, and insertion and deletion, which take some "
        "hundred passes more: for the maps that will be shown to others.",
        default=QUICK,
        choices=CHECKS,
        read=_level,
        often=True,
        heading="What is asked",
    )
    scale: str = option(
        "What the strongest colour is: the largest value of each prompt's own maps, or of all in common.",
        default="own",
        choices=SCALES,
        heading="Output",
    )


@verb(HeatMapOptions)
def explain(options: HeatMapOptions) -> Explained:
    """Show what in an image moves a score: heat maps in its own coordinates, and whether to believe them.

    Transformers are read by gradient-weighted attention, convolutional towers by Grad-CAM. What is explained is what
    scoring computes: the logit of a prompt less that of its opposite, or the logit of a class as the pack's head has
    it. A map is model attention evidence. It is no localisation, and it does not say why. The folder gets explain.html,
    explain.json, an overlay and the arrays of each unit.

    Returns:
        One entry for each image, series, slide or record, with `.maps`; in a notebook it shows its overlays.

    Raises:
        MedclipError: What is wrong with the only file; WRONG_USE for a task, class, method or device that there is not;
            NOTHING_TO_DO, OUTPUT_IN_USE, NOT_SUPPORTED_YET for a tower that is not understood, and what loading a model
            raises.

    Example:
        >>> import medclip
        >>> maps = medclip.explain("examples/studies/chest_pa.dcm", prompt="pleural effusion", checks="none")
        >>> maps.maps[0]["pleural effusion against no pleural effusion"][0].shape
        (512, 512)
    """
    from medclip.errors import refuse_missing
    from medclip.models.devices import check_device
    from medclip.models.packs.pack import find_pack
    from medclip.runs.planning.options import ScoreOptions, parse_modality
    from medclip.text.vocabulary.own_words import read_prompts

    path = options.path
    roots = [Path(path)] if isinstance(path, (str, os.PathLike)) else [Path(one) for one in path]
    for root in roots:
        refuse_missing(root)
    asked = ScoreOptions(prompts=read_prompts(options.prompt, options.against), min_confidence=options.min_confidence)
    folder = None if options.out is None else Path(options.out)
    if folder is not None:
        _claim(folder, roots, options.overwrite)
    check_device(options.device)
    find_pack(options.model)
    units = list(_units(roots, parse_modality(options.modality), settings_of(options)))
    explained = _explained(units, options, asked)
    if len(explained) == 1 and (problem := explained[0].problem) is not None:
        raise problem.error(roots[0])
    if folder is None:
        return explained
    from medclip.reports.explain import write_explained

    return write_explained(explained, folder, show_paths=options.report_paths)


def _claim(folder: Path, roots: Sequence[Path], overwrite: bool) -> None:
    from medclip.files.output import claim_folder, in_use

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
    units: Sequence[tuple[str, OpenedUnit | Problem]], options: HeatMapOptions, asked: ScoreOptions
) -> Explained:
    """Explain units one by one; where the caller names their modality, a photograph may be explained as a film."""
    from medclip.explaining.explain_unit import explain_unit, measure_cost
    from medclip.explaining.explanation import Explained, Explanation, padding_notes
    from medclip.explaining.seen import read_seen
    from medclip.files.readers.pool import ReadingPool
    from medclip.models.packs.manifest import pack_digest
    from medclip.models.packs.pack import load_model
    from medclip.runs.units.problems import in_colour
    from medclip.scoring.targets import Targets
    from medclip.scoring.tasks import KnownModality

    settings, progress, model = settings_of(options), options.progress or Silent(), options.model
    loaded = load_model(model, device=options.device) if isinstance(model, (str, Path)) else model
    named = (options.task,) if isinstance(options.task, str) else tuple(options.task)
    targets = Targets(loaded, asked, named, contrast=options.contrast)
    form = ExplainOptions(options.method, options.checks, options.scale, options.seed)
    modalities = KnownModality(loaded, options.min_confidence)
    rows = []
    is_cost_due = options.progress is not None
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
                is_unnamed = options.modality is None
                if seen.coloured and is_unnamed and (problem := in_colour(known, _who_says(unit))) is not None:
                    raise problem.error(None)
                if is_cost_due:
                    num = sum(not isinstance(one, Problem) for _, one in units)
                    measured = measure_cost(loaded, seen, targets, form)
                    progress.note(_cost_in_words(*measured, len(seen.images), num, form))
                    is_cost_due = False
                rows.append(explain_unit(loaded, seen, targets, form, row=number_, file=name))
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


def _cost_in_words(cost: Cost, num_scores: int, num_images: int, num_units: int, form: ExplainOptions) -> str:
    """Return what all units are expected to take, each with as many images as the first, by each kind of checks."""
    seconds = {checks: duration(num_units * cost.seconds(num_images, num_scores, checks)) for checks in CHECKS}
    others = ", ".join(f"--checks {checks} {seconds[checks]}" for checks in CHECKS if checks != form.checks)
    maps = count(num_units * num_images * num_scores, "map")
    return f"About {seconds[form.checks]} for {maps} with --checks {form.checks} ({others}), by the first image."


def _who_says(unit: OpenedUnit) -> ModalitySource:
    from medclip.sample import ModalitySource

    return ModalitySource.PACK if unit.modality is None else ModalitySource.HEADER


def _passed_over(model: Model, modality: str, kind: str) -> str:
    """Return that a run passes such units over where the model was trained on others of their modality; else blank."""
    from medclip.adapters.registry import slot
    from medclip.sample import Kind, Modality, spoken
    from medclip.scoring.cautions import modality_unlearned

    ways = model.preprocess.adapters
    if modality_unlearned(modality, model.card.modalities) or kind == Kind.IMAGE:
        return ""
    if not ways or slot(Modality(modality), Kind(kind)) in ways:
        return ""
    return f"The model was not trained on {spoken(modality)} {kind}s; medclip score passes them over."


_STOPS = frozenset({Reason.OUT_OF_MEMORY, Reason.WRONG_USE})
"""Reasons that are of the call and no file."""
