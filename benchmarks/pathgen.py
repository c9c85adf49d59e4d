"""No claim: what choosing patches and captioning them by measurement costs, and 1.6 million pairs on paper.

Usage: python benchmarks/pathgen.py [--slide SLIDE] [--rounds 3]

Of one slide (one that is drawn, if none is named) all patches of 336 px at 0.5 µm/px are read, their quality measured,
and encoded by `medclip-mini`; some of 5,000 random vectors are chosen; patches are measured and captioned by rule. It
prints CPU milliseconds of one process with one thread, medians over rounds: a busy machine changes them less.

The table on paper is arithmetic on the assumptions in `Assumed`, each of which stands there by name. Nothing of it was
measured but what the first part prints.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medclip.imaging.slides.patch_grid import make_grid
from medclip.imaging.slides.readers.open import open_slide
from medclip.imaging.slides.stain import StainOptions, slide_stain
from medclip.imaging.slides.tissue.find import find_tissue
from medclip.models.packs.pack import load_model
from medclip.pairs.selection.patches import choose_patches, prompts_for
from medclip.pairs.sources.slides.patch_captions import read_patch
from medclip.pairs.sources.slides.pathgen import room_of
from medclip.pairs.words.agent import CaptionedPatch, caption_patch
from medclip.pairs.words.measuring_agent import MeasuringAgent
from medclip.slides.stages import reading
from medclip.slides.stages.stage_files import measure_quality

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))


SIZE_PX, MPP_UM = 336, 0.5
NUM_VECTORS, DIM = 5000, 768
PAIRS = 1_600_000


@dataclass(frozen=True)
class Assumed:
    """What the table on paper stands on. None of it was measured here."""

    slides: int = 7_300
    """The TCGA slides that PathGen speaks of (a guess of the specification)."""
    patches_of_a_slide: int = 5_000
    """140 mm² of tissue in fields of 168 µm."""
    accepted: float = 0.8
    """Share of the captions that become records."""
    prompt_tokens: int = 820
    """Of three requests for a patch: 144 for the image (a token for 28 x 28 px) twice, the rest words."""
    answer_tokens: int = 270
    """150 of a description, 60 of edits, 60 of a caption."""
    gpus_of_a_node: int = 8
    gpu_flops: float = 989e12
    """H100 SXM, dense bfloat16, by its data sheet."""
    gpu_bytes_s: float = 3.35e12
    """Its memory."""
    prefill_use: float = 0.4
    """Share of the arithmetic that reading a prompt reaches."""
    decode_use: float = 0.33
    """Share of the memory's speed that writing reaches; `at_once` answers share each pass over the weights."""
    at_once: int = 128
    tower_flops: float = 382e9
    """Of a ViT-L/14 of 336 px for one patch."""
    tower_use: float = 0.35
    cores_of_a_node: int = 128
    usd_of_a_gpu_hour: float = 3.0


def main() -> int:
    """Measure, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        slide = options.slide or drawn_slide(Path(folder) / "slide.tiff")
        spent = measure(slide, options.rounds)
    select_ms = spent["read"] + spent["encode"] + spent["choose"] / NUM_VECTORS
    print(f"read and quality  {spent['read']:8.1f} ms a patch")
    print(f"encode            {spent['encode']:8.1f} ms a patch (medclip-mini)")
    print(f"choose            {spent['choose']:8.0f} ms a slide of {NUM_VECTORS:,} patches, {DIM} dimensions")
    print(f"select            {1000 / select_ms:8.0f} patches a second and core")
    print(f"measure, caption  {spent['caption']:8.1f} ms a record")
    print(f"records           {3_600_000 / spent['caption']:8,.0f} an hour and core\n")
    print_on_paper(spent, Assumed())
    return 0


def measure(slide: Path, rounds: int) -> dict[str, float]:
    """Return CPU milliseconds by step, medians over rounds."""
    model, agent = load_model(), MeasuringAgent()
    room = room_of(model.tokenizer)
    with open_slide(slide) as reader:
        grid = make_grid(reader, find_tissue(reader), size_px=SIZE_PX, mpp_um=MPP_UM, by_piece=True)
        stain = slide_stain(reader, grid, StainOptions())
    arguments = (reader.spec, grid.corners_um_N2, SIZE_PX, MPP_UM, grid.effective_mpp_um, model.preprocess)
    print(f"{slide.name}: {len(grid)} patches of {SIZE_PX} px at {MPP_UM} µm/px\n")
    vectors = np.random.default_rng(0).normal(size=(NUM_VECTORS, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    prompts = prompts_for("colon")

    def caption() -> None:
        for patch in grid:
            read = read_patch(reader, (patch.top_um, patch.left_um), SIZE_PX, MPP_UM, stain, True)
            shown = CaptionedPatch(read.pixels, MPP_UM, prompts, read.measured, read.measured_again)
            caption_patch(agent, shown, room)

    def read() -> Any:
        for kept in reading._OPEN:  # with the tiles that it has decoded
            kept.close()
        reading._OPEN.clear()
        return reading.read_block(*arguments, measure_quality, None, stain.white).images

    images = read()
    steps: dict[str, tuple[Callable[[], Any], int]] = {
        "read": (read, len(grid)),
        "encode": (lambda: model.encode_image(images), len(grid)),
        "choose": (lambda: choose_patches(vectors, vectors[:20], vectors[20:25]), 1),
        "caption": (caption, len(grid)),
    }
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, (work, num) in steps.items():
            begun = time.process_time()
            work()
            spent[name].append(1000 * (time.process_time() - begun) / num)
    return {name: statistics.median(values) for name, values in spent.items()}


def print_on_paper(spent: dict[str, float], assumed: Assumed) -> None:
    """Print hours and dollars of 1.6 million pairs on one node and on eight."""
    chosen = PAIRS / assumed.accepted
    patches = assumed.slides * assumed.patches_of_a_slide
    core_hours = patches * spent["read"] / 3.6e6 + assumed.slides * spent["choose"] / 3.6e6
    tower_hours = patches * assumed.tower_flops / (assumed.gpu_flops * assumed.tower_use) / 3600
    rows = [
        ("patches read, measured, chosen", core_hours, assumed.cores_of_a_node, False),
        ("patches encoded (ViT-L/14, 336 px)", tower_hours, assumed.gpus_of_a_node, True),
        ("captioned by measurement", PAIRS * spent["caption"] / 3.6e6, assumed.cores_of_a_node, False),
        *(
            (
                f"captioned by a {billions:g}B VLM",
                chosen * vlm_seconds(billions * 1e9, assumed) / 3600,
                assumed.gpus_of_a_node,
                True,
            )
            for billions in (7.6, 72.7)
        ),
    ]
    print(f"on paper, {PAIRS:,} pairs of {patches:,} patches; hours on one node and on eight")
    for name, hours, units, is_gpu in rows:
        price = f", {hours * assumed.usd_of_a_gpu_hour:7,.0f} USD" if is_gpu else ""
        kind = "GPU" if is_gpu else "core"
        print(f"  {name:36} {hours:8,.0f} {kind} hours: {hours / units:6.1f} h, {hours / units / 8:5.1f} h{price}")


def vlm_seconds(parameters: float, assumed: Assumed) -> float:
    """Return GPU seconds of a patch: 2 operations a parameter and token to read, a pass over all weights to write."""
    prefill = assumed.prompt_tokens * 2 * parameters / (assumed.gpu_flops * assumed.prefill_use)
    decode = assumed.answer_tokens * 2 * parameters / assumed.at_once / (assumed.gpu_bytes_s * assumed.decode_use)
    return prefill + decode


def drawn_slide(path: Path) -> Path:
    """Write the drawn slide of the examples."""
    from examples.make_phantoms import slide

    slide(path)
    return path


if __name__ == "__main__":
    sys.exit(main())
