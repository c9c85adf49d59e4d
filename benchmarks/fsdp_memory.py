"""Memory that each of two ranks keeps for parameters and optimizer: FSDP2 against DDP, same model, same step.

    python benchmarks/fsdp_memory.py

Two processes over gloo on the CPU take one step each way; counted are the bytes of the tensors that a rank keeps
between steps (parameters and both AdamW moments, no gradients). Ends with 1 when FSDP2 keeps more than 0.6 of what DDP
keeps, or when the two give different losses.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TARGET = 0.6


def measure(parallel: str) -> dict[str, float]:
    """Take one step as a rank and count what is kept."""
    import torch
    from open_clip.model import CustomTextCLIP

    from medclip.objectives.contrastive import clip_loss
    from medclip.training.ranks import joined
    from medclip.training.sharding import spread
    from medclip.training.steps.towers import Towers, weights_of

    with joined("cpu") as world:
        torch.manual_seed(0)
        vision = {"image_size": 64, "patch_size": 16, "width": 384, "layers": 6, "head_width": 64}
        text = {"context_length": 32, "vocab_size": 4000, "width": 256, "heads": 4, "layers": 4}
        towers = Towers(CustomTextCLIP(128, vision, text), pad_id=0)
        call = spread(towers, world, parallel=parallel, bf16=False)
        optimizer = torch.optim.AdamW(towers.parameters(), lr=1e-4)
        generator = torch.Generator().manual_seed(world.rank)
        images = torch.randn(8, 3, 64, 64, generator=generator)
        tokens = torch.randint(1, 4000, (8, 32), generator=generator)
        image, text_features, _ = call(images, tokens)
        loss = clip_loss(image, text_features, towers.clip.logit_scale.exp(), group=world.group)
        loss.backward()
        optimizer.step()
        kept = list(weights_of(towers).values())
        kept += [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
        local = [v.to_local() if hasattr(v, "to_local") else v for v in kept]  # type: ignore[operator]
        mean = float(world.sum(loss.detach().reshape(1))[0]) / world.size
        return {"bytes": float(sum(v.numel() * v.element_size() for v in local)), "loss": mean}


def ranks(parallel: str, folder: Path) -> list[dict[str, float]]:
    """Run two ranks and collect what they say."""
    own = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*own, __file__, parallel, str(folder)], check=True)
    return [json.loads((folder / f"{parallel}-{rank}.json").read_text()) for rank in range(2)]


def main() -> int:
    """Compare and print."""
    if len(sys.argv) == 3:
        said = measure(sys.argv[1])
        (Path(sys.argv[2]) / f"{sys.argv[1]}-{os.environ['RANK']}.json").write_text(json.dumps(said))
        return 0
    with tempfile.TemporaryDirectory() as name:
        ddp, fsdp = ranks("ddp", Path(name)), ranks("fsdp", Path(name))
    ratio = max(r["bytes"] for r in fsdp) / max(r["bytes"] for r in ddp)
    for kind, found in (("DDP", ddp), ("FSDP2", fsdp)):
        kept = max(r["bytes"] for r in found) / 2**20
        print(f"{kind:6} largest rank keeps {kept:6.1f} MiB, loss {found[0]['loss']:.6f}")
    print(f"FSDP2 / DDP {ratio:.3f}  (at most {TARGET:g})")
    same = abs(ddp[0]["loss"] - fsdp[0]["loss"]) < 1e-4
    return int(ratio > TARGET or not same)


if __name__ == "__main__":
    sys.exit(main())
