"""Choose the patches of a slide: by attributes, by findings and by clusters, without those that look alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.captioning.selection.clusters import BATCH, cluster_patches, draw_from_clusters, number_of_clusters
from medclip.captioning.selection.scores import attribute_scores, best_rows, finding_scores
from medclip.captioning.selection.similarity import unlike_rows
from medclip.errors import MedclipError, Reason

BRANCHES = ("attribute", "finding", "cluster")


@dataclass(frozen=True)
class SelectionOptions:
    """How many patches, and how different."""

    num_by_attributes: int = 64
    """Patches that fit the organ's attributes best. PathGen's code does not say how many; its figure shows 64."""
    num_by_findings: int = 64
    num_by_clusters: int = 256
    cluster_batch: int = BATCH
    """Patches to one unit in the number of clusters; see `number_of_clusters`."""
    most_cosine: float = 0.95
    """Cosine that no two chosen patches exceed."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what selects nothing.

        Raises:
            MedclipError: WRONG_USE.
        """
        numbers = self.num_by_attributes, self.num_by_findings, self.num_by_clusters
        if min(numbers) < 0 or not any(numbers) or self.cluster_batch < 1 or not -1 <= self.most_cosine <= 1:
            raise MedclipError(
                Reason.WRONG_USE,
                "a selection takes numbers of patches that are not negative and not all 0, and a cosine from -1 to 1.",
            )


@dataclass(frozen=True)
class ChosenPatch:
    """One patch that gets a caption, and why."""

    row: int
    """Of the patches that were chosen from."""
    branches: tuple[str, ...]
    """Of `BRANCHES`."""
    attribute: int | None
    """The attribute that it shows best; None without attributes."""
    attribute_score: float
    finding_score: float
    cluster: int | None


def choose_patches(
    features_ND: NDArray[np.floating[Any]],
    attributes_AD: NDArray[np.floating[Any]],
    findings_FD: NDArray[np.floating[Any]],
    options: SelectionOptions | None = None,
) -> tuple[ChosenPatch, ...]:
    """Choose patches.

    Args:
        features_ND: Unit vectors of a slide's patches.
        attributes_AD: Unit vectors of the organ's attributes; [0, D] without any.
        findings_FD: Unit vectors of the findings of this slide's report; [0, D] without any.
        options: Numbers; the defaults if None.

    Returns:
        In the order of the patches.
    """
    options = options or SelectionOptions()
    if not len(features_ND):
        return ()
    by_attribute = attribute_scores(features_ND, attributes_AD)
    by_finding = finding_scores(features_ND, findings_FD)
    branches: dict[int, list[str]] = {}
    # Findings add up, attributes do not: the mean over findings stands on the scale of one prompt.
    rank = np.full(len(features_ND), -np.inf)
    wanted = (
        ("attribute", by_attribute, options.num_by_attributes if len(attributes_AD) else 0, 1),
        ("finding", by_finding, options.num_by_findings if len(findings_FD) else 0, max(1, len(findings_FD))),
    )
    for branch, scores, num, divisor in wanted:
        for row in best_rows(scores, num):
            branches.setdefault(row, []).append(branch)
            rank[row] = max(rank[row], scores[row] / divisor)
    clusters = None
    if options.num_by_clusters:
        num_clusters = number_of_clusters(len(features_ND), options.cluster_batch)
        clusters = cluster_patches(features_ND, num_clusters, options.seed)
        for row in draw_from_clusters(clusters, options.num_by_clusters, options.seed):
            branches.setdefault(row, []).append("cluster")
    rows = np.array(sorted(branches), np.int64)
    # What nothing asked for comes behind what something did: of two that look alike, the latter is kept.
    kept = unlike_rows(features_ND[rows], rank[rows], options.most_cosine)
    best = (features_ND @ np.asarray(attributes_AD).T).argmax(axis=1) if len(attributes_AD) else None
    return tuple(
        ChosenPatch(
            row,
            tuple(branches[row]),
            None if best is None else int(best[row]),
            float(by_attribute[row]),
            float(by_finding[row]),
            None if clusters is None else int(clusters[row]),
        )
        for row in sorted(int(rows[index]) for index in kept)
    )
