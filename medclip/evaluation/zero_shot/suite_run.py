"""Measure a model pack zero-shot on a suite of labelled sets, as far as their data is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.embeddings.embeddings_reader import open_for, open_reader
from medclip.embeddings.open_embeddings import Embeddings, is_embeddings
from medclip.errors import MedclipError, Reason, refuse_missing
from medclip.evaluation.dense.masked_set import MaskedSet
from medclip.evaluation.zero_shot.compared_packs import compare_packs
from medclip.evaluation.zero_shot.figures import beside_card, measure_tasks
from medclip.evaluation.zero_shot.labelled_set import LabelledSet, TextSet
from medclip.evaluation.zero_shot.sensitivity import measure_negation
from medclip.evaluation.zero_shot.set_run import SetRun, figures_of_set, figures_of_texts
from medclip.evaluation.zero_shot.sets_here import find_sets, hold_out, images_in_several, moved, wanted_parts
from medclip.evaluation.zero_shot.suite import SuiteFile, load_suite, with_vocabulary
from medclip.evaluation.zero_shot.suite_result import (
    COMPARED,
    EVALUATION,
    RUN_NAME,
    SuiteResult,
    SuiteStore,
    UnusableSet,
    suite_result,
)
from medclip.files.output import check_run
from medclip.files.pseudonyms import load_key
from medclip.files.temporary_folder import TemporaryFolder
from medclip.models.devices import check_batch_size, check_device
from medclip.models.packs.card import measured_hashes, training_hashes
from medclip.models.packs.manifest import pack_digest
from medclip.progress import Progress, Silent
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.statistics.estimate import NUM_RESAMPLES

if TYPE_CHECKING:
    import pyarrow as pa

    from medclip.evaluation.dense.run import Probing
    from medclip.models.model import Model


@dataclass(frozen=True, eq=False)
class AskedPack:
    """A pack, and what it reads."""

    model: str | Path | Model
    images: str | Path | Embeddings | None = None
    """Embeddings by this pack, or their folder; or where images lie as the data names them. None: the data's own."""


@dataclass(frozen=True)
class Measuring:
    """How a pack is measured."""

    device: str = "cpu"
    batch_size: int | None = None
    """Images in one forward pass; the model's own where None."""
    num_resamples: int = NUM_RESAMPLES
    prompt_sensitivity: bool = False
    """Each wording of the prompts as well, and whether the text tower hears "no"."""


def evaluate_suite(
    asked_pack: AskedPack,
    suite: str | Path | SuiteFile,
    data: str | Path,
    measuring: Measuring,
    *,
    other: AskedPack | None = None,
    out: Path | None = None,
    sets: Sequence[str] = (),
    key_file: Path | None = None,
    settings: Settings,
    progress: Progress | None = None,
) -> SuiteResult:
    """Measure a model pack zero-shot, as `medclip.evaluate` says."""
    from medclip.models.packs.pack import find_pack, load_model, pack_card

    model, images = asked_pack.model, asked_pack.images
    device, num_resamples = measuring.device, measuring.num_resamples
    check_batch_size(measuring.batch_size)
    path = find_pack(model)
    card = pack_card(path)
    chosen = with_vocabulary(suite if isinstance(suite, SuiteFile) else load_suite(suite), card)
    root = Path(data)
    wanted_sets = wanted_parts(chosen, sets)
    identity = _identity(model, chosen)
    other_identity = None if other is None else _identity(other.model, chosen)
    if out is not None:
        check_run(out, EVALUATION, identity, RUN_NAME)
    check_device(device)
    progress = progress or Silent()
    embedded, base = None, root
    if isinstance(images, Embeddings) or (images is not None and is_embeddings(images)):
        embedded = open_for(images, find_pack(model), settings, key_file)
    elif images is not None:
        refuse_missing(images, "folder of images")
        base = Path(images)
    of_other = _vectors_of_other(other, embedded, settings, key_file, progress)
    records = TemporaryFolder("records")  # goes when this function ends
    sets_here, missing, unusable = find_sets(root, wanted_sets, load_key(settings, path=key_file), records.path)
    sets_here, nothing = hold_out([moved(one, root, base) for one in sets_here], measured_hashes(path, card))
    missing += nothing
    labelled_sets = [one for one in sets_here if isinstance(one, LabelledSet)]
    masked_sets = [one for one in sets_here if isinstance(one, MaskedSet)]
    not_asked = [part.id for part in (*chosen.sets, *chosen.texts, *chosen.masks) if part not in wanted_sets]

    def measured(
        pack: str | Path | Model,
        of_pack: Mapping[str, str],
        folder: Path | None,
        embedded: Embeddings | None,
        sensitivity: bool,
    ) -> tuple[SuiteResult, SuiteStore | None, dict[str, pa.Table]]:
        """Measure one of the packs over all sets."""
        loaded = load_model(pack, device=device)
        store = None if folder is None else SuiteStore(folder, of_pack)
        loaded.batch_size = batch = measuring.batch_size or loaded.batch_size
        results, tables = [], {}
        with open_reader(loaded, settings, embedded, root=root, originals=root) as reader:
            seen = training_hashes(loaded.path, loaded.card)
            made_of = [num_resamples, batch, device, settings.policy.changes()]
            made_of += [embedded.dtype] if embedded is not None and embedded.dtype != "float32" else []
            made_of += ["wordings"] if sensitivity else []
            of_several = images_in_several(sets_here)
            run = SetRun(loaded, seen, reader, num_resamples, progress, sensitivity, of_several, tuple(made_of), base)
            for labelled in labelled_sets:
                result, tables[labelled.part.id] = figures_of_set(run, labelled, store)
                results.append(result)
            of_texts = [figures_of_texts(run, one, store) for one in sets_here if isinstance(one, TextSet)]
        digest = of_pack["model_digest"]
        result = suite_result(chosen, results, missing, unusable, not_asked, model=loaded, model_digest=digest)
        parts = [labelled.part for labelled in labelled_sets]
        of_tasks = measure_tasks(parts, tables, loaded.card, num_resamples=num_resamples)
        of_card = beside_card(of_tasks, of_texts, loaded.card)
        result = replace(result, tasks=of_tasks, texts=tuple(of_texts), beside_card=of_card)
        if sensitivity and labelled_sets:
            modalities = dict.fromkeys(part.modality for part in parts if isinstance(part.modality, Modality))
            result = replace(result, negation=measure_negation(loaded, tuple(modalities)))
        return result, store, tables

    from medclip.evaluation.dense.run import Probing  # torch: what needs none was refused above

    probing = Probing(num_resamples, device, settings, progress, base)
    result, store, tables = measured(model, identity, out, embedded, measuring.prompt_sensitivity)
    if other is not None and other_identity is not None and labelled_sets:
        beside = None if out is None else out / COMPARED / other_identity["model_digest"]
        result_of_other, _, other_tables = measured(other.model, other_identity, beside, of_other, False)
        parts = [labelled.part for labelled in labelled_sets]
        by_group = chosen.average == "groups"
        compared = compare_packs(
            parts, tables, other_tables, result_of_other, num_resamples=num_resamples, by_group=by_group
        )
        result = replace(result, compared=compared)
    if masked_sets:
        result = _with_masks(result, asked_pack, other, other_identity, masked_sets, store, measuring, probing)
    if store is None:
        return result
    store.finish(result.to_json(), [s.id for s in result.sets], [one.id for one in result.dense])
    return replace(result, folder=store.folder)


def _vectors_of_other(
    other: AskedPack | None, embedded: Embeddings | None, settings: Settings, key_file: Path | None, progress: Progress
) -> Embeddings | None:
    """Return the embeddings that the other pack is measured on; None where it reads images, or there is no other.

    Args:
        other: The other pack, and the embeddings that were named for it.
        embedded: Embeddings of the first pack, which are the other's own, too, where both have one image tower.
        settings: Settings, as in `open_for`.
        key_file: File of the identity key, as in `open_for`.
        progress: Progress that notes where images are read beside embeddings.

    Raises:
        MedclipError: WRONG_USE for embeddings of another pack.
    """
    from medclip.models.packs.pack import find_pack

    if other is None:
        return None
    if other.images is not None:
        return open_for(other.images, find_pack(other.model), settings, key_file)
    if embedded is None:
        return None
    try:
        return open_for(embedded, find_pack(other.model), settings, key_file)
    except MedclipError as e:
        if e.reason is not Reason.WRONG_USE:
            raise
        progress.note(
            "The pack to compare with has another image tower than these embeddings are of: it reads the images. Name "
            "its own embeddings with --compare-images."
        )
        return None


def _identity(model: str | Path | Model, suite: SuiteFile) -> dict[str, str]:
    """Return what a folder of results is about; a pack without words is refused."""
    from medclip.models.packs.pack import find_pack, pack_card
    from medclip.models.packs.words import no_words, understands_words

    pack = find_pack(model)
    name = pack_card(pack).name
    if (suite.sets or suite.texts) and not understands_words(pack):
        raise no_words(name, ", and what is measured here are answers to prompts")
    facts = {"suite": suite.name, "suite_digest": suite.digest()}
    return {"model": name, "model_digest": pack_digest(pack)[:16], **facts}


def _with_masks(
    result: SuiteResult,
    asked_pack: AskedPack,
    other: AskedPack | None,
    other_identity: Mapping[str, str] | None,
    masked_sets: Sequence[MaskedSet],
    store: SuiteStore | None,
    measuring: Measuring,
    probing: Probing,
) -> SuiteResult:
    """Return a result with what was measured of images with masks."""
    from medclip.evaluation.dense.run import probe_sets
    from medclip.models.packs.pack import load_model

    def loaded(pack: AskedPack) -> Model:
        model = load_model(pack.model, device=measuring.device)
        model.batch_size = measuring.batch_size or model.batch_size
        return model

    beside = None
    if other is not None and other_identity is not None:
        beside = loaded(other), other_identity["model_digest"]
    dense, failed, notes = probe_sets(loaded(asked_pack), beside, masked_sets, probing, store)
    unusable = [UnusableSet(one.part.id, one.part.group, str(e.reason), str(e)) for one, e in failed]
    notes += [f"Unusable: {one.id}  {one.message}" for one in unusable]
    return replace(
        result,
        dense=tuple(dense),
        unusable=(*result.unusable, *unusable),
        notes=(*result.notes, *notes),
    )
