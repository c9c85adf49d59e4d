"""Step `image`: pairs whose image lies where images of a target's training split lie.

After DataComp's image-based filter (Gadre et al., NeurIPS 2023): the pool's vectors are clustered by k-means, and a
pair stays where its nearest centroid is the nearest one of at least one image of the target. Two things differ from the
reference. Nearest is by distance here, as k-means has it; the reference compares raw products, by which centroids of
large norm win (`reference: true`). And the reference asks a caption of more than one word and five characters first,
which is the step `basic` here.

A target is what a model is wanted for. Its test split is refused: a pool that was chosen by the images of a test makes
figures on them too good.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator

from medclip.errors import MedclipError, Reason
from medclip.pairs.pile import Pile, read_pile
from medclip.pairs.selection.pack_vectors import encode_pile, load_pack, other_notes, pack_facts, unread_notes
from medclip.pairs.selection.steps import FilterSettings, Verdict
from medclip.settings import DEFAULT_MODEL
from medclip.wording import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medclip.pairs.selection.steps import Context

_ROWS_AT_ONCE = 4096
_PAIRS_PER_CLUSTER, _MOST_CLUSTERS = 100, 100_000
_ITERATIONS = 20


class ImageSettings(FilterSettings):
    """What `image` is asked."""

    target: str
    """Shard folder or table of the images that a model is wanted for."""
    target_split: str = "train"
    """Split of these that is looked at; a test split is refused."""
    model: str = DEFAULT_MODEL
    """Pack that makes vectors; a folder or a built-in pack."""
    clusters: int | None = Field(default=None, ge=1)
    """Number of centroids; one for each 100 pairs where None, at most 100,000."""
    reference: bool = False
    """Whether captions and nearest centroids follow DataComp's rules."""

    def places(self) -> tuple[str, ...]:
        """Return the target."""
        return (self.target,)

    def packs(self) -> tuple[str, ...]:
        """Return the pack."""
        return (self.model,)

    @field_validator("target_split")
    @classmethod
    def _no_test(cls, split: str) -> str:
        if split.strip().lower().startswith("test"):
            raise ValueError("a pool is never chosen by the images of a test split; name the training split.")
        return split


def image(pile: Pile, rows_M: NDArray[np.int64], settings: ImageSettings, context: Context, number: int) -> Verdict:
    """Keep pairs of the clusters that images of a target's training split lie in.

    Args:
        pile: Pairs.
        rows_M: Rows that earlier steps kept.
        settings: Target, pack and number of clusters.
        context: Seed, progress and folder.
        number: Place of the step.

    Returns:
        As values the number of the target's images whose nearest centroid is that of a pair; 0 is dropped.

    Raises:
        MedclipError: NOTHING_TO_DO where no image of the target can be read; what loading a pack and reading a target
            raises.
    """
    model = load_pack(settings.model, context)
    place = settings.target if "://" in settings.target else context.folder / settings.target
    target = read_pile(
        place,
        split=settings.target_split,
        form=context.form,
        settings=context.settings,
        progress=context.progress,
    )
    aim = encode_pile(model, target, np.arange(len(target)), context.progress)
    aim_TD = aim.vectors_MD[np.isfinite(aim.vectors_MD[:, 0])]
    if not len(aim_TD):
        raise MedclipError(Reason.NOTHING_TO_DO, "no image of the target could be read.", where=place)
    pool = encode_pile(model, pile, rows_M, context.progress)
    read_M = np.isfinite(pool.vectors_MD[:, 0])
    if settings.reference:
        read_M &= [has_words(text) for text in pile.words(rows_M)]
    value_M, kept_M = np.full(len(rows_M), np.nan), np.zeros(len(rows_M), bool)
    facts: dict[str, Any] = {"pack": pack_facts(model), "unread": dict(pool.unread), "target_images": len(aim_TD)}
    notes = [*other_notes(model, pool), *unread_notes(pool.unread)]
    if read_M.any():
        vectors = pool.vectors_MD[read_M]
        num = settings.clusters or min(math.ceil(len(vectors) / _PAIRS_PER_CLUSTER), _MOST_CLUSTERS)
        centroids_CD = compute_centroids(vectors, num, int(context.rng("image", number).integers(2**31)))
        counts_C = np.bincount(nearest_centroids(aim_TD, centroids_CD, settings.reference), minlength=len(centroids_CD))
        value_M[read_M] = counts_C[nearest_centroids(vectors, centroids_CD, settings.reference)]
        kept_M[read_M] = value_M[read_M] > 0
        facts |= {"clusters": len(centroids_CD), "clusters_of_target": int((counts_C > 0).sum())}
        if len(centroids_CD) < num:
            clusters = f"{count(len(centroids_CD), 'cluster')} in the place of {num:,}"
            notes.append(f"{clusters}: there are no more different images.")
        if (counts_C > 0).all():
            notes.append("Caution: the target lies in every cluster, so nothing is dropped; name more `clusters`.")
    kept_M |= pool.is_other_M
    return Verdict(kept_M, value_M, facts=facts, notes=tuple(notes))


def has_words(text: str) -> bool:
    """Whether a caption has more than one word and five characters: DataComp's test before its image-based filter."""
    return len(text.split()) > 1 and len(text) > 5


def compute_centroids(vectors_ND: NDArray[np.float32], num_clusters: int, seed: int) -> NDArray[np.float32]:
    """Compute the centroids of all vectors by 20 rounds of k-means, from vectors that are drawn.

    Args:
        vectors_ND: The pool's vectors.
        num_clusters: Number of centroids; no more than there are different vectors.
        seed: Seed of the first centroids.

    Returns:
        float32 [C, D].
    """
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    num = min(num_clusters, len(np.unique(vectors_ND, axis=0)))
    start: Any = 1
    means: Any = KMeans(num, init="random", n_init=start, max_iter=_ITERATIONS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 20 rounds are what is wanted
        means.fit(np.asarray(vectors_ND, np.float32))
    return np.asarray(means.cluster_centers_, np.float32)


def nearest_centroids(
    vectors_ND: NDArray[np.float32], centroids_CD: NDArray[np.float32], reference: bool = False
) -> NDArray[np.int64]:
    """Return the nearest centroid of each vector, int64 [N].

    Args:
        vectors_ND: Vectors.
        centroids_CD: Centroids.
        reference: Whether it is the one of the largest product, as in DataComp, in place of the smallest distance.
    """
    half_C = 0 if reference else np.einsum("cd,cd->c", centroids_CD, centroids_CD) / 2
    parts = [np.zeros(0, np.int64)]
    for start in range(0, len(vectors_ND), _ROWS_AT_ONCE):
        parts.append((vectors_ND[start : start + _ROWS_AT_ONCE] @ centroids_CD.T - half_C).argmax(axis=1))
    return np.concatenate(parts)
