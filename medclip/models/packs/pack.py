"""Model packs: one folder that holds all a model needs, loads without network and is checked before use."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason, did_you_mean, naming
from medclip.files.output import claim_folder, new_file, new_folder, write_file
from medclip.models.devices import check_device
from medclip.models.inputs.preprocess import GENERIC, Preprocess, from_config
from medclip.models.packs import card as cards
from medclip.models.packs.card import IMPORTED, Card, licence_files, read_card
from medclip.models.packs.manifest import (
    CONFIG_NAME,
    FILE_NAME,
    HUB,
    TEXT_FOLDER,
    WEIGHTS_NAME,
    Manifest,
    check_files,
    no_pack,
    read_config,
    read_manifest,
    refuse_pickles,
    seal,
)
from medclip.models.packs.words import has_text_tower, understands_words
from medclip.result import Result

if TYPE_CHECKING:
    from torch import nn

    from medclip.models.model import Model as Model  # also importable from here at run time, see __getattr__


BUILTIN = Path(__file__).parents[1] / "builtin"
DEFAULT = "medclip-mini"


@dataclass(frozen=True, repr=False)
class PackInfo(Result):
    """One line about a pack."""

    name: str
    path: Path
    version: str
    summary: str
    modalities: tuple[str, ...]
    tasks: tuple[str, ...]
    num_files: int
    num_bytes: int
    has_text: bool = True
    """False for an image tower alone, which cannot be asked in words."""

    def _facts(self) -> dict[str, object]:
        return {
            "name": f"{self.name} {self.version}",
            "summary": self.summary,
            "modalities": ", ".join(self.modalities),
            "tasks": ", ".join(self.tasks),
            "words": "understood" if self.has_text else "none: image only",
            "files": f"{self.num_files} of {self.num_bytes / 1e6:.1f} MB",
            "folder": self.path,
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        lists = {"path": str(self.path), "modalities": ", ".join(self.modalities), "tasks": ", ".join(self.tasks)}
        return [vars(self) | lists]


@dataclass(frozen=True, repr=False)
class PackList(Result):
    """The packs that load by name."""

    packs: tuple[PackInfo, ...]

    def __len__(self) -> int:
        return len(self.packs)

    def __iter__(self) -> Iterator[PackInfo]:
        return iter(self.packs)

    def __getitem__(self, index: int) -> PackInfo:
        return self.packs[index]

    def _facts(self) -> dict[str, object]:
        return {f"{pack.name} {pack.version}": pack.summary for pack in self.packs} or {"packs": "none"}

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [row for pack in self.packs[:most] for row in pack._rows()]


def list_packs(folder: Path | None = None) -> PackList:
    """List the packs that load by name, in alphabetical order.

    Args:
        folder: Folder to look in; the packs that came with medclip where None.
    """
    root = folder or BUILTIN
    folders = sorted(p.parent for p in root.glob(f"*/{FILE_NAME}")) if root.is_dir() else []
    return PackList(tuple(_info(path, read_manifest(path)) for path in folders))


def find_pack(model: str | Path | Model) -> Path:
    """Return the folder of a pack.

    Args:
        model: Name of a built-in pack, or a folder; a loaded model stands for the pack it came from.

    Raises:
        MedclipError: PACK_NOT_FOUND, saying which names exist; PACK_INVALID for a folder that holds no pack.
    """
    text = str(model if isinstance(model, str | Path) else model.path)
    if text and Path(text).name == text and os.path.isfile(BUILTIN / text / FILE_NAME):
        return BUILTIN / text
    if text and os.path.isdir(Path(text)):
        if not (Path(text) / FILE_NAME).is_file():  # said before anything walks through what may be a whole disk
            raise no_pack(Path(text))
        return Path(text)
    if text and os.path.isfile(Path(text)):
        raise no_pack(Path(text))
    names = sorted(p.parent.name for p in BUILTIN.glob(f"*/{FILE_NAME}"))
    packaged = (
        did_you_mean(text, names, "The packs that came with medclip are") if names else "No pack came with medclip."
    )
    hint = f"{packaged} A pack elsewhere on disk is given by its folder."
    if text.startswith(HUB):
        hint = f"A model of the hub is imported once: `medclip models import {text} --out PACK`."
    raise MedclipError(Reason.PACK_NOT_FOUND, f"there is no model pack and no folder named {text!r}.", hint=hint)


def verify_pack(model: str | Path | Model) -> PackInfo:
    """Check every file of a pack against its manifest, its card, and its preprocessing against this code; no torch.

    Raises:
        MedclipError: PACK_NOT_FOUND, UNSAFE_WEIGHTS, PACK_INVALID or PREPROCESSING_MISMATCH.
    """
    path = find_pack(model)
    manifest = read_manifest(path)
    refuse_pickles(path)
    check_files(path, manifest)
    with naming(path):
        preprocess = from_config(read_config(path), manifest.preprocessing)
    check_preprocessing(path, preprocess, read_card(path))
    return _info(path, manifest)


def check_pack(model: str | Path | Model) -> PackInfo:
    """Check that a pack can be used: as `verify_pack`, and that its towers, weights, tokenizer and guard load.

    Vectors of sentences that it holds are compared with what its text tower computes.

    Raises:
        MedclipError: What `load_model` raises.
    """
    from medclip.models.prototypes.home_images import load_homes
    from medclip.models.prototypes.open_set import load_open_set
    from medclip.models.prototypes.sentence_vectors import check_sentence_vectors

    info = verify_pack(model)
    check_sentence_vectors(info.path, load_model(info.path, verify=False))
    load_open_set(info.path)
    load_homes(info.path)
    return info


def pack_card(model: str | Path | Model = DEFAULT) -> Card:
    """Read a pack's card: use, tasks, figures, data, licence, limits.

    Raises:
        MedclipError: PACK_NOT_FOUND, PACK_INVALID.
    """
    return read_card(find_pack(model))


def load_model(model: str | Path | Model = DEFAULT, *, device: str = "cpu", verify: bool = True) -> Model:
    """Load a pack. Needs no network and runs no pickle.

    Args:
        model: Name of a built-in pack, or a pack's folder.
        device: Torch device.
        verify: Whether the hash of every file is compared first (0.1 s for 20 MB).

    Returns:
        The model, float32.

    Raises:
        MedclipError: PACK_NOT_FOUND, UNSAFE_WEIGHTS, PACK_INVALID or PREPROCESSING_MISMATCH; WRONG_USE for a device.

    Example:
        >>> import medclip
        >>> medclip.models.load("medclip-mini").encode_text(["a chest x-ray"]).shape
        (1, 256)
    """
    path = find_pack(model)
    check_device(device)
    manifest = read_manifest(path)
    refuse_pickles(path)
    if verify:
        check_files(path, manifest)
    config = read_config(path)
    card = read_card(path)
    with naming(path):
        preprocess = from_config(config, manifest.preprocessing)
        _check_plausible(path, config["model_cfg"])
    check_preprocessing(path, preprocess, card)
    from medclip.models.towers.quick_towers import import_towers

    import_towers()
    from medclip.models.model import Model
    from medclip.models.prototypes.sentence_vectors import load_sentence_vectors
    from medclip.models.towers.build import build_clip
    from medclip.models.towers.state_dict import Unfilled
    from medclip.text.tokenizers.tokenizer import load_tokenizer

    with naming(path):
        with Unfilled():
            clip = build_clip(_inside(config["model_cfg"]), path)
        _load_weights(clip, path / WEIGHTS_NAME)
        text_cfg = config["model_cfg"].get("text_cfg")
        tokenizer = None if text_cfg is None else load_tokenizer(path, text_cfg)
    sentences = {} if tokenizer is None else load_sentence_vectors(path)
    return Model(clip, tokenizer, preprocess, card, name=card.name, path=path, device=device, sentences=sentences)


def read_preprocess(model: str | Path | Model = DEFAULT) -> Preprocess:
    """Return how a pack's images are resized and normalised, without loading its weights.

    Raises:
        MedclipError: PACK_NOT_FOUND, PACK_INVALID.
    """
    path = find_pack(model)
    with naming(path):
        return from_config(read_config(path), read_manifest(path).preprocessing)


def save_pack(
    folder: Path,
    model: nn.Module,
    tokenizer_folder: Path | None,
    preprocess: Preprocess,
    card: Card,
    *,
    config: Mapping[str, Any],
    extra_files: Mapping[str, bytes] | None = None,
    base: Path | None = None,
    half: bool = True,
    parents: Sequence[Path] = (),
) -> Path:
    """Write a pack; it appears whole or not at all.

    Args:
        folder: Folder of the pack; an older pack there is replaced, anything else is refused.
        model: open_clip model.
        tokenizer_folder: Folder that `tokenizer.save` wrote. Not read where the config asks for CLIP's own tokenizer;
            None for an image tower alone.
        preprocess: Input size, normalisation, adapters' hashes.
        card: The card.
        config: The model's `model_cfg`, as given to `build_clip`.
        extra_files: More files by name, e.g. train_hashes.txt.
        base: Folder that a relative `hf_model_name` in the config starts from; the text model's config.json is copied.
        half: Whether matrices and kernels are stored as fp16, vectors (norms, biases) as float32. False: everything as
            it is.
        parents: The packs whose weights are in these: the texts of their terms go into the pack.

    Raises:
        MedclipError: OUTPUT_IN_USE when the folder holds something that is not a pack.
    """
    from medclip.text.tokenizers.tokenizer import load_tokenizer

    claim_folder(folder, "model pack", marks=(FILE_NAME,), in_one_step=True)
    with new_folder(folder) as fresh:
        save_weights(model, fresh / WEIGHTS_NAME, half=half)
        model_cfg = _with_text_config(fresh, config, base)
        settings = {"model_cfg": model_cfg, "preprocess_cfg": preprocess.to_config()}
        (fresh / CONFIG_NAME).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        (fresh / cards.FILE_NAME).write_text(card.to_json(), encoding="utf-8")
        if tokenizer_folder is not None and model_cfg["text_cfg"].get("hf_tokenizer_name"):
            load_tokenizer(tokenizer_folder, model_cfg["text_cfg"]).save(fresh)
        for name, content in {**licence_files(parents), **(extra_files or {})}.items():
            (fresh / name).write_bytes(content)
        seal(fresh, preprocess.adapters)
        write_sentence_vectors(fresh)
    return folder


def write_sentence_vectors(pack: Path) -> None:
    """Encode the sentences of the tasks on a pack's card, keep their vectors in the pack and seal it again.

    A pack that understands no words, or whose card has no task of the vocabulary, gets none.
    """
    from medclip.models.prototypes.sentence_vectors import save_sentence_vectors, task_sentences

    sentences = task_sentences(read_card(pack)) if understands_words(pack) else []
    if sentences:
        model = load_model(pack, verify=False).without_sentences()
        save_sentence_vectors(pack, sentences, model.encode_text(sentences))
        update_pack(pack)


def update_pack(path: Path, *, card: Card | None = None, extra_files: Mapping[str, bytes] | None = None) -> Manifest:
    """Add a new card or more files (figures, hash lists, the open-set guard) to a pack and seal it again."""
    manifest = read_manifest(path)
    if card is not None:
        write_file(path / cards.FILE_NAME, card.to_json())
    for name, content in (extra_files or {}).items():
        write_file(path / name, content)
    return seal(path, manifest.preprocessing)


def check_preprocessing(path: Path, preprocess: Preprocess, card: Card) -> None:
    """Compare the adapters the weights were trained through with those of this code.

    Args:
        path: The pack, for the error.
        preprocess: Preprocessing with the hashes of the manifest: way of reading ("xray", "generic", "ct:volume") to
            preprocessing.
        card: Each of its modalities that one of its tasks is about needs a hash; so does "generic" when the pack has
            the task that infers the modality. A modality that it can only tell apart from others needs none, nor does
            any of an imported pack, which was not trained through our adapters.

    Raises:
        MedclipError: PREPROCESSING_MISMATCH naming the modality and both hashes, or the one that is missing.
    """
    from medclip.adapters.registry import preprocessing_of
    from medclip.text.vocabulary.load import load_task, task_names

    trained = preprocess.adapters
    of_tasks = {m for name in card.tasks if name in task_names() for m in load_task(name).modalities}
    needed = [m for m in card.modalities if m in of_tasks or not (trained or IMPORTED in card.created_from)] + [
        GENERIC
    ] * ("modality" in card.tasks)
    trained_names = {way.partition(":")[0] for way in trained}
    for name in needed:
        if name not in trained_names:
            raise MedclipError(
                Reason.PREPROCESSING_MISMATCH,
                f"the pack does not say which preprocessing its weights were trained with on {name} images.",
                where=path,
                hint="Take the pack from its source again, or train again.",
            )
    for name, expected in trained.items():
        try:
            current = preprocessing_of(name, preprocess.policy)
        except (MedclipError, ValueError):
            current = "no adapter"
        if current != expected:
            raise MedclipError(
                Reason.PREPROCESSING_MISMATCH,
                f"the weights were trained on {name} images with preprocessing {expected}; this medclip has {current}.",
                where=path,
                hint="Use the medclip version that the pack was made with, or train again.",
            )


def _inside(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config back, after making sure that it names no text model outside the pack."""
    name = (config.get("text_cfg") or {}).get("hf_model_name")
    if name and name != TEXT_FOLDER:
        raise MedclipError(
            Reason.PACK_INVALID, f"its text tower is {str(name)!r}; the config of a pack's own lies in {TEXT_FOLDER}/."
        )
    return config


def _check_plausible(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse towers that the weights cannot fill, before they are built."""
    weights, described = path / WEIGHTS_NAME, [config]
    if (config.get("text_cfg") or {}).get("hf_model_name") == TEXT_FOLDER:
        from medclip.models.towers.bert import read_text_config

        described.append(read_text_config(path / TEXT_FOLDER))
    if weights.is_file():
        for part in described:
            check_plausible(part, weights.stat().st_size)


def _with_text_config(folder: Path, config: Mapping[str, Any], base: Path | None) -> dict[str, Any]:
    """Copy the config of a BERT text tower into a pack, and give the model's config that names it there."""
    from medclip.models.towers import bert as hf_text

    if not has_text_tower(config):
        return dict(config)
    completed = {**config, "text_cfg": dict(config["text_cfg"])}
    if name := completed["text_cfg"].get("hf_model_name"):
        content = (hf_text.folder_of(name, base) / hf_text.CONFIG).read_bytes()
        write_file(folder / TEXT_FOLDER / hf_text.CONFIG, content)
        completed["text_cfg"] |= {"hf_model_name": TEXT_FOLDER, "hf_model_pretrained": False}
    return completed


def _load_weights(clip: nn.Module, weights: Path) -> None:
    from medclip.models.towers.state_dict import read_weights

    try:
        clip.load_state_dict(read_weights(weights), strict=True)
    except RuntimeError as e:
        raise MedclipError(
            Reason.PACK_INVALID, f"the weights do not fit the architecture in {CONFIG_NAME}.", where=weights
        ) from e


def save_weights(model: nn.Module, path: Path, *, half: bool) -> None:
    """Write the weights of a model as safetensors.

    Args:
        model: The model.
        path: The file.
        half: Whether matrices and kernels are stored as fp16. False: everything as it is.
    """
    import torch
    from safetensors.torch import save_file

    state = {}
    for name, value in model.state_dict().items():
        dtype = torch.float16 if half and value.is_floating_point() and value.ndim >= 2 else value.dtype
        state[name] = value.detach().cpu().to(dtype).contiguous().clone()
    with new_file(path) as draft:
        save_file(state, draft)


def _info(path: Path, manifest: Manifest) -> PackInfo:
    card = read_card(path)
    size = sum((path / n).stat().st_size for n in manifest.files if (path / n).is_file())
    return PackInfo(
        card.name,
        path,
        card.version,
        card.summary,
        card.modalities,
        tuple(card.tasks),
        len(manifest.files),
        size,
        understands_words(path),
    )


def __getattr__(name: str) -> Any:
    if name == "Model":  # lazily: this module is imported by commands that only list packs
        from medclip.models.model import Model

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_MOST_LAYERS = 1000
_LAYERS = frozenset({"layers", "depth", "num_hidden_layers", "num_layers", "depths", "blocks"})
_WIDTHS = ("width", "hidden_size", "embed_dim", "dim")
_TIMES_OFF = 16
_MATRICES = 4
"""Of width x width that each layer of a transformer has at the least: queries, keys, values and their mixture."""


def check_plausible(config: Mapping[str, Any], weights_bytes: int) -> None:
    """Refuse a config whose towers have many more numbers than the weights have bytes, or layers without end.

    Towers are built, with random numbers, before the weights are read into them. A config that states a width of a
    million would take all memory, and one of a billion layers would never end, before anybody saw that the weights do
    not fit. Limits: towers that timm builds by a name have the size that timm gives them (up to some gigabytes). What
    is refused is 16 times off, since layers may share their weights and embeddings may be factors of narrower ones.

    Args:
        config: The `model_cfg`, or the config of a text model of Hugging Face.
        weights_bytes: Size of the file of weights; int8, the smallest type, has a byte for each number.

    Raises:
        MedclipError: PACK_INVALID.
    """
    for part in _parts(config):
        layers = [int(n) for name in _LAYERS for n in _numbers(part.get(name))]
        if max(layers, default=0) > _MOST_LAYERS:
            raise _refusal(f"{max(layers):,} layers")
        widths = [int(n) for name in _WIDTHS for n in _numbers(part.get(name))]
        width, rows = max(widths, default=0), int(max(_numbers(part.get("vocab_size")), default=0))
        has_transformer = bool(layers) and not isinstance(part.get("layers"), list)
        least = max(rows * width, _MATRICES * width * width * sum(layers) if has_transformer else width)
        if least > _TIMES_OFF * weights_bytes:
            raise _refusal(f"at least {least:,} numbers")


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a mapping and those in it."""
    yield config
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _parts(value)


def _numbers(value: Any) -> list[float]:
    values = value if isinstance(value, list | tuple) else [value]
    return [min(v, 1e18) for v in values if isinstance(v, int | float) and not isinstance(v, bool) and v > 0]


def _refusal(what: str) -> MedclipError:
    return MedclipError(
        Reason.PACK_INVALID,
        f"its config describes {what}, and its weights cannot hold them.",
        hint="Take the pack from its source again.",
    )
