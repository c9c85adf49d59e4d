"""From a finished run to a pack: weights, tokenizer, preprocessing, and a card that says where it all came from."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.adapters.registry import adapter_names
from medclip.errors import MedclipError
from medclip.imaging.perceptual_hash import hash_images, hash_lines
from medclip.models.interchange.start_trunk import names_a_pack
from medclip.models.packs.card import (
    ANCESTORS,
    IMAGE_TOWER_OF,
    STARTED_FROM,
    Card,
    Source,
    training_hashes,
    training_patients,
)
from medclip.models.packs.card_citations import Citation, united
from medclip.models.packs.manifest import pack_digest, weights_digest
from medclip.models.packs.pack import find_pack, pack_card, save_pack
from medclip.models.towers.rotary_text import describe_positions
from medclip.training.recipe.schema import Recipe
from medclip.version import __version__

if TYPE_CHECKING:
    from torch import nn

    from medclip.models.inputs.preprocess import Preprocess
    from medclip.shards.reading.samples import ShardReader

TRAIN_HASHES, PATIENT_HASHES, IMAGE_HASHES = "train_hashes.txt", "patient_hashes.txt", "image_hashes.txt"


def export_pack(
    folder: Path,
    recipe: Recipe,
    model: nn.Module,
    config: dict[str, Any],
    tokenizer: Path | None,
    reader: ShardReader,
    steps: int,
    preprocess: Preprocess,
    base: Path | None = None,
) -> Path:
    """Write the pack of a run.

    Args:
        folder: Folder of the pack.
        recipe: Recipe of the run; its name, version and card fields go into the card.
        model: Model with the weights to ship.
        config: The model's `model_cfg`.
        tokenizer: Tokenizer folder; None for an image tower alone.
        reader: The training split: its sources, file and patient hashes go into the pack.
        steps: Steps trained.
        preprocess: Size, normalisation, and the adapters' hashes.
        base: Folder that a relative `hf_model_name` of the config starts from.
    """
    files: dict[tuple[str, str], set[str]] = defaultdict(set)
    patients: dict[tuple[str, str], set[str]] = defaultdict(set)
    unnamed: set[tuple[str, str]] = set()
    seen: set[str] = set()
    for row in reader.provenance():
        source = str(row["source"] or "unnamed"), str(row["license"] or "none stated")
        files[source].update(row["files"])
        patients[source].update([row["patient"]] if row["patient"] else ())
        unnamed.update(() if row["names_patient"] else [source])
        seen.update([row["modality"]] if row["modality"] else ())
    read = {way.partition(":")[0] for way in preprocess.adapters}
    before = _pack_before(recipe)
    inherited = [] if before is None else _inherited(pack_card(before))
    card = Card.model_validate(
        {
            # Not those with an adapter that the weights have seen in the generic rendering only: scoring would use it.
            "modalities": sorted(m for m in seen if m in read or m not in adapter_names()),
            "data": [
                Source(
                    name=name,
                    licence=licence,
                    num_images=len(files[name, licence]),
                    num_patients=None if (name, licence) in unnamed else len(patients[name, licence]),
                )
                for name, licence in sorted(files)
            ]
            + inherited,
            "licence": "" if before is None else pack_card(before).licence,
            "created_from": {
                "recipe": recipe.digest(),
                "seed": recipe.seed,
                "decode": recipe.data.decode,
                "steps": steps,
                "shards": hashlib.sha256("".join(reader.shard_hashes).encode()).hexdigest(),
                "medclip": __version__,
            }
            | _origin(recipe, before)
            | ({"text_positions": positions} if (positions := describe_positions(config)) else {}),
            **recipe.card,
            "citations": united([*_cited(recipe), *_cited_before(recipe, before)]),
            "name": recipe.name,
            "version": recipe.version,
            "train_hashes_file": TRAIN_HASHES,
            "patient_hashes_file": PATIENT_HASHES,
            "image_hashes_file": IMAGE_HASHES if recipe.train.image_hashes else None,
        }
    )
    of_before = _lists_of(before)
    lists = {
        TRAIN_HASHES: sorted(of_before[0].union(*files.values())),
        PATIENT_HASHES: sorted(of_before[1].union(*patients.values())),
    }
    if recipe.train.image_hashes:
        lists[IMAGE_HASHES] = _image_hashes(reader)
    return save_pack(
        folder,
        model,
        tokenizer,
        preprocess,
        card,
        config=config,
        base=base,
        extra_files={name: "".join(f"{line}\n" for line in lines).encode() for name, lines in lists.items()},
        parents=() if before is None else (before,),
    )


def pretrained_on(recipe: Recipe) -> frozenset[str]:
    """Return the hashes of the files and patients that the image tower of `model.image_weights` was trained on.

    Those of `model.start` are not among them: it had learned from captions or labels, so that they count as training.
    """
    if recipe.model.start is not None:
        return frozenset()
    return frozenset().union(*_lists_of(_pack_before(recipe)))


def _pack_before(recipe: Recipe) -> Path | None:
    """Return the pack that the run began with, or whose image tower it began with; None for none."""
    m = recipe.model
    weights = m.lens.trunk if m.lens is not None else m.start if m.start is not None else m.image_weights
    return find_pack(weights) if weights is not None and names_a_pack(weights) else None


def _origin(recipe: Recipe, before: Path | None) -> dict[str, Any]:
    """Return what `created_from` says of the pack that the run began with."""
    if before is None:
        return {}
    card = pack_card(before)
    name = f"{card.name} ({pack_digest(before)[:12]})"
    if recipe.model.start is None:
        return {IMAGE_TOWER_OF: name}
    return {STARTED_FROM: name, ANCESTORS: [*card.created_from.get(ANCESTORS, ()), weights_digest(before)]}


def _inherited(card: Card) -> list[Source]:
    return [source.model_copy(update={"name": _by_way_of(source.name, card)}) for source in card.data]


def _by_way_of(name: str, card: Card) -> str:
    return f"{name}, by way of {card.name}"


def _cited(recipe: Recipe) -> list[Citation]:
    """Return the works that the recipe's card names."""
    return [Citation.model_validate(one) for one in recipe.card.get("citations", ())]


def _cited_before(recipe: Recipe, before: Path | None) -> list[Citation]:
    """Return the works of the pack that the run began with, and how that one is to be cited."""
    if before is None:
        return []
    card, digest = pack_card(before), pack_digest(before)
    start = IMAGE_TOWER_OF if recipe.model.start is None else STARTED_FROM
    return [
        one.model_copy(update={"of": tuple(_by_way_of(name, card) for name in one.of)})
        if one.of
        else one.of_ancestor(start, version=card.version, digest=digest)
        for one in card.citations
    ]


def _lists_of(pack: Path | None) -> tuple[frozenset[str], frozenset[str]]:
    if pack is None:
        return frozenset(), frozenset()
    card = pack_card(pack)
    return training_hashes(pack, card) or frozenset(), training_patients(pack, card) or frozenset()


def _image_hashes(reader: ShardReader) -> list[str]:
    """Hash the image of every sample, each different hash once, in an order that says nothing; 1 to 2 ms each.

    Samples that cannot be read were not learned from either.
    """
    lines: set[str] = set()
    for i in range(len(reader)):
        try:
            for image in reader.images(reader.members(i)):
                lines.update(hash_lines(hash_images([np.asarray(image.convert("L"))])))
        except MedclipError:  # damaged, as the log of the run says; or smaller than 8 pixels
            continue
    return sorted(lines)
