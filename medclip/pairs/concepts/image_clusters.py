"""Over-cluster images by what a pack makes of them: more clusters than things to tell apart, so that each shows one.

Vectors are reduced by a PCA and grouped by k-means in small batches; both are kept as plain arrays with their hash.
Reference: Lozano et al., "BIOMEDICA", CVPR 2025: 45 components, 2,000 clusters, sheets of 20 images.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
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
from medclip.progress import Progress
from medclip.result import Result
from medclip.shards.folder import read_index
from medclip.shards.reading.samples import ShardReader
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
    shards: Mapping[str, str]
    """Place of the shards, and hash of their table of samples."""
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


def cluster_shards(
    shards: Path,
    out: Path,
    model: Model,
    *,
    num_clusters: int,
    components: int,
    seed: int,
    render: Callable[[Clusters, Sequence[Sheet]], str],
    progress: Progress,
) -> Clusters:
    """Cluster the images of all splits of a shard folder.

    Args:
        shards: Shard folder.
        out: Folder to make: assignments, arrays, a table to label clusters in, and a page that shows them.
        model: Loaded pack.
        num_clusters: Number of clusters.
        components: Number of components of the PCA.
        seed: Seed of the PCA, of k-means and of the images that are shown.
        render: Function that makes a page of some clusters.
        progress: Progress bar of the images.

    Raises:
        MedclipError: OUTPUT_IN_USE; WRONG_USE for more clusters than images, and for shards that hold no images; what
            reading shards raises. An image that cannot be read is in no cluster, and counted.
    """
    if claim_folder(out, "clusters", marks=(FACTS,), in_one_step=True):
        raise in_use(out, "this folder holds clusters already", "Name another folder, or remove this one first.")
    index = read_index(shards)
    readers = [ShardReader(shards, split) for split in index["counts"]["by_split"]]
    if any(reader.holds != "images" for reader in readers):
        raise MedclipError(Reason.WRONG_USE, "only images are clustered.", where=shards)
    num_samples = sum(map(len, readers))
    _refuse_more(num_clusters, num_samples, shards)
    progress.stage(f"Encoding images with {model.name}", num_samples)
    places, vectors_ND, unread = _encode(readers, model, progress)
    _refuse_more(num_clusters, len(places), shards)
    arrays, labels_N, explained = _group(vectors_ND, num_clusters, min(components, *vectors_ND.shape), seed)
    content = save(arrays)
    sizes = np.bincount(labels_N, minlength=num_clusters)
    clusters = Clusters(
        out,
        len(places),
        num_clusters,
        int(arrays["components"].shape[0]),
        round(explained, _MARGIN),
        seed,
        {"name": model.name, "version": str(model.card.version), "sha256": pack_digest(model.path)},
        {"place": str(shards), "samples": str(index["tables"]["samples.parquet"])},
        hashlib.sha256(content).hexdigest(),
        tuple(sizes.tolist()),
        dict(sorted(unread.items())),
    )
    sheets = draw_sheets(readers, places, labels_N, num_clusters, NUM_SHOWN, seed)
    table = pa.table(
        {
            "key": [readers[r].key(i) for r, i in places],
            "split": [readers[r].split for r, _ in places],
            "cluster": labels_N.astype(np.int64),
        }
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


def _refuse_more(num_clusters: int, num_images: int, shards: Path) -> None:
    if num_clusters > num_images:
        raise MedclipError(
            Reason.WRONG_USE,
            f"{count(num_clusters, 'cluster')} cannot be made of {count(num_images, 'image')}.",
            where=shards,
            hint="Name fewer: --clusters K.",
        )


def _encode(
    readers: Sequence[ShardReader], model: Model, progress: Progress
) -> tuple[list[tuple[int, int]], NDArray[np.float32], Counter[str]]:
    """Return the places of the N images that could be read, their vectors, and why others could not."""
    places: list[tuple[int, int]] = []
    vectors: list[NDArray[np.float32]] = []
    unread: Counter[str] = Counter()
    waiting: list[tuple[tuple[int, int], Any]] = []

    def flush() -> None:
        if waiting:
            vectors.append(model.encode_image(model.preprocess.together([image for _, image in waiting])))
            places.extend(place for place, _ in waiting)
            waiting.clear()

    for r, reader in enumerate(readers):
        for i in range(len(reader)):
            try:
                waiting.append(((r, i), model.preprocess.fit(reader[i].image)))
            except MedclipError as e:
                unread[str(e.reason)] += 1
            if len(waiting) >= model.batch_size:
                flush()
            progress.step()
    flush()
    return places, np.concatenate(vectors) if vectors else np.zeros((0, model.dim), np.float32), unread


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
    readers: Sequence[ShardReader],
    places: Sequence[tuple[int, int]],
    labels_N: NDArray[np.int64],
    num_clusters: int,
    most: int,
    seed: int,
) -> list[Sheet]:
    """Draw some images of each cluster, small."""
    sheets = []
    sizes = np.bincount(labels_N, minlength=num_clusters)
    for cluster, members in enumerate(draw_members(labels_N, num_clusters, most, seed)):
        pixels = (readers[r][i].image for r, i in (places[n] for n in members.tolist()))
        small = tuple(encode(fit(image, THUMBNAIL_PX), "jpeg", 70) for image in pixels)
        sheets.append(Sheet(cluster, int(sizes[cluster]), small))
    return sheets
