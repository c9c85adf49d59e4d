"""Choose the patches of a slide: by attributes, by findings and by clusters, without those that look alike.

The attributes of organs are ours; a file of your own in the same form (organ: list of phrases) adds organs or replaces
them. Names of TCGA projects are understood, with hyphen or underscore. A slide's findings are its own: nothing that is
asked of one slide is asked of another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason, did_you_mean

ANY = "any"
"""What is asked of every organ."""
_FILE = Path(__file__).parent / "attributes.yaml"
_OF_PROJECT = {
    "BLCA": "bladder",
    "BRCA": "breast",
    "COAD": "colon",
    "DLBC": "lymph node",
    "GBM": "brain",
    "KICH": "kidney",
    "KIRC": "kidney",
    "KIRP": "kidney",
    "LGG": "brain",
    "LIHC": "liver",
    "LUAD": "lung",
    "LUSC": "lung",
    "OV": "ovary",
    "PAAD": "pancreas",
    "PRAD": "prostate",
    "READ": "colon",
    "SKCM": "skin",
    "STAD": "stomach",
    "THCA": "thyroid",
    "UCEC": "uterus",
}
"""TCGA's projects of the organs that we have attributes of; others are asked for what is asked of any."""


@dataclass(frozen=True)
class SelectionPrompts:
    """What is asked of one slide."""

    organ: str
    attributes: tuple[str, ...]
    findings: tuple[str, ...] = ()
    """Of this slide's report."""


@cache
def own_attributes() -> Mapping[str, tuple[str, ...]]:
    """Return the attributes that come with medclip, by organ."""
    return read_attributes(_FILE)


def read_attributes(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a file of attributes.

    Args:
        path: YAML: a list of phrases for each organ.

    Raises:
        MedclipError: MISSING_FILE; RECIPE_INVALID for anything else than lists of texts.
    """
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MedclipError(Reason.MISSING_FILE, "there is no such file.", where=path, hint="Check the path.") from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as e:
        raise MedclipError(Reason.RECIPE_INVALID, f"this is no YAML ({type(e).__name__}).", where=path) from None
    if not isinstance(values, dict) or not values or not all(map(_is_phrases, values.values())):
        raise MedclipError(
            Reason.RECIPE_INVALID,
            "a file of attributes holds a list of phrases for each organ.",
            where=path,
            hint='Write for instance "colon:" and below it lines such as "  - crypt abscess - neutrophils in a crypt".',
        )
    return {organ_of(str(organ)): tuple(dict.fromkeys(phrases)) for organ, phrases in values.items()}


def prompts_for(
    organ: str | None, findings: Iterable[str] = (), attributes: Mapping[str, tuple[str, ...]] | None = None
) -> SelectionPrompts:
    """Return what is asked of one slide.

    Args:
        organ: An organ, or a TCGA project; None asks what is asked of any.
        findings: Findings of this slide's report.
        attributes: Attributes by organ, which replace those of medclip for the organs that they name.

    Raises:
        MedclipError: WRONG_USE for an organ that has no attributes.

    Example:
        >>> prompts_for("TCGA_BRCA", ["mucin pools"]).organ
        'breast'
    """
    phrases_of = {**own_attributes(), **(attributes or {})}
    name = organ_of(organ or ANY)
    if name not in phrases_of:
        raise MedclipError(
            Reason.WRONG_USE,
            f"there are no attributes of the organ {name!r}.",
            hint=did_you_mean(name, sorted(phrases_of), "Organs are")
            + " A file of your own adds others: --attributes.",
        )
    phrases = dict.fromkeys([*phrases_of[name], *phrases_of.get(ANY, ())])
    return SelectionPrompts(name, tuple(phrases), tuple(dict.fromkeys(f.strip() for f in findings if f.strip())))


def organ_of(name: str) -> str:
    """Return the organ that a name stands for: in small letters, TCGA's projects as organs.

    Example:
        >>> organ_of("TCGA-KIRC"), organ_of("Lymph_Node"), organ_of("TCGA-ACC")
        ('kidney', 'lymph node', 'any')
    """
    plain = " ".join(name.replace("_", " ").replace("-", " ").split())
    words = plain.upper().split()
    if words[:1] == ["TCGA"]:
        return _OF_PROJECT.get(words[-1], ANY)
    return plain.lower()


def _is_phrases(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) and v.strip() for v in value)


BATCH = 128
"""Patches to one unit of `n` in the number of clusters: PathGen counts batches of its loader."""
BRANCHES = ("attribute", "finding", "cluster")
SCALE = 100.0
"""What cosines are multiplied with, as CLIP's logits are."""


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
        options: Options of the choice; the defaults if None.

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


def attribute_scores(
    features_ND: NDArray[np.floating[Any]], attributes_AD: NDArray[np.floating[Any]]
) -> NDArray[np.float32]:
    """Score each patch by the attribute that it shows best.

    Args:
        features_ND: Unit vectors of patches.
        attributes_AD: Unit vectors of the attributes, however many.

    Returns:
        float32 [N]: 100 times the largest cosine; 0 without attributes.

    Example:
        >>> attribute_scores(np.eye(3), np.eye(3)[:1]).tolist()
        [100.0, 0.0, 0.0]
    """
    if not len(attributes_AD):
        return np.zeros(len(features_ND), np.float32)
    return (SCALE * (np.asarray(features_ND, np.float32) @ np.asarray(attributes_AD, np.float32).T)).max(axis=1)


def finding_scores(
    features_ND: NDArray[np.floating[Any]], findings_FD: NDArray[np.floating[Any]]
) -> NDArray[np.float32]:
    """Score each patch by all findings of the slide's report together.

    Args:
        features_ND: Unit vectors of patches.
        findings_FD: Unit vectors of the findings.

    Returns:
        float32 [N]: 100 times the sum of cosines; 0 without findings.

    Example:
        >>> finding_scores(np.eye(3), np.eye(3)[[1, 1]]).tolist()
        [0.0, 200.0, 0.0]
    """
    if not len(findings_FD):
        return np.zeros(len(features_ND), np.float32)
    return (SCALE * (np.asarray(features_ND, np.float32) @ np.asarray(findings_FD, np.float32).T)).sum(axis=1)


def best_rows(scores_N: NDArray[np.float32], num: int) -> list[int]:
    """Return the rows of the highest scores, best first; of equal ones the first."""
    return np.argsort(-scores_N, kind="stable")[:num].tolist()


def unlike_rows(
    features_ND: NDArray[np.floating[Any]], scores_N: NDArray[np.floating[Any]], most_cosine: float = 0.95
) -> list[int]:
    """Choose patches that differ from each other.

    Going through patches by their score and keeping each that is unlike all kept ones is the obvious way, but it can
    keep fewer patches at a higher threshold: a patch in the middle that is now kept excludes two at the sides that were
    kept before. So patches are taken in the order of T. Gonzalez (Theor. Comput. Sci. 38, 1985): the best one first,
    then always the one that is least like those that are kept, until all others are too much like one. What is kept at
    a threshold is then kept at every higher one; each patch that is left out is that much like a kept one; and no two
    kept are.

    Args:
        features_ND: Unit vectors.
        scores_N: Scores; the best one is kept, and of equal ones the better.
        most_cosine: Cosine that no two kept patches exceed; 1 drops nothing but copies, as far as rounding tells them.

    Returns:
        Rows that are kept, best score first. The order of the input does not matter where scores are distinct.

    Example:
        >>> unlike_rows(np.eye(3)[[0, 0, 1]], np.array([1.0, 2.0, 3.0]))
        [2, 1]
    """
    order = np.argsort(-np.asarray(scores_N, np.float64), kind="stable")
    if not len(order):
        return []
    vectors = np.asarray(features_ND, np.float64)[order]
    limit = min(most_cosine, 1.0 - 1e-6)  # float32 vectors of one image differ by less
    kept = [0]
    nearest = vectors @ vectors[0]
    nearest[0] = np.inf
    while True:
        least = int(np.argmin(nearest))  # of equal ones the first, which has the better score
        if nearest[least] > limit:
            break
        kept.append(least)
        nearest = np.maximum(nearest, vectors @ vectors[least])
        nearest[least] = np.inf
    return [int(order[row]) for row in sorted(kept)]


def number_of_clusters(num_patches: int, batch: int = BATCH) -> int:
    """Return k = ceil(sqrt(1.6 n)), n the number of batches.

    Args:
        num_patches: Patches of the slide.
        batch: 128 is what PathGen's code does; 1 counts patches, which may be what its authors meant: 5,000 patches
            have 90 clusters then, and not 8.

    Example:
        >>> number_of_clusters(5000), number_of_clusters(5000, 1)
        (8, 90)
    """
    return max(1, min(num_patches, math.ceil(math.sqrt(1.6 * math.ceil(num_patches / batch)))))


def cluster_patches(features_ND: NDArray[np.floating[Any]], num_clusters: int, seed: int = 0) -> NDArray[np.int64]:
    """Assign patches to clusters by k-means, so that some of each kind of tissue are chosen, asked for or not.

    Args:
        features_ND: Unit vectors.
        num_clusters: Number of clusters; at most as many as there are different vectors.
        seed: Seed of the first centres.

    Returns:
        int64 [N].
    """
    from sklearn.cluster import KMeans

    vectors = np.asarray(features_ND, np.float64)
    distinct = len(np.unique(vectors, axis=0))
    # "auto" is one start of k-means++.
    means: Any = KMeans(min(num_clusters, distinct), n_init="auto", random_state=seed)
    return np.asarray(means.fit_predict(vectors), np.int64)


def draw_from_clusters(clusters_N: NDArray[np.int64], num: int, seed: int = 0) -> list[int]:
    """Draw patches of every cluster.

    Args:
        clusters_N: Cluster of each patch.
        num: Highest number of patches in all; of each cluster `num // k`, at least one, and all of a smaller one.
        seed: Seed of the draw.

    Returns:
        Rows, cluster by cluster, each in ascending order.

    Example:
        >>> drawn = draw_from_clusters(np.repeat(np.arange(8), [100] * 7 + [5]), 256)
        >>> len(drawn), sum(row >= 700 for row in drawn)
        (229, 5)
    """
    names = np.unique(clusters_N)
    quota = max(1, num // max(1, len(names)))
    rng = np.random.default_rng(seed)
    drawn: list[int] = []
    for name in names:
        members = np.flatnonzero(clusters_N == name)
        if len(members) > quota:
            members = np.sort(rng.choice(members, quota, replace=False))
        drawn += members.tolist()
    return drawn[:num]
