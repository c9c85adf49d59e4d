"""Figures of the small ViT on held-out patients, beside those of medclip-mini's card on the same images.

Usage: python pipelines/mae_all/vit_figures.py SHARDS PACK OUT.json

Measured as pipelines/mini/evaluate.py does: zero-shot and a linear probe on the pack's vectors, intervals of patients,
findings within their sources. A task that the two packs do not share, or of another number of images, has no rival.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "mini"))

from evaluate import evaluate

from medclip.models.packs.pack import find_pack, pack_card

CHANCE = 0.5
Figures = Mapping[str, Mapping[str, Any]]


def areas(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Figures]:
    """Return the AUROC of each task, or of each finding of one, by how it was asked."""
    by_name: dict[str, Figures] = {}
    for name, task in tasks.items():
        metrics = task.get("metrics", {})
        if "macro_auroc" in metrics:
            by_name[name] = metrics["macro_auroc"]
        by_name |= {f"{name}: {finding}": rivals for finding, rivals in metrics.get("auroc", {}).items()}
    return by_name


def table(ours: dict[str, Figures], theirs: dict[str, Figures]) -> str:
    """Return the table, and below it the means over the rows that both packs have."""
    lines = ["| task | images | small ViT | linear probe | medclip-mini |", "|---|---|---|---|---|"]
    both = []
    for name, figures in sorted(ours.items()):
        zero_shot, rival = figures["zero_shot"], theirs.get(name, {}).get("zero_shot")
        if rival is not None and rival["num_images"] != zero_shot["num_images"]:
            rival = None
        if rival is not None:
            both.append((zero_shot["value"], figures["linear_probe"]["value"], rival["value"]))
        cells = [_cell(zero_shot), _cell(figures["linear_probe"]), "" if rival is None else _cell(rival)]
        lines.append(f"| {name} | {zero_shot['num_images']} | {' | '.join(cells)} |")
    if both:
        means = (sum(column) / len(both) for column in zip(*both, strict=True))
        lines.append(f"| **mean of {len(both)}** | | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    return "\n".join([*lines, f"\nAUROC (macro over classes); chance is {CHANCE}."])


def _cell(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:.3f}" + (f" ({figure['low']:.3f} to {figure['high']:.3f})" if "low" in figure else "")


def main(arguments: list[str]) -> None:
    """Measure, write the figures and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args(arguments)
    figures = evaluate(args.shards, args.pack, args.out.parent / "baselines", with_cnn=False, with_imagenet=False)
    args.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    card = pack_card(find_pack("medclip-mini"))
    print(table(areas(figures), areas({name: task.model_dump() for name, task in card.tasks.items()})))


if __name__ == "__main__":
    main(sys.argv[1:])
