"""Vectors of the sentences that a pack's tasks are asked in: they lie in the pack, and no run encodes them anew.

They are those of the pack's own text tower, bit for bit as it computed them where the pack was written, and are bound
to it: to the hash of its weights, its config and its tokenizer. A sentence that is not among them, or that a vocabulary
words otherwise today, is encoded as ever. So is every sentence of a pack with another tower than the file was made
with, and of a pack without the file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.models.packs.manifest import TEXT_FOLDER, WEIGHTS_NAME, hash_tensors, read_config, read_manifest
from medclip.models.prototypes.tensor_file import save_tensors
from medclip.text.tokenizers.clip import MARK
from medclip.text.tokenizers.tokenizer import FILES
from medclip.text.tokenizers.transformers_files import CONCH, MERGES, PIECES, WORDPIECE_VOCABULARY
from medclip.text.vocabulary.load import load_task, task_names
from medclip.text.vocabulary.prompts import expand

FILE_NAME = "sentence_vectors.safetensors"
_OF_TOKENIZER = (*FILES, MARK, WORDPIECE_VOCABULARY, MERGES, PIECES, CONCH)
_NOT_OF_TEXT = "vision_cfg"


def task_sentences(card: Any) -> list[str]:
    """List the sentences of the tasks of a card that the vocabulary has, each once.

    A task that a head of the pack answers is among them where the vocabulary has one of its name: nobody asks for the
    vectors then.
    """
    names = [name for name in card.tasks if name in task_names() and load_task(name).has_words]
    classes = [c for name in names for c in expand(load_task(name), _present(name, card.tasks[name].classes))]
    return list(dict.fromkeys(text for c in classes for text in (*c.positive, *c.negative)))


def _present(task: str, classes: Sequence[str]) -> list[str] | None:
    """Return the classes of a card that a task of the vocabulary has; None, for all of them, where it has none."""
    names = {c.name for c in load_task(task).classes}
    return [name for name in classes if name in names] or None


def text_tower_digest(pack: Path) -> str:
    """Hash what decides the vector of a sentence: weights and config of a pack's text tower, and its tokenizer.

    Args:
        pack: A pack's folder, checked before.

    Raises:
        MedclipError: PACK_INVALID for weights that are no safetensors file.
    """
    config = {key: value for key, value in read_config(pack)["model_cfg"].items() if key != _NOT_OF_TEXT}
    listed = sorted(read_manifest(pack).files.items())
    files = [one for one in listed if one[0] in _OF_TOKENIZER or one[0].startswith(f"{TEXT_FOLDER}/")]
    return hash_tensors(pack / WEIGHTS_NAME, [config, files], of_images=False)


def save_sentence_vectors(pack: Path, sentences: Sequence[str], vectors_ND: NDArray[np.float32]) -> None:
    """Write sentence_vectors.safetensors into a pack that is sealed, and has to be sealed again."""
    about = {"sentences": json.dumps(list(sentences)), "text_tower": text_tower_digest(pack)}
    save_tensors(pack / FILE_NAME, {"vectors": np.ascontiguousarray(vectors_ND, np.float32)}, about)


def load_sentence_vectors(pack: Path) -> dict[str, NDArray[np.float32]]:
    """Read the vectors by their sentences: float32 [D] of unit norm each.

    Returns:
        None of them where the pack has no such file, or one of another text tower.

    Raises:
        MedclipError: PACK_INVALID for a file that is none.
    """
    vectors, digest = _read(pack)
    return vectors if vectors and digest == text_tower_digest(pack) else {}


def check_sentence_vectors(pack: Path, model: Any, *, num: int = 32, bound: float = 1e-5) -> None:
    """Compare some of the vectors with what the text tower says of their sentences here.

    Args:
        pack: The pack.
        model: The same, loaded.
        num: Number of sentences, evenly spaced.
        bound: Largest difference; other processors change the seventh digit.

    Raises:
        MedclipError: PACK_INVALID where they differ, and where the file is of another text tower.
    """
    vectors, digest = _read(pack)
    if not vectors:
        return
    if digest != text_tower_digest(pack):
        raise _no_vectors(pack, "was made with another text tower or tokenizer")
    texts = list(vectors)[:: max(1, len(vectors) // num)]
    encoded_ND = model.without_sentences().encode_text(texts)
    if np.shape([vectors[text] for text in texts]) != encoded_ND.shape or not np.allclose(
        [vectors[text] for text in texts], encoded_ND, rtol=0, atol=bound
    ):
        raise _no_vectors(pack, "holds other vectors than its text tower computes")


def _read(pack: Path) -> tuple[dict[str, NDArray[np.float32]], str]:
    path = pack / FILE_NAME
    if not path.exists():
        return {}, ""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about, vectors_ND = file.metadata(), file.get_tensor("vectors")
        sentences = json.loads(about["sentences"])
        if vectors_ND.dtype != np.float32 or vectors_ND.ndim != 2 or not np.isfinite(vectors_ND).all():
            raise ValueError("vectors")
        if not all(isinstance(text, str) for text in sentences):
            raise TypeError("sentences")
        return dict(zip(sentences, vectors_ND, strict=True)), str(about["text_tower"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
        raise _no_vectors(pack, "does not hold vectors of sentences") from e


def _no_vectors(pack: Path, what: str) -> MedclipError:
    return MedclipError(
        Reason.PACK_INVALID, f"{FILE_NAME} {what}.", where=pack, hint="Take the pack from its source again."
    )
