"""Over-cluster images by what a pack makes of them: more clusters than things to tell apart, so that each shows one.

Vectors are reduced by a PCA and grouped by k-means in small batches; both are kept as plain arrays with their hash.
Reference: Lozano et al., "BIOMEDICA", CVPR 2025: 45 components, 2,000 clusters, sheets of 20 images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_folder, in_use, new_folder, write_file
from medclip.files.tables.write import csv_bytes, parquet_bytes
from medclip.imaging.geometry import fit
from medclip.models.packs.manifest import pack_digest
from medclip.pairs.pile import Pile
from medclip.pairs.selection.pack_vectors import encode_pile
from medclip.progress import Progress
from medclip.result import Result
from medclip.shards.stored_data import encode
from medclip.wording import by_reason, count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medclip.models.model import Model

ASSIGNMENTS, MODEL, FACTS, LABELS, PAGE = (
    "assignments.parquet",
    "clusters.safetensors",
    "clusters.json",
    "labels.csv",
    "clusters.html",
)
NUM_SHOWN = 20
"""Images of each cluster on a page."""
CLUSTERS_OF_PAGE = 250
"""More stand on pages of their own: 5,000 small images take some 20 MB."""
THUMBNAIL_PX = 96
_MOST_FITTED = 200_000
"""Vectors that the components are computed of; all are grouped."""
_MARGIN = 3
"""Decimals of the share of variance."""


@dataclass(frozen=True)
class Sheet:
    """What the page shows of a cluster."""

    cluster: int
    size: int
    images: tuple[bytes, ...]
    """JPEG."""


@dataclass(frozen=True, repr=False)
class Clusters(Result):
    """Clusters of images, as their folder has them."""

    folder: Path
    num_images: int
    num_clusters: int
    components: int
    explained: float
    """Share of the variance that the components have."""
    seed: int
    model: Mapping[str, str]
    """Name, version and digest of the pack."""
    pile: Mapping[str, str]
    """Place of the images, and hash of what is known of them."""
    model_sha256: str
    """Of the arrays: mean, components and centres."""
    sizes: tuple[int, ...]
    """Images of each cluster."""
    unread: Mapping[str, int]
    """Images in none, by reason."""

    def _facts(self) -> dict[str, object]:
        return {
            "images": self.num_images,
            "clusters": f"{self.num_clusters} of {min(self.sizes)} to {max(self.sizes)} images",
            "components": f"{self.components}, {self.explained:.1%} of the variance",
            "not read": by_reason(self.unread) if self.unread else "",
            "model": f"{self.model['name']} {self.model['version']}",
            "folder": self.folder,
        }

    @property
    def stored(self) -> dict[str, Any]:
        """What the folder's own file says: all but where it lies."""
        return {name: value for name, value in asdict(self).items() if name != "folder"}

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain data for JSON."""
        return {"folder": str(self.folder), **self.stored}


def read_clusters(folder: Path) -> tuple[Clusters, pa.Table]:
    """Read clusters, and in which each image is (key, split, cluster).

    Raises:
        MedclipError: MISSING_FILE where there are none; TABLE_INVALID where the arrays are others than were written.
    """
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        clusters = Clusters(folder, **{**facts, "sizes": tuple(facts["sizes"])})
        sha256 = hashlib.sha256((folder / MODEL).read_bytes()).hexdigest()
        table = pq.read_table(folder / ASSIGNMENTS)
    except FileNotFoundError:
        raise MedclipError(
            Reason.MISSING_FILE,
            "there are no clusters here.",
            where=folder,
            hint="Make them with medclip pairs cluster.",
        ) from None
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as e:
        raise MedclipError(Reason.TABLE_INVALID, f"clusters cannot be read ({type(e).__name__}).", where=folder) from e
    if sha256 != clusters.model_sha256:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"{MODEL} was changed since it was written.",
            where=folder,
            hint="Cluster the images again.",
        )
    return clusters, table


def cluster_images(
    pile: Pile,
    out: Path,
    model: Model,
    *,
    num_clusters: int,
    components: int,
    seed: int,
    render: Callable[[Clusters, Sequence[Sheet]], str],
    progress: Progress,
) -> Clusters:
    """Cluster the images of a pile.

    Args:
        pile: Pile of N images.
        out: Folder to make: assignments, arrays, a table to label clusters in, and a page that shows them.
        model: Loaded pack.
        num_clusters: Number of clusters.
        components: Number of components of the PCA.
        seed: Seed of the PCA, of k-means and of the images that are shown.
        render: Function that makes a page of some clusters.
        progress: Progress bar of the images.

    Raises:
        MedclipError: OUTPUT_IN_USE; WRONG_USE for more clusters than images. An image that cannot be read is in no
            cluster, and counted.
    """
    if claim_folder(out, "clusters", marks=(FACTS,), in_one_step=True):
        raise in_use(out, "this folder holds clusters already", "Name another folder, or remove this one first.")
    _refuse_more(num_clusters, len(pile), pile.place)
    encoded = encode_pile(model, pile, np.arange(len(pile)), progress)
    rows_N = np.flatnonzero(np.isfinite(encoded.vectors_MD).all(axis=1))
    _refuse_more(num_clusters, len(rows_N), pile.place)
    vectors_ND = encoded.vectors_MD[rows_N]
    arrays, labels_N, explained = _group(vectors_ND, num_clusters, min(components, *vectors_ND.shape), seed)
    content = save(arrays)
    sizes = np.bincount(labels_N, minlength=num_clusters)
    clusters = Clusters(
        out,
        len(rows_N),
        num_clusters,
        int(arrays["components"].shape[0]),
        round(explained, _MARGIN),
        seed,
        {"name": model.name, "version": str(model.card.version), "sha256": pack_digest(model.path)},
        {"place": str(pile.place), "sha256": pile.digest},
        hashlib.sha256(content).hexdigest(),
        tuple(sizes.tolist()),
        dict(sorted(encoded.unread.items())),
    )
    sheets = draw_sheets(pile, rows_N, labels_N, num_clusters, NUM_SHOWN, seed)
    table = pa.table(
        {"key": pile.cells("key", rows_N), "split": pile.cells("split", rows_N), "cluster": labels_N.astype(np.int64)}
    )
    blank = dict.fromkeys(("panel_type", "panel_subtype", "primary", "secondary"), [""] * num_clusters)
    to_fill = pa.table({"cluster": list(range(num_clusters)), "size": sizes, **blank})
    with new_folder(out) as draft:
        write_file(draft / ASSIGNMENTS, parquet_bytes(table))
        write_file(draft / MODEL, content)
        write_file(draft / LABELS, csv_bytes(to_fill))
        for number, start in enumerate(range(0, num_clusters, CLUSTERS_OF_PAGE), 1):
            name = PAGE if number == 1 else PAGE.replace(".", f"_{number}.")
            write_file(draft / name, render(clusters, sheets[start : start + CLUSTERS_OF_PAGE]))
        write_file(draft / FACTS, json.dumps(clusters.stored, indent=1, sort_keys=True) + "\n")
    return clusters


def _refuse_more(num_clusters: int, num_images: int, place: Path) -> None:
    if num_clusters > num_images:
        raise MedclipError(
            Reason.WRONG_USE,
            f"{count(num_clusters, 'cluster')} cannot be made of {count(num_images, 'image')}.",
            where=place,
            hint="Name fewer: --clusters K.",
        )


def _group(
    vectors_ND: NDArray[np.float32], num_clusters: int, components: int, seed: int
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64], float]:
    """Return the arrays of the model, the cluster of each vector, and the share of variance that is kept."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(seed)
    few = len(vectors_ND) <= _MOST_FITTED
    fitted_ND = vectors_ND if few else vectors_ND[np.sort(rng.choice(len(vectors_ND), _MOST_FITTED, replace=False))]
    pca: Any = PCA(components, svd_solver="full" if len(fitted_ND) <= 500 else "randomized", random_state=seed)
    reduced_NC = pca.fit(fitted_ND).transform(vectors_ND).astype(np.float32)
    grouping: Any = MiniBatchKMeans(
        num_clusters,
        random_state=seed,
        n_init=3,  # pyright: ignore[reportArgumentType] (the stub knows its word alone)
        batch_size=max(1024, 3 * num_clusters),
    ).fit(reduced_NC)
    labels_N = np.asarray(grouping.labels_, np.int64)
    arrays = {
        "mean": pca.mean_.astype(np.float32),
        "components": pca.components_.astype(np.float32),
        "centres": grouping.cluster_centers_.astype(np.float32),
    }
    return arrays, labels_N, float(np.sum(pca.explained_variance_ratio_))


def draw_members(labels_N: NDArray[np.int64], num_clusters: int, most: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield some members of each cluster, drawn without repetition, in their order."""
    for cluster in range(num_clusters):
        members = np.flatnonzero(labels_N == cluster)
        rng = np.random.default_rng([seed, cluster])
        yield members if len(members) <= most else np.sort(rng.choice(members, most, replace=False))


def draw_sheets(
    pile: Pile,
    rows_N: NDArray[np.int64],
    labels_N: NDArray[np.int64],
    num_clusters: int,
    most: int,
    seed: int,
) -> list[Sheet]:
    """Draw some images of each cluster, small."""
    sheets = []
    sizes = np.bincount(labels_N, minlength=num_clusters)
    for cluster, members in enumerate(draw_members(labels_N, num_clusters, most, seed)):
        images = pile.images(rows_N[members].tolist())
        small = tuple(encode(fit(i, THUMBNAIL_PX), "jpeg", 70) for i in images if not isinstance(i, MedclipError))
        sheets.append(Sheet(cluster, int(sizes[cluster]), small))
    return sheets
