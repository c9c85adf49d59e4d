"""One run of a comparison, and the folder that keeps runs: one small file for each, so that a stopped one goes on.

Runs are kept by what they are (method, shots, seeds), not by what was asked for: asking for more methods, shots or
seeds in the same folder computes those only, and tables and page are written anew from the files. Tables of results
have no seconds, so that equal runs give equal bytes.
"""

from __future__ import annotations

import json
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
from medclip.evaluation.few_shot.comparison import Cell, Comparison, Paired
from medclip.evaluation.few_shot.labelled_data import FewShotData
from medclip.evaluation.few_shot.protocol import RunKey
from medclip.files.output import claim_run, new_file, write_file
from medclip.files.tables.write import csv_bytes, parquet_bytes, schema_of, table_of
from medclip.models.devices import torch_threads
from medclip.models.prototypes.class_vectors import probabilities

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from medclip.adaptation.prompts.prompted_text_tower import Position
    from medclip.models.model import Model


IDENTITY = "run.json"
COMPARISON = "comparison"
"""What the folder holds, in sentences."""
_RUNS = "runs"
_MODELS = 4
"""The base and packs that it is compared with, which a process keeps loaded."""


@dataclass(frozen=True, eq=False)
class Run:
    """What one run left: predictions, and facts that JSON can hold."""

    logits_NC: NDArray[np.float32] | None
    """float32 [N, C] over the test images; None where the method failed."""
    novel_NC: NDArray[np.float32] | None
    """For runs from base to novel classes: over test images of the novel classes; `logits_NC` is over the base ones."""
    facts: Mapping[str, Any]

    @property
    def failed(self) -> bool:
        """Whether the method gave its reason instead of predictions."""
        return self.logits_NC is None


class RunStore:
    """Runs of one base pack on one data set.

    Args:
        folder: Folder of the runs; made if it is not there.
        identity: Identity of the runs (base, data, division). A folder of something else is refused.

    Raises:
        MedclipError: OUTPUT_IN_USE for a folder that holds anything else; as `medclip.files.output.disk_errors`.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        claim_run(folder, COMPARISON, identity, IDENTITY)

    def kept(self, key: RunKey, digest: str) -> Run | None:
        """Return a run that is done; None where it is not, was asked for otherwise, or failed (it is tried again).

        Args:
            key: Key of the run.
            digest: Fingerprint of what the run is made of beyond its key: the shots that were drawn.
        """
        run = self._read(key)
        return run if run is not None and run.facts.get("asked") == digest and not run.failed else None

    def _read(self, key: RunKey) -> Run | None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.folder / _RUNS / key.file, framework="numpy") as f:
                facts = json.loads((f.metadata() or {}).get("facts", "{}"))
                tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 - not a mapping
        except (OSError, SafetensorError, ValueError):
            return None
        return Run(tensors.get("logits"), tensors.get("novel"), facts)

    def keep(self, key: RunKey, run: Run) -> Run:
        """Store a run in one step, and give it back as it will be read."""
        from safetensors.numpy import save

        arrays = {"logits": run.logits_NC, "novel": run.novel_NC}
        tensors = {n: np.ascontiguousarray(a, np.float32) for n, a in arrays.items() if a is not None}
        facts = json.dumps(dict(run.facts), sort_keys=True, default=_plain)
        write_file(self.folder / _RUNS / key.file, save(tensors or {"none": np.zeros(1, np.float32)}, {"facts": facts}))
        return Run(tensors.get("logits"), tensors.get("novel"), json.loads(facts))


def _plain(value: Any) -> Any:
    """Write numbers of numpy as numbers, and anything else as text."""
    return value.item() if isinstance(value, np.generic) else str(value)


RESULTS, PAIRED, RUNS, PREDICTIONS, JSON = "results", "paired", "runs.parquet", "predictions.parquet", "compare.json"


def write_tables(store: RunStore, result: Comparison, data: FewShotData, runs: Mapping[RunKey, Run]) -> None:
    """Write results and paired differences (CSV and Parquet), runs, predictions, and everything as JSON."""
    for name, row_type, rows in ((RESULTS, Cell, result.cells), (PAIRED, Paired, result.differences)):
        table = table_of(rows, row_type, schema_of(row_type, integer="int32"))
        write_file(store.folder / f"{name}.csv", csv_bytes(table))
        write_file(store.folder / f"{name}.parquet", parquet_bytes(table))
    write_file(store.folder / RUNS, parquet_bytes(_runs(runs)))
    write_file(store.folder / PREDICTIONS, parquet_bytes(_predictions(data, runs)))
    write_file(store.folder / JSON, result.to_json())


def _runs(runs: Mapping[RunKey, Run]) -> pa.Table:
    """One row for each run: what it learned from (rows of the table), what it took, why it failed."""
    import pyarrow as pa

    facts = [run.facts for run in runs.values()]

    def column(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([f.get(name) for f in facts], kind)

    columns = {
        "method": pa.array([key.label for key in runs], pa.string()),
        "part": pa.array([key.part for key in runs], pa.string()),
        "shots": pa.array([key.shots for key in runs], pa.int32()),
        "seed": pa.array([key.seed for key in runs], pa.int32()),
        "init": pa.array([key.init for key in runs], pa.int32()),
        "train_rows": column("train_rows", pa.list_(pa.int64())),
        "val_rows": column("val_rows", pa.list_(pa.int64())),
        "num_trainable": column("num_trainable", pa.int64()),
        "fit_seconds": column("fit_seconds", pa.float64()),
        "predict_seconds": column("predict_seconds", pa.float64()),
        "settings": pa.array([json.dumps(f.get("settings", {}), sort_keys=True) for f in facts], pa.string()),
        "notes": column("notes", pa.list_(pa.string())),
        "reason": column("reason", pa.string()),
        "message": column("message", pa.string()),
    }
    return pa.table(columns)


def _predictions(data: FewShotData, runs: Mapping[RunKey, Run]) -> pa.Table:
    """One row for each run and test image; patients as keyed hashes, no path."""
    import pyarrow as pa

    test = [data.unit(r) for r in data.test]
    labels = [json.dumps(u.target) if isinstance(u.target, tuple) else data.text.names[u.target] for u in test]
    tables = []
    for key, run in runs.items():
        if run.logits_NC is None or key.part != "all":
            continue
        chances = probabilities(run.logits_NC, data.text.kind)
        of_run = {
            "method": pa.array([key.label] * len(test), pa.string()),
            "shots": pa.array([key.shots] * len(test), pa.int32()),
            "seed": pa.array([key.seed] * len(test), pa.int32()),
            "init": pa.array([key.init] * len(test), pa.int32()),
            "row": pa.array([u.number for u in test], pa.int64()),
            "patient": pa.array([u.patient for u in test], pa.string()),
            "label": pa.array(labels, pa.string()),
            "probabilities": pa.FixedSizeListArray.from_arrays(
                pa.array(chances.astype(np.float32).ravel(), pa.float32()), chances.shape[1]
            ),
        }
        tables.append(pa.table(of_run))
    return pa.concat_tables(tables) if tables else pa.table({})


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
    """Place the learned context of CoOp around other names."""
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
    """Place the learned context of CoCoOp before other names."""
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


@lru_cache(maxsize=_MODELS)
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


@lru_cache(maxsize=_MODELS)
def _model(path: str, device: str) -> Model:
    from medclip.models.packs.pack import load_model

    return load_model(path, device=device)


def _bug(error: Exception) -> str:
    """Return what kind of error and where in our code; never its own text, which may quote a file."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).resolve().parents[2])
    ours = [f for f in frames if f.filename.startswith(package)] or frames
    return f"It ended in an error ({type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno})."
