"""One run of a comparison: fit a method on its shots, and predict the test images. Runs in processes of its own too."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import Head, text_head
from medclip.adaptation.methods import Fitted, find_method
from medclip.errors import MedclipError, Reason
from medclip.evaluation.few_shot.store import Run
from medclip.files.output import new_file
from medclip.models.devices import torch_threads

if TYPE_CHECKING:
    from torch import Tensor

    from medclip.adaptation.prompts.prompted_text_tower import Position
    from medclip.models.model import Model


def novel_head(base: Model, fitted: Fitted, text: ClassText) -> Head:
    """Make the head for other classes with what was learned: the same towers, or the same prompt around other names.

    Raises:
        MedclipError: WRONG_USE for a method that learns a classifier of its classes only.
    """
    if fitted.head.kind == "cocoop":
        return _moved_prompt(base, fitted.head, text)
    vectors = fitted.prompt
    if vectors is not None:
        return _prompt(base, vectors, fitted.settings["position"], text)
    if fitted.clip is not None or fitted.num_trainable == 0:
        model = fitted.merged(base)
        return text_head(text.vectors(model), model.logit_scale)
    raise MedclipError(Reason.WRONG_USE, "it learns a classifier of its own classes and has no answer for others.")


def _prompt(base: Model, vectors: Tensor, position: Position, text: ClassText) -> Head:
    """Put the learned context of CoOp around other names."""
    import torch

    from medclip.adaptation.prompts.coop import Context, head_of

    if vectors.ndim == 3:
        raise MedclipError(Reason.WRONG_USE, "its prompts belong to its own classes; there are none for others.")
    context = Context(
        base,
        text,
        num_vectors=len(vectors),
        words=None,
        position=position,
        class_specific=False,
        generator=torch.Generator().manual_seed(0),
    )
    with torch.no_grad():
        context.vectors.copy_(vectors)
        return head_of(context(), base.logit_scale, len(text.names))


def _moved_prompt(base: Model, head: Any, text: ClassText) -> Head:
    """Put the learned context of CoCoOp before other names."""
    from medclip.adaptation.prompts.prompted_text_tower import placeholders

    words = placeholders(base.tokenizer, (*text.phrases, *text.negative_phrases), len(head.vectors_MW))
    return replace(head, tokens_RL=words.tokens_CL.numpy(), prefix=words.prefix, num_classes=len(text.names))


@dataclass(frozen=True, eq=False)
class Job:
    """What a run is made of; plain values that can be sent to another process."""

    method: str
    options: Mapping[str, Any]
    text: ClassText
    """Of the classes to learn."""
    train: tuple[int, ...]
    """Rows of the examples."""
    val: tuple[int, ...]
    test: tuple[int, ...]
    init: int
    facts: Mapping[str, Any]
    """What the run's file says of it beyond what is measured."""
    novel_text: ClassText | None = None
    """Classes to ask for without having learned them."""
    novel_test: tuple[int, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where another process finds the base and the examples."""

    model: str
    device: str
    examples: str


def run_there(place: Place, job: Job) -> Run:
    """Run in a process of its own; what it needs is loaded with its first job and kept."""
    import torch

    torch.set_num_threads(1)
    return run_job(_model(place.model, place.device), _examples(place.examples), job)


def run_job(base: Model, examples: Examples, job: Job) -> Run:
    """Fit and predict, with one thread. A method that fails gives its reason instead of predictions."""
    from threadpoolctl import threadpool_limits

    # The number of processes must not change the last bits of a result.
    with torch_threads(1), threadpool_limits(limits=1):
        try:
            logits, novel, measured = _fit_and_predict(base, examples, job)
        except MedclipError as e:
            return Run(None, None, {**job.facts, "reason": str(e.reason), "message": e.problem().message})
        except MemoryError:
            return Run(
                None, None, {**job.facts, "reason": "too_large", "message": "It needs more memory than there is."}
            )
        except Exception as e:  # one method's bug is a row of the table, not the end of the comparison
            return Run(None, None, {**job.facts, "reason": "bug", "message": _bug(e)})
    return Run(logits, novel, {**job.facts, **measured})


def _fit_and_predict(
    base: Model, examples: Examples, job: Job
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, dict[str, Any]]:

    train = examples.select(job.train)
    val = examples.select(job.val) if job.val else None
    begin = time.perf_counter()
    fitted = find_method(job.method).fit(base, job.text, train, val, seed=job.init, **job.options)
    fit_seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    logits = fitted.logits(base, examples.select(job.test))
    predict_seconds = time.perf_counter() - begin
    novel = None
    if job.novel_text is not None:
        head = novel_head(base, fitted, job.novel_text)
        novel = fitted.logits(base, examples.select(job.novel_test), head)
    for values in (logits, novel):
        if values is not None and np.isnan(values).any():
            raise MedclipError(Reason.NON_FINITE, "its predictions hold values that are no numbers.")
    return (
        logits,
        novel,
        {
            "fit_seconds": round(fit_seconds, 4),
            "predict_seconds": round(predict_seconds, 4),
            "num_trainable": int(fitted.num_trainable),
            "settings": dict(fitted.settings),
            "notes": [*job.facts["notes"], *fitted.notes],
            "no_better": bool(fitted.notes),
        },
    )


def save_examples(examples: Examples, path: Path) -> None:
    """Write examples where another process of this run reads them."""
    images = [image for views in examples.pixels for image in views]
    with new_file(path) as draft, draft.open("wb") as f:
        np.savez(
            f,
            pixels=np.concatenate([np.empty(0, np.uint8), *(image.ravel() for image in images)]),
            shapes=np.array([image.shape for image in images], np.int64).reshape(-1, 3),
            images=np.array([len(p) for p in examples.pixels], np.int64),
            features=np.concatenate(examples.features),
            views=np.array([len(f) for f in examples.features], np.int64),
            targets=examples.targets,
            patients=np.array(examples.patients, dtype=np.str_),
        )


@lru_cache(maxsize=1)
def _examples(path: str) -> Examples:
    with np.load(path, allow_pickle=False) as f:
        ends = np.cumsum(f["shapes"].prod(axis=1))
        each = np.split(f["pixels"], ends)  # and nothing behind the last
        images = [pixels.reshape(shape) for pixels, shape in zip(each, f["shapes"], strict=False)]
        cuts, of_unit = np.cumsum(f["views"])[:-1], np.cumsum(f["images"])[:-1]
        return Examples(
            tuple(tuple(images[i] for i in part) for part in np.split(np.arange(len(images)), of_unit)),
            tuple(np.split(f["features"], cuts)),
            f["targets"],
            tuple(f["patients"].tolist()),
        )


@lru_cache(maxsize=1)
def _model(path: str, device: str) -> Model:
    from medclip.models.packs.pack import load_model

    return load_model(path, device=device)


def _bug(error: Exception) -> str:
    """Return what kind of error and where in our code; never its own text, which may quote a file."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).resolve().parents[2])
    ours = [f for f in frames if f.filename.startswith(package)] or frames
    return f"It ended in an error ({type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno})."
