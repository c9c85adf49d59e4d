"""`medclip models set-thresholds`: a pack with thresholds on its card, for decisions at the site that chose them.

The pack is copied, and the copy has a hash of its own: what was scored with the one is told from what was scored with
the other. Weights and scores are the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.output import claim_folder, in_use, new_folder
from medclip.models.packs.card import Card, CardThreshold, read_card
from medclip.models.packs.manifest import FILE_NAME, names_in
from medclip.models.packs.pack import PackInfo, find_pack, update_pack, verify_pack
from medclip.schema_faults import faults_of

if TYPE_CHECKING:
    from medclip.models.model import Model

Thresholds = str | Path | Mapping[str, Any]
"""File of an audit, or classes with a number or the fields of that file each."""
_MOST_BYTES = 1 << 20
"""Of a file of thresholds; an audit of a thousand labels writes a third of it."""


def copy_with_thresholds(model: str | Path | Model, thresholds: Thresholds, *, task: str, out: Path) -> PackInfo:
    """Write a copy of a pack whose card names thresholds of a task."""
    pack = find_pack(model)
    verify_pack(pack)
    card = read_card(pack)
    if task not in card.tasks:
        hint = did_you_mean(task, card.tasks, "Its tasks are")
        raise MedclipError(Reason.WRONG_USE, f"the pack's card has no task {task!r}.", where=pack, hint=hint)
    classes = card.tasks[task].classes
    if isinstance(thresholds, Mapping):
        chosen = _read_all(thresholds, None)
        if unknown := sorted(set(chosen) - set(classes)):
            hint = did_you_mean(unknown[0], classes, "Its classes are")
            raise MedclipError(Reason.WRONG_USE, f"the task {task} has no class {unknown[0]!r}.", hint=hint)
    else:
        chosen = {name: one for name, one in _read_file(Path(thresholds)).items() if name in classes}
    if not chosen:
        raise MedclipError(
            Reason.WRONG_USE,
            f"there is no threshold of a class of the task {task}.",
            hint=f"Its classes are: {', '.join(classes)}.",
        )
    tasks = card.tasks | {task: card.tasks[task].model_copy(update={"thresholds": chosen})}
    if (out / FILE_NAME).exists():
        raise in_use(out, "this folder holds a pack already", "Name another folder.")
    claim_folder(out, "model pack", marks=(FILE_NAME,), inputs={"the model": pack}, in_one_step=True)
    with new_folder(out) as draft:
        for name in (FILE_NAME, *names_in(pack)):
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(pack / name, draft / name)
        update_pack(draft, card=Card.model_validate(card.model_copy(update={"tasks": tasks}).model_dump()))
    return verify_pack(out)


def _read_file(path: Path) -> dict[str, CardThreshold]:
    """Read thresholds.json, by label."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("size")
        entries = json.loads(path.read_text(encoding="utf-8"))["thresholds"]
        by_label = {str(entry.pop("label")): entry for entry in entries}
    except OSError as e:
        raise MedclipError(Reason.MISSING_FILE, "there is no such file of thresholds.", where=path) from e
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise MedclipError(
            Reason.TABLE_INVALID,
            "this is no file of thresholds.",
            where=path,
            hint="Name the thresholds.json that medclip audit wrote.",
        ) from e
    return _read_all(by_label, path)


def _read_all(values: Mapping[str, Any], path: Path | None) -> dict[str, CardThreshold]:
    try:
        return {name: CardThreshold.model_validate(value) for name, value in values.items()}
    except ValidationError as e:
        faults, hint = faults_of(e, CardThreshold, "a threshold")
        raise MedclipError(Reason.TABLE_INVALID, f"a threshold is not valid: {faults}.", where=path, hint=hint) from e
