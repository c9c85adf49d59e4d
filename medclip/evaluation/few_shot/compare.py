"""Compare ways of adapting a model to a few labelled studies: all on the same shots, by patient, with intervals.

K shots are K patients of each class. The test patients are fixed once; shots and initialisations vary apart, each with
seeds of its own; whatever a method chooses, it chooses on its shots or on a few further patients, never on the test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.table import TableSource
from medclip.adaptation.data.unit_features import targets_of
from medclip.adaptation.methods import METHODS
from medclip.embeddings.embeddings_reader import needs_images, open_for
from medclip.embeddings.open_embeddings import is_embeddings
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.evaluation.few_shot.comparison import Comparison, Drawing
from medclip.evaluation.few_shot.labelled_data import FewShotData, base_identity, examples_through, prepare, table_name
from medclip.evaluation.few_shot.method_run import (
    COMPARISON,
    IDENTITY,
    Job,
    Place,
    Run,
    RunStore,
    run_job,
    run_there,
    save_examples,
    write_tables,
)
from medclip.evaluation.few_shot.protocol import NOVEL, Design, Protocol, RunKey, Variant, make_protocol, pack_baseline
from medclip.evaluation.few_shot.summary import (
    cells_of,
    confusion_of,
    costs_of,
    deviations_by_method,
    differences_of,
    failures_of,
    novel_of,
    runs_of,
    span,
    values_of,
)
from medclip.evaluation.word_control import measure_task_words
from medclip.files.output import check_run, digest_of
from medclip.files.pseudonyms import load_key
from medclip.files.readers.pool import ReadingPool
from medclip.files.temporary_folder import TemporaryFolder
from medclip.models.devices import check_device
from medclip.models.packs.card import training_hashes
from medclip.models.packs.word_control import WordControl
from medclip.progress import Progress, Silent
from medclip.settings import Settings
from medclip.statistics.estimate import NUM_RESAMPLES
from medclip.statistics.resampling.weights import draw_weights
from medclip.wording import count, list_of

if TYPE_CHECKING:
    from medclip.models.model import Model


_FEWEST_CLASSES = 4
"""For base-to-novel: two of each, or there is nothing to tell apart."""
_LONG_S = 7 * 24 * 3600.0


@dataclass(frozen=True, eq=False)
class Compared:
    """A comparison, and the data it was made on, which a page takes its images from."""

    result: Comparison
    data: FewShotData


@dataclass(frozen=True, eq=False)
class Learner:
    """A model, and the examples with the features that it makes of them."""

    model: Model
    examples: Examples


def compare_methods(
    model: str | Path | Model,
    source: TableSource,
    design: Design,
    *,
    out: Path,
    test_share: float,
    seed: int = 0,
    num_workers: int = 1,
    device: str = "cpu",
    key_file: Path | None = None,
    num_replicates: int = NUM_RESAMPLES,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Compared:
    """Fit every method on the same shots and measure it on the same test patients, as `medclip.compare` says.

    Returns:
        Figures with intervals, and the data that a page takes its images from.
    """
    from medclip.models.packs.pack import find_pack, load_model, read_preprocess
    from medclip.models.packs.words import understands_words

    settings, progress, folder = settings or Settings(), progress or Silent(), source.folder
    on = device if isinstance(model, str | Path) else model.device.type
    check_run(out, COMPARISON, base_identity(find_pack(model), on), IDENTITY)
    check_device(device)
    embeddings = (
        open_for(folder, find_pack(model), settings, key_file) if folder is not None and is_embeddings(folder) else None
    )
    read = source.read(load_key(settings, path=key_file), read_preprocess(model).modality)
    has_text = understands_words(find_pack(model)) if isinstance(model, str | Path) else model.has_text
    # From here on torch is needed, which takes seconds to import: what can be refused without it was refused above.
    packs = _packs_among(design.references)
    protocol = make_protocol(design, has_text=has_text, ordered=bool(read.text.steps), packs=packs)
    _check_novel(protocol, read.text)
    learners = [v.title for v in protocol.variants if v.entry.trains_towers]
    if embeddings is not None and learners:
        raise needs_images(f"{list_of(learners)} learn in the towers", ", or leave them out with --quick or --method")
    if embeddings is not None and packs:
        raise needs_images(f"the baseline {next(iter(packs))} makes vectors of its own")
    base = load_model(model, device=device)
    if design.methods is not None:  # of all methods, one that cannot run is a row of the failures
        for variant in protocol.variants:
            variant.entry.rehearse(base, read.text, variant.options)
    data = prepare(
        base,
        read,
        [(k, s) for k in protocol.drawn_shots for s in protocol.seeds],
        seed=seed,
        test_share=test_share,
        settings=settings,
        progress=progress,
        embeddings=embeddings,
        originals=source.originals,
    )
    store = RunStore(out, data.identity(base))
    of_base = Learner(base, data.examples)
    learners_of = {variant.label: of_base for variant in protocol.variants}
    for variant in packs.values():
        assert variant.pack is not None  # as `pack_baseline` makes them
        other = load_model(variant.pack, device=device)
        learners_of[variant.label] = Learner(other, examples_through(other, data, settings, progress))
    runs = _all_runs(learners_of, data, protocol, store, num_workers, progress)
    result = _result(base, data, protocol, runs, table_name(source.table), num_replicates)
    seen = [note for v in packs.values() for note in _trained_on_test(learners_of[v.label].model, data)]
    result = replace(result, notes=(*result.notes, *seen))
    write_tables(store, result, data, runs)
    return Compared(replace(result, folder=store.folder), data)


def _packs_among(references: Sequence[str]) -> dict[str, Variant]:
    """Return the references that are packs and no methods, each as what is compared."""
    from medclip.models.packs.pack import find_pack, pack_card

    packs: dict[str, Variant] = {}
    for reference in references:
        if reference.partition(":")[0] in METHODS:
            continue
        try:
            pack = find_pack(reference)
        except MedclipError as e:
            raise MedclipError(
                Reason.WRONG_USE,
                f"the baseline {reference!r} is neither a method nor a model pack.",
                hint=did_you_mean(reference, METHODS, "Methods are") + " A pack is made with medclip models import.",
            ) from e
        variant = pack_baseline(pack, pack_card(pack).name)
        if any(variant.label == other.label for other in packs.values()):
            raise MedclipError(
                Reason.WRONG_USE,
                f"two baselines are packs named {variant.pack_name}.",
                hint="Import one of them under another name: medclip models import --name NAME.",
            )
        packs[reference] = variant
    return packs


def _trained_on_test(model: Model, data: FewShotData) -> Iterator[str]:
    """Yield the note that a pack which is compared with was trained on test images, as far as it lists them."""
    hashes = training_hashes(model.path, model.card) or frozenset()
    if num_seen := sum(data.sha256[row] in hashes for row in data.test):
        yield f"The baseline {model.name} was trained on {num_seen} of the test images, so its figures are too high."


def _check_novel(protocol: Protocol, text: ClassText) -> None:
    if protocol.novel and (text.rules.independent or len(text.names) < _FEWEST_CLASSES):
        raise MedclipError(
            Reason.WRONG_USE,
            f"from base to novel classes takes a task with one answer and {_FEWEST_CLASSES} classes or more; this one "
            f"is {text.kind} with {len(text.names)}.",
            hint="Leave --base-to-novel out.",
        )


def _all_runs(
    learners: Mapping[str, Learner],
    data: FewShotData,
    protocol: Protocol,
    store: RunStore,
    num_workers: int,
    progress: Progress,
) -> dict[RunKey, Run]:
    keys = list(protocol.keys())
    jobs = {key: _job(data, protocol, key) for key in keys}
    runs = {key: store.kept(key, jobs[key].facts["asked"]) for key in keys}
    missing = [key for key in keys if runs[key] is None]
    progress.stage("Runs", len(keys), len(keys) - len(missing))
    for key, run in _computed(learners, [(k, jobs[k]) for k in missing], num_workers):
        runs[key] = store.keep(key, run)
        progress.step()
    return {key: run for key, run in runs.items() if run is not None}


def _job(data: FewShotData, protocol: Protocol, key: RunKey) -> Job:
    variant = protocol.variant(key.label)
    # A method that learns from nothing is given the smallest draw: every fit takes one.
    drawn = data.draws[(protocol.shots[0], protocol.seeds[0]) if variant.constant else (key.shots, key.seed)]
    text, test, novel_text, novel_test = data.text, data.test, None, ()
    train, val = drawn.train, drawn.val
    if key.part == NOVEL:
        num = num_base(data.text)
        text, novel_text = replace(text, names=text.names[:num]), replace(text, names=text.names[num:])
        train, val = (tuple(r for r in side if data.examples.targets[r] < num) for side in (train, val))
        test, novel_test = novel_sides(data)
    rows = {name: [data.unit(r).number for r in side] for name, side in (("train_rows", train), ("val_rows", val))}
    facts: dict[str, Any] = {
        **({"train_rows": [], "val_rows": []} if variant.constant else rows),
        "train_patients": 0 if variant.constant else data.num_patients(train),
        "notes": [] if variant.constant else list(drawn.notes),
    }
    learned = [] if variant.constant else [[data.sha256[r] for r in side] for side in (train, val)]
    arguments = [variant.method, dict(variant.options), key.shots, key.seed, key.init, learned, text.names]
    # Version 1 is not written, so that runs of before there were versions stay.
    arguments += [variant.version] * (variant.version > 1)
    if variant.pack is not None:
        arguments += [base_identity(variant.pack, "")["base"]]
    facts["asked"] = digest_of(arguments)
    return Job(variant.method, variant.options, text, train, val, test, key.init, facts, novel_text, novel_test)


def num_base(text: ClassText) -> int:
    """Count base classes: the first half in the task's order, rounded up."""
    return (len(text.names) + 1) // 2


def novel_sides(data: FewShotData) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the test units of base classes, and those of novel ones."""
    num, targets = num_base(data.text), data.examples.targets
    base = tuple(r for r in data.test if targets[r] < num)
    return base, tuple(r for r in data.test if targets[r] >= num)


def _computed(
    learners: Mapping[str, Learner], jobs: Sequence[tuple[RunKey, Job]], num_workers: int
) -> Iterator[tuple[RunKey, Run]]:
    """Do the jobs, here or in processes of their own, and give each when it is done."""
    if num_workers <= 1 or len(jobs) <= 1:
        for key, job in jobs:
            yield key, run_job(learners[key.label].model, learners[key.label].examples, job)
        return
    with TemporaryFolder("compare") as scratch:
        places: dict[str, Place] = {}
        for learner in dict.fromkeys(learners.values()):
            file = Path(scratch) / f"examples_{len(places)}.npz"
            save_examples(learner.examples, file)
            place = Place(str(learner.model.path), str(learner.model.device), str(file))
            places |= {label: place for label, other in learners.items() if other is learner}
        with ReadingPool(min(num_workers, len(jobs)), _LONG_S) as pool:
            doing: dict[Future[Run], tuple[RunKey, Job]] = {
                pool.submit(run_there, places[key.label], job): (key, job) for key, job in jobs
            }
            while doing:
                done, _ = wait(doing, return_when=FIRST_COMPLETED)
                for future in done:
                    key, job = doing.pop(future)
                    yield key, _answer(future.result, job)


def _answer(result: Callable[[], Run], job: Job) -> Run:
    try:
        return result()
    except MedclipError as e:
        died = e.reason is Reason.DECODER_CRASHED
        why = "Its process died, most likely for want of memory; use fewer --workers."
        message = why if died else e.problem().message
        return Run(None, None, {**job.facts, "reason": str(Reason.TOO_LARGE if died else e.reason), "message": message})


def _result(
    base: Model, data: FewShotData, protocol: Protocol, runs: dict[RunKey, Run], name: str, num_replicates: int
) -> Comparison:
    from medclip.version import __version__

    test = data.held_out()
    weights_PB = draw_weights(test.num_patients, num_replicates, seed=0)
    values = values_of(protocol, runs, test, weights_PB)
    last = protocol.shots[-1]
    novel = ()
    if protocol.novel:
        novel = novel_of(protocol, runs, test, num_base(data.text), num_replicates=num_replicates, seed=1)
    return Comparison(
        table=name,
        base=base.name,
        base_version=base.card.version,
        base_digest=data.identity(base)["base"],
        kind=data.text.kind,
        classes=data.text.names,
        titles={v.label: v.title for v in protocol.variants},
        shots=protocol.shots,
        averaged=protocol.averaged,
        seeds=protocol.seeds,
        inits=protocol.inits,
        references=protocol.references,
        num_replicates=num_replicates,
        primary=test.primary,
        measured=tuple(data.text.names[c] for c in test.measured()),
        counts={
            "train": _counts(data, data.division.train),
            "val": _counts(data, data.division.val),
            "test": _counts(data, [data.rows[r] for r in data.test]),
        },
        num_in_training=data.num_in_training,
        problems=data.problems,
        notes=(*_left_out(base), *_notes(data, protocol, runs, base.has_text)),
        drawings=tuple(_drawing(data, protocol, shots) for shots in protocol.shots),
        cells=cells_of(protocol, values),
        differences=differences_of(protocol, values),
        costs=costs_of(protocol, runs),
        deviations=deviations_by_method(protocol, runs),
        failures=failures_of(runs),
        confusions=tuple(
            confusion_of(data, v.label, last, runs_of_method)
            for v in protocol.variants
            if (runs_of_method := runs_of(runs, v, last))
        ),
        novel=novel,
        novel_classes=data.text.names[num_base(data.text) :] if protocol.novel else (),
        version=__version__,
        word_control=_word_control(base, data, num_replicates) if any(v.constant for v in protocol.variants) else {},
    )


def _word_control(base: Model, data: FewShotData, num_resamples: int) -> dict[str, WordControl]:
    modalities = {data.unit(r).modality for r in data.test}
    return measure_task_words(
        base,
        data.text,
        np.array([data.examples.features[r].mean(axis=0, dtype=np.float64) for r in data.test]),
        data.examples.targets[list(data.test)],
        [data.unit(r).patient for r in data.test],
        modalities.pop() if len(modalities) == 1 else None,
        num_resamples=num_resamples,
    )


def _counts(data: FewShotData, side: Sequence[int]) -> dict[str, int]:
    targets = targets_of([data.units[i].target for i in side], data.text)
    present = [(targets == 1)[:, c] if data.examples.multilabel else targets == c for c in range(len(data.text.names))]
    classes = {f"class:{name}": int(of_class.sum()) for name, of_class in zip(data.text.names, present, strict=True)}
    return {"images": len(side), "patients": len({data.units[i].patient for i in side}), **classes}


def _left_out(base: Model) -> tuple[str, ...]:
    """Return the sentence on the methods that an image-only base cannot be adapted with."""
    if base.has_text:
        return ()
    names = [m.title for m in METHODS.values() if m.needs_words]
    return (f"The base is image only. Left out, as they need the classes' words: {list_of(names)}.",)


def _notes(data: FewShotData, protocol: Protocol, runs: dict[RunKey, Run], has_text: bool) -> Iterator[str]:
    """Yield notes of the table, of the sampler with the K they are about, and of methods that found no gain."""
    reference = "the base's prompts" if has_text else "each class's share"
    yield from data.notes
    at: dict[str, set[int]] = {}
    for shots in protocol.shots:
        for seed in protocol.seeds:
            for note in data.draws[shots, seed].notes:
                at.setdefault(note, set()).add(shots)
    yield from (f"K = {', '.join(map(str, sorted(shots)))}: {note}" for note, shots in at.items())
    for variant in protocol.variants:
        of_method = [run for key, run in runs.items() if key.label == variant.label]
        against = "each class's share" if variant.pack is not None else reference
        if num := sum(bool(run.facts.get("no_better")) for run in of_method):
            yield (
                f"{variant.title}: in {num} of {count(len(of_method), 'run')} nothing that it tried came below the log "
                f"loss of {against} on held-back patients."
            )


def _drawing(data: FewShotData, protocol: Protocol, shots: int) -> Drawing:
    drawn = [data.draws[shots, seed] for seed in protocol.seeds]
    return Drawing(
        shots,
        span([len(d.train) for d in drawn]),
        span([data.num_patients(d.train) for d in drawn]),
        span([len(d.val) for d in drawn]),
    )
