"""Masked pretraining: what hidden patches save, a whole step beside other libraries, and dual masking of cine.

    python benchmarks/masked_speed.py [--part encoder|step|cine|all] [--rounds 9] [--batch 32] [--threads 2]

encoder  The image tower (ViT-S/16 at 224 px) forward and backward on what a mask of 0.9 leaves, beside the same tower
         on whole images: at least 3.5 times as many samples a second.
step     A whole step (mask, encoder, decoder, loss, backward, AdamW) beside transformers' ViTMAEForPreTraining and
         lightly's modules, with equal sizes, weights and ratio, and equal losses for the same mask: at least as fast as
         each, for the three decoders. lightly is no part of the environment; it is measured where it can be imported:
         pip install --no-deps --target DIR lightly; PYTHONPATH=DIR python benchmarks/masked_speed.py
cine     A step over 16 frames of 112 x 112 px in tubes of 2 x 8 x 8 (1,568 tokens, as 224 px have with patches of 16),
         decoding half of the tubes beside decoding all hidden ones: ratios of time and of peak memory, each in a
         process of its own. Running cells need an even grid, which patches of 16 do not leave of 112 px.

Rounds in turn; medians of the ratios. Ends with 1 where a target is missed or losses differ.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from medclip.models.towers.masked_autoencoder import MaskedAutoencoder, prepare_trunk
from medclip.models.towers.patch_decoder import DecoderShape, decoder_shape
from medclip.models.towers.timm_tower import make_tubelets
from medclip.objectives.masked import draw_decoded, draw_tube_mask, mask_of_noise

ENCODER, STEP = 3.5, 1.0
RECIPES = (("dec128d2", 0.9), ("dec512d2", 0.9), ("dec512d8", 0.75))
"""Medical MAE's small decoder, the one that its ViT-S was published with, and the recipe of photographs."""
PATCH, PIXELS = 16, 224
FRAMES, TUBE, CINE_PIXELS = 16, 2, 112

Step = Callable[[], float]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=("encoder", "step", "cine", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=12, help="of the encoder, for a quick look")
    parser.add_argument("--pixels", type=int, default=PIXELS, help="side of images, for a quick look")
    parser.add_argument("--decoded", choices=("all", "half"), help=argparse.SUPPRESS)
    return parser.parse_args()


def trunk_of(chosen: argparse.Namespace) -> Any:
    """Return ViT-S/16 as masked autoencoders start it."""
    trunk = timm.create_model(
        "vit_small_patch16_224", img_size=chosen.pixels, depth=chosen.blocks, num_classes=0, global_pool=""
    )
    prepare_trunk(trunk)
    return trunk


def stepper(modules: list[nn.Module], loss_of: Callable[[], Tensor]) -> Step:
    """Return a function that takes one step with AdamW and returns the loss before it."""
    learning = [p for module in modules for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def take_turns(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Return seconds of each step by name, in rounds that take them in turn after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name in list(steps)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            steps[name]()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(seconds: dict[str, list[float]], other: str, own: str) -> float:
    """Print how many times as fast the one is as the other; return the median."""
    ratios = [a / b for a, b in zip(seconds[other], seconds[own], strict=True)]
    middle = statistics.median(ratios)
    print(f"  {own} is {middle:.2f} times as fast as {other} ({min(ratios):.2f} to {max(ratios):.2f})")
    return middle


def encoder_part(chosen: argparse.Namespace) -> bool:
    """Compare the encoder on a tenth of the patches with the whole tower."""
    trunk, images = trunk_of(chosen).train(), images_of(chosen)
    decoder = MaskedAutoencoder(trunk, "dec128d2", normalise=False)
    noise = torch.rand(chosen.batch, decoder.num_patches)

    def run(features_of: Callable[[], Tensor]) -> Step:
        def step() -> float:
            trunk.zero_grad(set_to_none=True)
            loss = features_of().square().mean()
            loss.backward()
            return float(loss.detach())

        return step

    seconds = take_turns(
        {
            "whole": run(lambda: trunk.forward_features(images)),
            "masked": run(lambda: decoder.encode(trunk, images, mask_of_noise(noise, 0.9))),
        },
        chosen.rounds,
    )
    print(f"encoder, forward and backward, {chosen.batch} images:")
    ratio = median_ratio(seconds, "whole", "masked")
    print(f"  at least {ENCODER:g}: {'yes' if ratio >= ENCODER else 'no'}")
    return ratio >= ENCODER


def images_of(chosen: argparse.Namespace) -> Tensor:
    """Return images in the memory layout that medclip's batches have."""
    images = torch.randn(chosen.batch, 3, chosen.pixels, chosen.pixels)
    return images.contiguous(memory_format=torch.channels_last)


def step_part(chosen: argparse.Namespace) -> bool:
    """Compare whole steps for each decoder."""
    results = [compare_steps(chosen, name, ratio) for name, ratio in RECIPES]  # all are measured
    good = all(results)
    print(f"  at least {STEP:g} of each: {'yes' if good else 'no'}")
    return good


def compare_steps(chosen: argparse.Namespace, name: str, ratio: float) -> bool:
    """Compare steps with one decoder; each library goes its own way from noise to a loss, from the same weights."""
    torch.manual_seed(0)
    trunk, images = trunk_of(chosen), images_of(chosen)
    decoder = MaskedAutoencoder(trunk, name, normalise=False)
    sides: dict[str, Side] = {
        "medclip": ([trunk, decoder], lambda noise: mean_error(decoder(trunk, images, mask_of_noise(noise, ratio)))),
        "transformers": transformers_side(trunk, decoder, images.contiguous(), name, ratio),
        "lightly": lightly_side(trunk, decoder, images.contiguous(), name, ratio),
    }
    noise = torch.rand(chosen.batch, decoder.num_patches)
    first = {side: float(loss_of(noise).detach()) for side, (modules, loss_of) in sides.items() if modules}
    if max(first.values()) - min(first.values()) > 1e-4:
        print(f"the losses of one mask differ: {first}")
        return False
    steps = {
        side: stepper(modules, partial(draw, loss_of, noise)) for side, (modules, loss_of) in sides.items() if modules
    }
    seconds = take_turns(steps, chosen.rounds)
    middle = ", ".join(f"{side} {statistics.median(each):.3f} s" for side, each in seconds.items())
    print(f"step, {name} at {ratio}, {chosen.batch} images: {middle}")
    return min([median_ratio(seconds, other, "medclip") for other in seconds if other != "medclip"]) >= STEP


def mean_error(errors_B2: Tensor) -> Tensor:
    """Return the mean over all patches that count."""
    total, count = errors_B2.sum(0)
    return total / count


def draw(loss_of: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Return the loss of fresh noise."""
    return loss_of(torch.rand_like(like))


Side = tuple[list[nn.Module], Callable[[Tensor], Tensor]]


def transformers_side(trunk: Any, decoder: MaskedAutoencoder, images: Tensor, name: str, ratio: float) -> Side:
    """Return transformers' model with the same weights, and its loss of given noise."""
    transformers: Any = import_module("transformers")  # its types take a type checker a minute

    shape = decoder_shape(name, trunk.embed_dim)
    model = transformers.ViTMAEForPreTraining(
        transformers.ViTMAEConfig(
            hidden_size=trunk.embed_dim,
            num_hidden_layers=len(trunk.blocks),
            num_attention_heads=trunk.blocks[0].attn.num_heads,
            intermediate_size=4 * trunk.embed_dim,
            image_size=images.shape[-1],
            patch_size=PATCH,
            mask_ratio=ratio,
            norm_pix_loss=False,
            layer_norm_eps=1e-6,
            decoder_hidden_size=shape.width,
            decoder_num_hidden_layers=shape.depth,
            decoder_num_attention_heads=shape.heads,
            decoder_intermediate_size=4 * shape.width,
            **{"attn_implementation": "sdpa"},
        )
    )
    positions_1ND = torch.nn.functional.pad(decoder.decoder.positions_LD, (0, 0, 1, 0))[None]
    positions = {"decoder.decoder_pos_embed": positions_1ND}  # some versions have rows before columns
    model.load_state_dict(transformers_weights(trunk.state_dict(), decoder.state_dict()) | positions)
    return [model.train()], lambda noise: model(images, noise=noise).loss


def transformers_weights(trunk: dict[str, Tensor], decoder: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under transformers' names; queries, keys and values are layers of their own there."""
    names = {
        r"^pos_embed": "vit.embeddings.position_embeddings",
        r"^cls_token": "vit.embeddings.cls_token",
        r"^patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        r"^blocks": "vit.layers",
        r"^norm": "vit.layernorm",
        r"^decoder.embed": "decoder.decoder_embed",
        r"^decoder.blocks": "decoder.decoder_layers",
        r"^decoder.norm": "decoder.decoder_norm",
        r"^decoder.head": "decoder.decoder_pred",
        r"\.norm1": ".layernorm_before",
        r"\.norm2": ".layernorm_after",
        r"(?<=\d)\.(attn\.)?proj": ".attention.o_proj",
        r"(?<=\d)\.(mlp\.)?fc": ".mlp.fc",
    }
    weights = {}
    for own, value in {**trunk, **decoder}.items():
        name = own
        for pattern, other in names.items():
            name = re.sub(pattern, other, name)
        if "qkv" in name:
            for part, one in zip("qkv", value.chunk(3), strict=True):
                weights[re.sub(r"\.(attn\.)?qkv", f".attention.{part}_proj", name)] = one
        else:
            weights[name] = value
    return weights


def lightly_side(trunk: Any, decoder: MaskedAutoencoder, images: Tensor, name: str, ratio: float) -> Side:
    """Return lightly's modules with the same weights, put together as in its example, and their loss of given noise.

    No modules where it cannot be imported.
    """
    try:
        from lightly.models import utils  # type: ignore[import-not-found]
        from lightly.models.modules import MaskedVisionTransformerTIMM  # type: ignore[import-not-found]
        from lightly.models.modules.masked_vision_transformer_decoder_timm import (  # type: ignore[import-not-found]
            MaskedVisionTransformerDecoderTIMM,
        )
    except ImportError:
        print("  lightly cannot be imported and is left out")
        return [], torch.sum
    shape: DecoderShape = decoder_shape(name, trunk.embed_dim)
    encoder = MaskedVisionTransformerTIMM(
        copy.deepcopy(trunk), weight_initialization="skip", pos_embed_initialization="skip"
    )
    inner = MaskedVisionTransformerDecoderTIMM(decoder.num_patches, shape.width, shape.depth, shape.heads)
    layers = nn.ModuleDict({"embed": copy.deepcopy(decoder.decoder.embed), "head": copy.deepcopy(decoder.decoder.head)})
    own = {n.removeprefix("decoder."): v for n, v in decoder.state_dict().items()}
    own = {re.sub(r"\.(qkv|proj)\.", r".attn.\1.", n): v for n, v in own.items()}
    own = {re.sub(r"\.(fc[12])\.", r".mlp.\1.", n): v for n, v in own.items()}
    inner.load_state_dict({n: v for n, v in own.items() if n in inner.state_dict()}, strict=False)

    def loss_of(noise: Tensor) -> Tensor:
        size = (len(images), decoder.num_patches + 1)
        order = torch.cat([torch.zeros(len(images), 1, dtype=torch.int64), 1 + noise.argsort(dim=1)], dim=1)
        kept = 1 + int(decoder.num_patches * (1 - ratio))
        idx_keep, idx_mask = order[:, :kept], order[:, kept:]
        seen = layers["embed"](encoder.encode(images=images, idx_keep=idx_keep))
        tokens = utils.set_at_index(utils.repeat_token(inner.mask_token, size), idx_keep, seen)
        guessed = layers["head"](utils.get_at_index(inner(tokens), idx_mask))
        target = utils.get_at_index(utils.patchify(images, PATCH), idx_mask - 1)
        return mse_loss(guessed, target)

    return [encoder.train(), inner.train(), layers.train()], loss_of


def cine_step(chosen: argparse.Namespace, decoded: str) -> Step:
    """Return a step over cine with single or dual masking."""
    torch.manual_seed(0)
    trunk = timm.create_model(
        "vit_small_patch16_224", img_size=CINE_PIXELS, patch_size=8, depth=chosen.blocks, num_classes=0, global_pool=""
    )
    make_tubelets(trunk, {"num_frames": FRAMES, "tubelet": TUBE, "channels": 1}, CINE_PIXELS)
    prepare_trunk(trunk)
    decoder = MaskedAutoencoder(trunk, "video", normalise=True)
    times, rows, cols = decoder.grid
    size = max(2, chosen.batch // 8)
    clips, generator = torch.randn(size, 1, FRAMES, CINE_PIXELS, CINE_PIXELS), torch.Generator().manual_seed(0)

    def loss_of() -> Tensor:
        mask = draw_tube_mask(size, (times, rows, cols), 0.9, generator)
        half = draw_decoded(size, (times, rows, cols), 0.5, generator) if decoded == "half" else None
        return mean_error(decoder(trunk, clips, mask, half))

    return stepper([trunk.train(), decoder.train()], loss_of)


def cine_part(chosen: argparse.Namespace) -> bool:
    """Compare dual with single masking; there is no target."""
    seconds = take_turns({f"decoding {which}": cine_step(chosen, which) for which in ("all", "half")}, chosen.rounds)
    mib = {which: memory(chosen, which) for which in ("all", "half")}
    print(f"cine, {FRAMES} frames of {CINE_PIXELS} x {CINE_PIXELS} px, {max(2, chosen.batch // 8)} clips a step:")
    median_ratio(seconds, "decoding all", "decoding half")
    print(f"  peak memory {mib['half']:.0f} and {mib['all']:.0f} MiB: {mib['half'] / mib['all']:.2f}")
    return True


def memory(chosen: argparse.Namespace, decoded: str) -> float:
    """Return MiB at the peak of two steps in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--decoded", decoded, "--batch", str(chosen.batch)]
    command += ["--threads", str(chosen.threads), "--blocks", str(chosen.blocks)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])["mib"]


def child(chosen: argparse.Namespace) -> int:
    """Take two steps and print by how many MiB the process grew at most."""
    Path("/proc/self/clear_refs").write_text("5")  # else the mark is the one of the process that started this one
    before = high_water_kib()
    step = cine_step(chosen, chosen.decoded)
    for _ in range(2):
        step()
    print(json.dumps({"mib": (high_water_kib() - before) / 1024}))
    return 0


def high_water_kib() -> int:
    """Return the most memory that this process held since its mark was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> int:
    """Compare and print."""
    chosen = options()
    torch.set_num_threads(chosen.threads)
    if chosen.decoded:
        return child(chosen)
    parts = {"encoder": encoder_part, "step": step_part, "cine": cine_part}
    good = [part(chosen) for name, part in parts.items() if chosen.part in (name, "all")]
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
