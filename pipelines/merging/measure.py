"""One pack trained jointly, packs merged one after the other, and continued training with and without VR-LwF.

Usage: python pipelines/merging/measure.py RUN [--smoke]

All arms begin with one pack (start.yaml), see as many samples of each modality, in one order of modalities, and are
measured on the same held-out patients. Killed and called again, it goes on: packs are kept.

Everything that could be chosen by looking at results stands here before: steps, weights, the order, which figure.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import paired
import yaml
from measuring import in_words, plain, trained
from modality_tables import MODALITIES, START

import medclip
from medclip.files.output import write_file
from medclip.statistics.resampling.resampled import Resampled, interval_of

HERE = Path(__file__).parent
STEPS = 120
"""Of each modality; a joint pack takes as many as all of them together."""
KEEP = {"method": "vr-lwf", "weight": 1.0}
TASKS: Mapping[str, str] = {
    "xray": "chest_xray_findings",
    "fundus": "fundus_cataract",
    "mri": "brain_mri_tumour",
    "mammography": "breast_density",
}
"""What each modality is measured by: the mean area over the classes of its task, asked in words. Its labelled images
are of one source each (`modality_tables.LEFT_OUT`), so that no area is that of a score of the source."""
CONTINUED: Mapping[str, Mapping[str, bool]] = {
    "continued": {"keep": False},
    "continued, VR-LwF": {"keep": True},
    "continued, text locked": {"keep": False, "lock": True},
    "continued, text locked, VR-LwF": {"keep": True, "lock": True},
}
"""Ways to go on from modality to modality. Those with the text tower locked came after the figures of the others were
seen: VR-LwF holds the image tower alone, and what it may not learn the text tower did."""
NUM_RESAMPLES = 2000
SMOKE = {
    "steps": 4,
    "start": {
        "model.image_tower": "test_efficientnet",
        "model.image_weights": None,
        "model.size_px": 64,
        "model.embed_dim": 32,
        "model.text_width": 32,
        "model.text_heads": 2,
        "model.text_layers": 1,
        "model.freeze_blocks": 0,
        "text.vocab_size": 1200,
        "train.max_steps": 4,
        "train.batch_size": 8,
        "train.warmup_steps": 1,
        "train.threads": 1,
    },
    "recipe": {"model.freeze_blocks": 0, "train.batch_size": 8, "train.warmup_steps": 1, "train.threads": 1},
    "keep": {"sentences": 50},
}
"""What is smaller in a run of a minute that shows that the stages fit together."""

Figures = dict[str, dict[str, Any]]


class Arms:
    """Makes the packs of a run, each once."""

    def __init__(self, run: Path, *, smoke: bool) -> None:
        self.run, self.smoke = run, smoke
        self.steps = SMOKE["steps"] if smoke else STEPS
        self.keep = KEEP | (SMOKE["keep"] if smoke else {})
        self.shards = {name: str(run / "shards" / name) for name in (*MODALITIES, START)}

    def start(self) -> Path:
        """Return the pack that all others begin with."""
        recipe = _recipe("start.yaml", SMOKE["start"] if self.smoke else {})
        recipe["data"]["shards"] = self.shards[START]
        return trained(self.run / "packs" / START, recipe)

    def learned(
        self, name: str, start: Path, modalities: tuple[str, ...], *, keep: bool = False, lock: bool = False
    ) -> Path:
        """Return a pack that went on from another one with some modalities."""
        recipe = _recipe("recipe.yaml", SMOKE["recipe"] if self.smoke else {})
        recipe["name"] = f"merging-{name}"
        recipe["data"] |= {"shards": [self.shards[one] for one in modalities]}
        if len(modalities) > 1:
            recipe["data"]["policy"] = "per_modality"
        recipe["model"] |= {"start": str(start)} | ({"lock_text": True} if lock else {})
        recipe["train"] |= {"max_steps": self.steps * len(modalities)} | ({"keep": self.keep} if keep else {})
        return trained(self.run / "packs" / name, recipe)

    def single(self, modality: str) -> Path:
        """Return the pack of one modality."""
        return self.learned(modality, self.start(), (modality,))

    def joint(self) -> Path:
        """Return the pack that learned all modalities at once."""
        return self.learned("joint", self.start(), MODALITIES)

    def continued(self, last: str, *, keep: bool, lock: bool = False) -> Path:
        """Return the pack that has learned the modalities up to `last`, one after the other."""
        pack, how = self.start(), ("held" if keep else "continued") + ("_locked" if lock else "")
        for modality in MODALITIES[: MODALITIES.index(last) + 1]:
            pack = self.learned(f"{how}_{modality}", pack, (modality,), keep=keep, lock=lock)
        return pack

    def soup(self, method: str = "soup") -> Path:
        """Return an average of the single packs."""
        shards = [self.shards[one] for one in MODALITIES] if method == "greedy-soup" else []
        packs = [self.single(one) for one in MODALITIES]
        return self._merged(method.replace("-", "_"), packs, method=method, shards=shards, test_split=None)

    def opcm(self, last: str) -> Path:
        """Return the single packs merged one after the other, up to `last`."""
        merged: Path | None = None
        for modality in MODALITIES[: MODALITIES.index(last) + 1]:
            packs = [*([] if merged is None else [merged]), self.single(modality)]
            merged = self._merged(f"opcm_{modality}", packs, method="opcm", base=self.start())
        assert merged is not None
        return merged

    def _merged(self, name: str, packs: list[Path], **how: Any) -> Path:
        out = self.run / "packs" / name
        if not (out / "manifest.json").is_file():
            medclip.models.merge(packs, out=out, name=f"merging-{name}", **how)
        return out


def figures_of(areas: Mapping[str, Resampled]) -> Figures:
    """Write the areas of a pack, by modality, as numbers for JSON; no value where there is none."""
    return {
        modality: {"task": task} | (plain(interval_of(areas[modality])) if modality in areas else {"value": None})
        for modality, task in TASKS.items()
    }


def packs_of(arms: Arms) -> dict[str, Callable[[], Path]]:
    """Return what is measured, by name, in the order of the table; each is trained when it is called."""
    packs: dict[str, Callable[[], Path]] = {START: arms.start}
    packs |= {f"only {name}": partial(arms.single, name) for name in MODALITIES}
    packs |= {
        "joint": arms.joint,
        "soup": arms.soup,
        "greedy soup": partial(arms.soup, "greedy-soup"),
    }
    # When a modality had just been learned or merged: what it lost since is the backward transfer.
    ways: dict[str, Callable[[str], Path]] = {"OPCM": arms.opcm}
    ways |= {name: partial(arms.continued, **how) for name, how in CONTINUED.items()}
    packs |= {name: partial(way, MODALITIES[-1]) for name, way in ways.items()}
    for modality in MODALITIES[:-1]:
        packs |= {f"{name} up to {modality}": partial(way, modality) for name, way in ways.items()}
    return packs


def backward_transfer(figures: Mapping[str, Figures], arm: str) -> float | None:
    """Return the mean over modalities, but the last, of the final figure less that when it had just been learned."""
    changes = []
    for modality in MODALITIES[:-1]:
        then, now = figures.get(f"{arm} up to {modality}"), figures.get(arm)
        if then is None or now is None or then[modality]["value"] is None or now[modality]["value"] is None:
            return None
        changes.append(now[modality]["value"] - then[modality]["value"])
    return sum(changes) / len(changes)


def table_of(figures: Mapping[str, Figures]) -> str:
    """Write the table: an arm a line, a modality a column, the mean and the backward transfer."""
    lines = [f"| pack | {' | '.join(MODALITIES)} | mean | backward transfer |", "|---" * (len(MODALITIES) + 3) + "|"]
    for arm, row in figures.items():
        if " up to " in arm:
            continue
        values = [row[name]["value"] for name in MODALITIES]
        cells = [_cell(row[name]) for name in MODALITIES]
        mean = f"{sum(values) / len(values):.3f}" if None not in values else ""
        moved = backward_transfer(figures, arm)
        lines.append(
            f"| {arm} | {' | '.join(cells)} | {mean} | {'' if moved is None else f'{moved:+.3f}'.replace('-', '−')} |"
        )
    return "\n".join(lines) + "\n"


def _cell(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "not measured"
    return in_words(figure)


def _recipe(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    recipe = yaml.safe_load((HERE / name).read_text(encoding="utf-8"))
    for key, value in changes.items():
        part, _, field = key.partition(".")
        recipe[part][field] = value
    return recipe


def main() -> None:
    """Measure what is missing and write RUN/table.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    run, packs = arguments.run, packs_of(Arms(arguments.run, smoke=arguments.smoke))
    areas = paired.areas_of({name: pack() for name, pack in packs.items()}, run, TASKS, NUM_RESAMPLES)
    figures, compared = {name: figures_of(of) for name, of in areas.items()}, paired.differences(areas)
    for numbers_name, numbers, table_name, table in (
        ("figures.json", figures, "table.md", table_of(figures)),
        ("differences.json", compared, "differences.md", paired.table_of(compared)),
    ):
        write_file(run / numbers_name, json.dumps(numbers, indent=1) + "\n")
        write_file(run / table_name, table)
        print(table)


if __name__ == "__main__":
    main()
