"""How long pairs of vectors with a cosine of 0.97 and more take to find, and in how much memory, of many vectors.

    python benchmarks/deduplicate_pairs.py --rows 100000 --dim 256
    python benchmarks/deduplicate_pairs.py --rows 1000000 --dim 512 --half

Vectors are drawn around 2,000 centres in a cone, so that those of different images have cosines of 0.2 to 0.9, as a
pack's of one modality have; a twentieth of them has a copy whose cosine is between 0.971 and 1. Where products are more
than `medclip.embeddings.near_vectors.MOST_PRODUCTS`, trees are asked; what these miss is counted of the planted copies.
Goal: a million vectors within their own size, 300 bytes a vector and the ceiling of blocks, 99 of 100 copies found.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.embeddings.near_vectors import MEMORY_BYTES, MOST_PRODUCTS, near_vectors

_PART = 50_000
_CENTRES = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--half", action="store_true", help="Keep vectors in float16.")
    parser.add_argument("--trees", action="store_true", help="Ask the forest, however few vectors there are.")
    arguments = parser.parse_args()
    vectors, one, other = draw(arguments.rows, arguments.dim, np.float16 if arguments.half else np.float32)
    Path("/proc/self/clear_refs").write_text("5")  # drawing has its own peak, which is forgotten here
    before = peak_bytes()
    start, cpu = time.perf_counter(), time.process_time()
    near = near_vectors(vectors, cosine=0.97, most_products=0 if arguments.trees else MOST_PRODUCTS)
    pairs = set(zip(near.one_K.tolist(), near.other_K.tolist(), strict=True))
    planted = list(zip(one.tolist(), other.tolist(), strict=True))
    print(
        json.dumps(
            {
                "rows": len(vectors),
                "dim": arguments.dim,
                "seconds": round(time.perf_counter() - start, 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
                "vectors_mb": round(vectors.nbytes / 2**20),
                "blocks_ceiling_mb": MEMORY_BYTES >> 20,
                "peak_above_vectors_mb": round((peak_bytes() - before) / 2**20),
                "pairs": len(near),
                "planted": len(planted),
                "planted_found": sum(pair in pairs for pair in planted),
                "share_met_at_the_limit": near.met_share,
            }
        )
    )


def draw(
    rows: int, dim: int, dtype: type[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.int64], NDArray[np.int64]]:
    """Draw vectors in parts; also the rows of each planted copy and of what it is of."""
    rng = np.random.default_rng(0)
    vectors = np.empty((rows, dim), dtype)
    centres = 0.6 + rng.standard_normal((_CENTRES, dim), np.float32)
    for begin in range(0, rows, _PART):
        part = centres[rng.integers(_CENTRES, size=min(_PART, rows - begin))]
        part = part + 0.6 * rng.standard_normal(part.shape, np.float32)
        vectors[begin : begin + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    num = rows // 20
    one, other = np.sort(rng.permutation(rows)[: 2 * num].reshape(num, 2), axis=1).T
    for begin in range(0, num, _PART):
        of = vectors[one[begin : begin + _PART]].astype(np.float32)
        across = rng.standard_normal(of.shape, np.float32)
        across -= np.einsum("nd,nd->n", across, of)[:, None] * of
        across /= np.linalg.norm(across, axis=1, keepdims=True)
        cosine = rng.uniform(0.971, 1, (len(of), 1)).astype(np.float32)
        vectors[other[begin : begin + _PART]] = cosine * of + np.sqrt(1 - cosine**2) * across
    return vectors, one, other


def peak_bytes() -> int:
    """Return the most memory that was resident since the last reset (Linux)."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
