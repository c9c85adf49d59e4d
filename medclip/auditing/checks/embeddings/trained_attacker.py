"""An attacker who trains: a linear head on the embeddings, taught to find the same patient again.

The contrastive re-identification of CLIP-ReIdent on studies instead of players: two images of one patient from
different studies are partners, a batch holds no patient twice. Patients are divided; what was learned from one half is
measured on the other, beside the frozen embeddings of that same half. An audit tool: nothing trained here is kept.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.checks.embeddings.patient_retrieval import ANYBODY, Images, reident
from medclip.auditing.checks.embeddings.vectors import FEWEST_PATIENTS, row, unit_vectors
from medclip.auditing.checks.embeddings.verification import pair_rows
from medclip.auditing.checks.table import CheckRows
from medclip.statistics.cohort import CONFLICT, MISSING

if TYPE_CHECKING:
    from torch import Tensor

    from medclip.auditing.checks.evidence import Evidence

_AGE_ATTRIBUTE = "age"
_SAME = ("sex", "site")
"""Attributes that the matched gallery holds fixed."""
LINEAR = "trained linear head"
SMOOTHING = 0.1
_SCALE = 1 / 0.07
_FAILURES = 10
"""Images in a row whose patient is in the batch already, before it is closed."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Pairs of one step: row i of both is of one patient, and no patient is there twice."""

    first_B: NDArray[np.int64]
    second_B: NDArray[np.int64]


@dataclass(frozen=True)
class Training:
    """How the attacker trains."""

    epochs: int
    batch_size: int
    rate: float
    """Greatest learning rate; after one epoch of warm-up it falls in a line to `last_rate`."""
    last_rate: float = 1e-5


HEAD = Training(epochs=40, batch_size=64, rate=1e-3)


def plan_batches(
    partners: Sequence[NDArray[np.int64]], patients_N: NDArray[np.integer], training: Training, *, seed: int
) -> list[list[Batch]]:
    """Draw the batches of every epoch.

    Each image with partners asks once an epoch, in random order. One whose patient is in the batch already goes to the
    end of the queue; after ten such in a row the batch is closed, and the epoch ends when a batch would hold only one.
    """
    rng = np.random.default_rng(seed)
    asking = np.array([i for i, rows in enumerate(partners) if len(rows)], np.int64)
    return [
        _epoch(partners, patients_N, rng.permutation(asking), training.batch_size, rng) for _ in range(training.epochs)
    ]


def check_reidentification(evidence: Evidence) -> CheckRows:
    """Look for the same patient's other images, and with a trained head where that is asked for: table `embeddings`."""
    vectors_ND, options = evidence.vectors_ND, evidence.options
    assert vectors_ND is not None  # CHECKS needs them
    evidence.progress.stage("Looking for patients in embeddings", 1)
    images = _images(evidence)
    rows = reident(vectors_ND, images, seed=options.seed)
    if options.image_checks.attacker:
        rows += attack_head(vectors_ND, images, seed=options.seed)
    evidence.progress.step()
    return CheckRows({"embeddings": rows})


def _images(evidence: Evidence) -> Images:
    """Return what the audit knows of its images: studies, bytes, and what the matched gallery holds fixed."""
    cohort, study, files = evidence.cohort, evidence.options.image_checks.study, evidence.files
    same = {}
    for attribute in evidence.single_attributes:
        if attribute.name in _SAME:
            unknown = [g for g, group in enumerate(attribute.groups) if group in (MISSING, CONFLICT)]
            same[attribute.name] = np.where(np.isin(attribute.codes_N, unknown), -1, attribute.codes_N)
    return Images(
        cohort.patients_N,
        studies_N=None if study is None else cohort.columns[study],
        hashes_N=() if files is None else files.sha256,
        same=same,
        age_years_N=cohort.columns.get(_AGE_ATTRIBUTE),
    )


def attack_head(
    vectors_ND: NDArray[np.floating],
    images: Images,
    *,
    training: Training = HEAD,
    num_replicates: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Train a linear map of frozen embeddings to re-identify, and measure it on patients it has not seen.

    Args:
        vectors_ND: Unit vectors; rows of NaN are left out.
        images: Patients and studies of the rows.
        training: Epochs, batch size and rates.
        num_replicates: Number of resamples of the bootstrap.
        seed: Seed of the halves, batches and draws.

    Returns:
        The rows of `reident` twice: the held-out half as it is, and after the head.

    Reference: Habel et al., CLIP-ReIdent: Contrastive training for player re-identification, MMSports 2022.
    """
    images.check(vectors_ND)
    present = np.flatnonzero(~np.isnan(vectors_ND).any(axis=1))
    vectors_ND, images = np.asarray(vectors_ND, np.float32)[present], images.take(present)
    half = _halves(images, seed)
    if half is None:
        return [_too_few()]
    import torch

    from medclip.models.devices import torch_threads

    centred = torch.from_numpy(vectors_ND - vectors_ND[half.taught].mean(axis=0))
    batches = plan_batches(half.partners, half.patients_N, training, seed=seed)
    with torch_threads(1):
        weight = torch.eye(centred.shape[1], requires_grad=True)
        _train([weight], lambda rows: centred[torch.from_numpy(rows)] @ weight, batches, training)
        learned = (centred @ weight.detach()).numpy()
    return _measured(vectors_ND, learned, images, half, num_replicates, seed)


@dataclass(frozen=True, eq=False)
class _Half:
    patients_N: NDArray[np.int32]
    partners: list[NDArray[np.int64]]
    """Of each row that is learned from; empty for all others."""
    tested: NDArray[np.int64]
    """Rows of the patients who are not learned from."""

    @property
    def taught(self) -> NDArray[np.int64]:
        """Rows that are learned from."""
        return np.flatnonzero([len(p) > 0 for p in self.partners])


def _halves(images: Images, seed: int) -> _Half | None:
    """Divide the patients who have images of two studies; None where either half is too small.

    Patients with one study teach nothing, and are all on the side that is tested, among those a query may be taken for.
    """
    _, patients_N = np.unique(images.patients_N, return_inverse=True)
    first, second = pair_rows(patients_N, images.groups())
    able = np.unique(patients_N[first])
    if len(able) < 2 * FEWEST_PATIENTS:
        return None
    taught = np.random.default_rng(seed).permutation(able)[: len(able) // 2]
    chosen = np.isin(patients_N[first], taught)
    first, second = np.r_[first[chosen], second[chosen]], np.r_[second[chosen], first[chosen]]
    order = np.argsort(first, kind="stable")
    partners = np.split(second[order], np.cumsum(np.bincount(first, minlength=len(patients_N)))[:-1])
    return _Half(patients_N.astype(np.int32), partners, np.flatnonzero(~np.isin(patients_N, taught)))


def _epoch(
    partners: Sequence[NDArray[np.int64]],
    patients_N: NDArray[np.integer],
    order: NDArray[np.int64],
    batch_size: int,
    rng: np.random.Generator,
) -> list[Batch]:
    queue, losses = deque(order.tolist()), []
    taken: list[int] = []
    failures = 0
    while queue:
        image = queue.popleft()
        if patients_N[image] in patients_N[taken]:
            queue.append(image)
            failures += 1
        else:
            taken.append(image)
            failures = 0
        if len(taken) == batch_size or failures == _FAILURES or not queue:
            if len(taken) < 2:
                break
            losses.append(_batch(taken, partners, rng))
            taken, failures = [], 0
    return losses


def _batch(taken: list[int], partners: Sequence[NDArray[np.int64]], rng: np.random.Generator) -> Batch:
    second = [int(rng.choice(partners[i])) for i in taken]
    return Batch(np.array(taken), np.array(second))


def _train(
    parameters: list[Tensor],
    features: Callable[[NDArray[np.int64]], Tensor],
    epochs: list[list[Batch]],
    training: Training,
) -> None:
    """Minimise the smoothed InfoNCE over all batches, in place."""
    import torch
    from torch.nn.functional import normalize

    from medclip.objectives.smoothed import smoothed_info_nce

    log_scale = torch.tensor(math.log(_SCALE), requires_grad=True)
    optimiser = torch.optim.AdamW([*parameters, log_scale], lr=training.rate, weight_decay=0.0)
    total, warm = sum(map(len, epochs)), len(epochs[0]) if epochs else 0
    for step, batch in enumerate((b for epoch in epochs for b in epoch), 1):
        share_to_go = (total - step) / max(1, total - warm)
        rate = training.rate * step / warm if step <= warm else max(training.last_rate, training.rate * share_to_go)
        for group in optimiser.param_groups:
            group["lr"] = rate
        first, second = (normalize(features(rows), dim=-1) for rows in (batch.first_B, batch.second_B))
        scale = log_scale.exp().clamp(max=100).to(first.device)
        loss = smoothed_info_nce(first, second, scale, smoothing=SMOOTHING)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def _measured(
    frozen_ND: NDArray[np.float32],
    learned_ND: NDArray[np.float32],
    images: Images,
    half: _Half,
    num_replicates: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Measure the held-out half before and after."""
    kept = images.take(half.tested)
    rows_made = []
    for name, vectors_ND in ((f"before {LINEAR}", frozen_ND), (LINEAR, unit_vectors(learned_ND))):
        rows = reident(vectors_ND[half.tested], kept, num_replicates=num_replicates, seed=seed)
        rows_made += [{**r, "attribute": f"{r['attribute']} (held out, {name})"} for r in rows]
    return rows_made


def _too_few() -> dict[str, Any]:
    note = (
        f"cannot tell: fewer than {2 * FEWEST_PATIENTS} patients have images of two studies; the {LINEAR} was not made."
    )
    return row("reident", f"{ANYBODY} (held out, {LINEAR})", "verdict", note=note)
