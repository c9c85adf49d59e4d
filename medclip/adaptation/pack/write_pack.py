"""From an adapted model to a pack: the base's files, its weights where they changed, the head, and an honest card.

Where it goes is looked at before anything is read or learned.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.adaptation.data.unit_features import ways_said
from medclip.adaptation.pack.adapted_model import (
    CHECKPOINT,
    DESCRIPTION,
    REPLACE,
    check_checkpoint,
    num_in_training,
    seen_by_base,
)
from medclip.adaptation.pack.pack_head import HEAD_FILE, SHOTS_FILE, TASK_FILE
from medclip.adapters.model_images import DRAWN, DRAWN_OF
from medclip.adapters.registry import preprocessing_of
from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_folder, new_folder, read_note, refuse_other, write_file
from medclip.models.packs.card import ADAPTED_FROM, Adaptation, Card, Source, TaskCard, read_card
from medclip.models.packs.card import FILE_NAME as CARD_FILE
from medclip.models.packs.manifest import FILE_NAME as MANIFEST
from medclip.models.packs.manifest import WEIGHTS_NAME, pack_digest, read_manifest, seal
from medclip.models.packs.pack import save_weights
from medclip.models.prototypes import home_images, open_set, sentence_vectors
from medclip.text.vocabulary.find_task import to_yaml
from medclip.version import __version__
from medclip.wording import count

if TYPE_CHECKING:
    from medclip.adaptation.pack.adapted_model import Adapted, Draw


def check_places(
    out: Path | None,
    checkpoint: Path | None,
    base: Path,
    *,
    method: str,
    draw: Draw,
    options: Mapping[str, Any],
    replace: bool,
) -> None:
    """Refuse folders that the pack and the checkpoint of this adaptation cannot go to.

    What only learning tells (the task, the shots, settings that are chosen) is compared again when they are written.

    Args:
        out: Folder of the pack; None where none is written.
        checkpoint: Folder of the checkpoint; None where none is written.
        base: The base's folder.
        method: Name of the method.
        draw: Way in which shots are drawn.
        options: Options of the method, as given.
        replace: Whether any pack or checkpoint that lies there is replaced.

    Raises:
        MedclipError: WRONG_USE for places that are no folder, or of which one lies in another; OUTPUT_IN_USE.
    """
    if out is not None:
        check_place(out, base)
    if checkpoint is not None:
        check_checkpoint(checkpoint)
    _apart({"the base": base, "--out": out, "--checkpoint": checkpoint})
    if replace:
        return
    digest = pack_digest(base) if (base / MANIFEST).is_file() else None
    drawn = {"shots": draw.shots, "seed": draw.seed, "init_seed": draw.init_seed}
    if out is not None and (out / MANIFEST).is_file():
        present = adaptation_in(out)
        asked = {"base_digest": digest, "method": method, **drawn, **_settings(options, present)}
        refuse_other(out, "model pack", present, asked, titles=TITLES, remedy=REPLACE)
    if checkpoint is not None and (checkpoint / DESCRIPTION).is_file():
        present = read_note(checkpoint / DESCRIPTION)
        asked = {"base": {"digest": digest}, "method": method, "draw": drawn, **_settings(options, present)}
        refuse_other(checkpoint, CHECKPOINT, present, asked, remedy=REPLACE)


def _settings(options: Mapping[str, Any], present: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the numbers and words among the options that were written down there."""
    known = (present or {}).get("settings", {})
    return {"settings": {k: v for k, v in options.items() if k in known and isinstance(v, int | float | str)}}


def _apart(places: Mapping[str, Path | None]) -> None:
    """Refuse folders of which one is another or lies in another.

    Args:
        places: Folder by what it is called: {"--out": ..., "the base": ...}.

    Raises:
        MedclipError: WRONG_USE.
    """
    resolved = [(name, path.resolve()) for name, path in places.items() if path is not None]
    for n, (name, path) in enumerate(resolved):
        for other, second in resolved[:n]:
            if path.is_relative_to(second) or second.is_relative_to(path):
                how = "are the same folder" if path == second else "lie one inside the other"
                raise MedclipError(
                    Reason.WRONG_USE, f"{other} and {name} {how}.", where=path, hint="Name a new folder beside it."
                )


TRAIN_HASHES, PATIENT_HASHES = "train_hashes.txt", "patient_hashes.txt"
TITLES: Mapping[str, str] = {"base_digest": "the base", "list": "the list of shots"}
"""What the facts of an adaptation are called, where their name does not say it."""


def check_place(folder: Path, base: Path) -> None:
    """Refuse a folder that no adapted pack can go to, before anything is learned.

    Raises:
        MedclipError: WRONG_USE for the base's own folder and for what is no folder; OUTPUT_IN_USE for one that holds
            something that is not a pack.
    """
    claim_folder(folder, "model pack", marks=(MANIFEST,), inputs={"the base": base}, in_one_step=True)


def adaptation_in(folder: Path) -> Mapping[str, Any] | None:
    """Return how the pack that lies in a folder was adapted, as its card writes it; None where none lies there."""
    try:
        adapted = read_card(folder).adapted
    except MedclipError:
        return None
    return None if adapted is None else adapted.model_dump(mode="json")


def _refuse_other(adapted: Adapted, folder: Path) -> None:
    """Refuse to replace what is not a pack of the same adaptation from the same shots.

    Raises:
        MedclipError: OUTPUT_IN_USE.
    """
    known, asked = adaptation_in(folder), _adaptation(adapted).model_dump(mode="json")
    if known is not None:
        listed = folder / SHOTS_FILE
        known = {**known, "list": listed.read_text(encoding="utf-8") if listed.is_file() else ""}
    asked["list"] = adapted.shots_csv()
    refuse_other(folder, "model pack", known, asked, titles=TITLES, remedy=REPLACE)


def write_pack(
    adapted: Adapted,
    folder: str | Path,
    *,
    metrics: Mapping[str, Any] | None = None,
    name: str | None = None,
    replace: bool = False,
) -> Path:
    """Write the pack of an adapted model; it appears whole or not at all, and equal calls give equal bytes.

    Weights that changed are stored as float32: rounded to half precision they would score otherwise than measured.

    Args:
        adapted: The model.
        folder: New, or holding a pack of the same base, task, method, settings and shots, which is replaced.
        metrics: Figures of the task, in the form of `medclip.models.packs.card.TaskCard`.
        name: Name on the card; made of the base, the task and the method where None.
        replace: Whether any other pack is replaced, too.

    Raises:
        MedclipError: As `check_place`; OUTPUT_IN_USE for another pack; DISK_FULL, PERMISSION_DENIED.
    """
    from safetensors.numpy import save_file

    folder, base = Path(folder), adapted.model.path
    check_place(folder, base)
    if not replace and (folder / MANIFEST).is_file():
        _refuse_other(adapted, folder)
    changed = adapted.fitted.clip is not None
    ours = {CARD_FILE, HEAD_FILE, TASK_FILE, SHOTS_FILE, TRAIN_HASHES, PATIENT_HASHES}
    ours.add(home_images.FILE_NAME)  # of the base's figures, not of these
    left = ours | ({WEIGHTS_NAME, open_set.FILE_NAME, sentence_vectors.FILE_NAME} if changed else set())
    card = adapted_card(adapted, metrics=metrics or {}, name=name)
    arrays = {k: np.array(v, order="C") for k, v in adapted.fitted.head.arrays().items()}
    with new_folder(folder) as fresh:
        for file in sorted(set(read_manifest(base).files) - left):
            (fresh / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(base / file, fresh / file)
        if adapted.fitted.clip is not None:
            save_weights(adapted.fitted.clip, fresh / WEIGHTS_NAME, half=False)
        save_file(arrays, fresh / HEAD_FILE)
        (fresh / TASK_FILE).write_text(to_yaml(adapted.text.task), encoding="utf-8")
        (fresh / SHOTS_FILE).write_text(adapted.shots_csv(), encoding="utf-8")
        of_base = adapted.model.card
        _write_lines(fresh / TRAIN_HASHES, base, of_base.train_hashes_file, [s.sha256 for s in adapted.shots])
        _write_lines(fresh / PATIENT_HASHES, base, of_base.patient_hashes_file, [s.patient for s in adapted.shots])
        (fresh / CARD_FILE).write_text(card.to_json(), encoding="utf-8")
        read = {way: preprocessing_of(way, adapted.model.preprocess.policy) for way in adapted.ways}
        if DRAWN_OF in read and adapted.model.preprocess.signal is None:
            read[DRAWN] = preprocessing_of(DRAWN)
        seal(fresh, {**adapted.model.preprocess.adapters, **read})
    return folder


def adapted_card(adapted: Adapted, *, metrics: Mapping[str, Any], name: str | None = None) -> Card:
    """Write the card: what was adapted to what, from which shots, and what of the base's card still holds."""
    base, text, changed = adapted.model.card, adapted.text, adapted.fitted.clip is not None
    task = text.task
    train = [s for s in adapted.shots if s.role == "train"]
    files = count(len(train), "file")
    patients = len({s.patient for s in train})
    entry = {
        "classes": text.names,
        "metrics": dict(metrics),
        "title": task.title,
        "class_titles": {n: task.class_named(n).title for n in text.names},
    }
    old = base.adapted.task if base.adapted is not None else None
    kept = {} if changed else {n: t for n, t in base.tasks.items() if n not in (task.name, old)}
    shots = Source(
        name="shots of the adaptation",
        source=f"a table of the person who ran medclip adapt; listed by hash in {SHOTS_FILE}",
        licence="not stated",
        num_images=len(adapted.shots),
        num_patients=len({s.patient for s in adapted.shots}),
    )
    modalities = {way.partition(":")[0] for way in adapted.ways}
    values = base.model_dump() | {
        "name": name or f"{base.name}-{task.name}-{adapted.method}",
        "summary": f"{base.name} {base.version} adapted to “{task.title}” with {adapted.title}, from {files} of "
        f"{patients} patients.",
        "modalities": sorted({*base.modalities, *modalities}),
        "tasks": {task.name: TaskCard.model_validate(entry), **kept},
        "data": (*base.data, shots),
        "citations": [
            one.of_ancestor(ADAPTED_FROM, version=base.version, digest=adapted.base.digest) for one in base.citations
        ],
        "limits": (*_limits(adapted, files, patients), *base.limits),
        "created_from": {**base.created_from, ADAPTED_FROM: str(adapted.base), "medclip": __version__},
        "train_hashes_file": TRAIN_HASHES,
        "patient_hashes_file": PATIENT_HASHES,
        "test_hashes_file": None if changed else base.test_hashes_file,
        "open_set": None if changed else base.open_set,
        "adapted": _adaptation(adapted),
    }
    return Card.model_validate(values)


def _adaptation(adapted: Adapted) -> Adaptation:
    base, draw = adapted.base, adapted.draw
    roles = Counter(s.role for s in adapted.shots)
    return Adaptation(
        task=adapted.text.task.name,
        method=adapted.method,
        title=adapted.title,
        head=adapted.fitted.head.kind,
        changed_towers=adapted.fitted.clip is not None,
        base=base.name,
        base_version=base.version,
        base_digest=base.digest,
        shots=draw.shots,
        seed=draw.seed,
        init_seed=draw.init_seed,
        num_train=roles["train"],
        num_val=roles["val"],
        num_in_training=num_in_training(adapted.model, adapted.shots),
        num_train_by_class=dict(adapted.num_by_class),
        num_trainable=adapted.fitted.num_trainable,
        settings=dict(adapted.fitted.settings),
        deviations=adapted.deviations,
        shots_file=SHOTS_FILE,
    )


def _limits(adapted: Adapted, files: str, patients: int) -> tuple[str, ...]:
    task, base = adapted.text.task, adapted.model.card
    limits = [
        f"“{task.title}” was learned from {files} of {patients} patients of one table. Its figures are over other "
        "patients of the same table; elsewhere they may be worse.",
    ]
    new = sorted({way for way in adapted.ways if way not in adapted.model.preprocess.adapters})
    if new:
        limits.append(
            f"The base does not say that it was trained on {ways_said(new)}: it knows that from the shots only."
        )
    limits += seen_by_base(adapted.model, adapted.shots)
    if adapted.fitted.clip is not None:
        limits.append(
            f"The towers are not those of {base.name} any more: its other tasks, their figures and the guard for "
            "unknown images do not hold for them and are not in this pack."
        )
    if base.train_hashes_file is None:
        limits.append("The base does not list its training files: the list in this pack holds the shots only.")
    return tuple(limits)


def _write_lines(path: Path, base: Path, listed: str | None, more: list[str]) -> None:
    """Write the base's list and ours as one, sorted."""
    known = (base / listed).read_text(encoding="ascii").split() if listed else []
    write_file(path, "".join(f"{line}\n" for line in sorted({*known, *more})))
