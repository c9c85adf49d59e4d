"""Claim: medclip embeds a folder 1.5 times as fast as a plain loop, and asks it again in a fifth of the time.

Usage: python benchmarks/embed_folder.py [--images FOLDER_OF_CHEST_XRAYS] [--files 2000] [--rounds 3] [--model PACK]

Builds a folder of chest X-rays (half JPEG, half DICOM, as `score_folder.py` does) and times, as whole processes:

- `medclip embed`, and a loop of pydicom, PIL and open_clip over the same files with the same pack, in one process;
- `medclip score` of the files, and of the embeddings, with the same question. Their tables are compared byte for byte.

Two ratios come out, and the largest difference between a vector of medclip and one of the loop.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from score_folder import build, timed

HERE = Path(__file__).parent
QUESTION = ["--prompt", "an enlarged heart", "--against", "a normal heart"]
CLAIM, CLAIM_AGAIN = 1.5, 5.0
TOLERANCE = 1e-5


def loop(folder: str, pack: str, out: str) -> None:
    """Encode every file of a folder, one at a time, and write the vectors."""
    import open_clip
    import torch
    from naive_script import pixels

    from medclip.imaging.crop.dark_borders import crop_dark_borders
    from medclip.imaging.geometry import letterbox

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{pack}")
    normalise = preprocess.transforms[-1]  # type: ignore[union-attr]
    model.eval()
    vectors = []
    with torch.inference_mode():
        for path in sorted(Path(folder).iterdir()):
            cropped, _ = crop_dark_borders(pixels(path), (0, 255))
            square = letterbox(cropped, model.visual.image_size[0])  # type: ignore[union-attr, index]
            tensor = torch.from_numpy(square).permute(2, 0, 1).float() / 255
            vectors.append(model.encode_image(normalise(tensor)[None], normalize=True)[0].numpy())  # type: ignore
    np.save(out, np.stack(vectors))


def command(*words: object) -> list[str]:
    """Return a command of medclip as a process."""
    return [sys.executable, "-m", "medclip.cli.main", *map(str, words)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = HERE.parent.parent / "shared/data/nih_cxr/images"
    parser.add_argument("--images", type=Path, default=shared if shared.is_dir() else HERE.parent / "examples/studies")
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, default=HERE.parent / "medclip/models/builtin/medclip-mini")
    args = parser.parse_args()
    images, pack = sorted(args.images.glob("*.jpg")), args.model.resolve()
    print(f"{platform.platform()}, {os.cpu_count()} cores; {args.files} files, {args.rounds} rounds")
    first, again, worst = [], [], 0.0
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        build(images, work / "in", args.files)
        for n in range(args.rounds):
            how = ["--model", pack, "--modality", "xray", "--group-by", "file"]
            vectors, files, stored = (work / f"{name}{n}" for name in ("vectors", "files", "stored"))
            embed = timed(command("embed", work / "in", "--out", vectors, *how))
            plain = timed([sys.executable, __file__, "loop", str(work / "in"), str(pack), str(work / "loop.npy")])
            score = timed(command("score", work / "in", "--out", files, *how, *QUESTION))
            asked = timed(command("score", vectors, "--out", stored, "--model", pack, *QUESTION))
            first.append(plain / embed)
            again.append(score / asked)
            worst = max(worst, _difference(vectors, work / "loop.npy"))
            for name in ("files.parquet", "scores.parquet", "run.json", "report.html"):
                if (files / name).read_bytes() != (stored / name).read_bytes():
                    raise SystemExit(f"{name} from embeddings is not that from files")
            print(f"round {n + 1}: embed {embed:.1f} s, loop {plain:.1f} s, ratio {first[-1]:.2f}")
            print(f"  score of files {score:.1f} s, of embeddings {asked:.1f} s, ratio {again[-1]:.1f}", flush=True)
    print(f"embed: {statistics.median(first):.2f} times as fast as the loop, {min(first):.2f} to {max(first):.2f}")
    print(f"asked again: {statistics.median(again):.1f} times as fast, {min(again):.1f} to {max(again):.1f}")
    print(f"largest difference of a vector: {worst:.1e} (allowed {TOLERANCE:.0e}); tables of both are equal")
    if worst > TOLERANCE:
        raise SystemExit("the vectors differ")
    if statistics.median(first) < CLAIM or statistics.median(again) < CLAIM_AGAIN:
        raise SystemExit(f"goals are {CLAIM} and {CLAIM_AGAIN}, for 2,000 files on an idle machine")


def _difference(folder: Path, loop_vectors: Path) -> float:
    from medclip.embeddings.open_embeddings import open_embeddings

    return float(np.abs(open_embeddings(folder).vectors("views") - np.load(loop_vectors)).max())


if __name__ == "__main__":
    if sys.argv[1:2] == ["loop"]:
        loop(*sys.argv[2:])
    else:
        main()
