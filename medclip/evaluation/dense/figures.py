"""What a dense probe measured on one set: Dice of each tower by share of labels, what is between them, and in lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from medclip.errors import printable
from medclip.evaluation.dense.towers import IMAGENET, PACK, POSITION, RANDOM
from medclip.evaluation.zero_shot.compared_packs import shown_figure
from medclip.statistics.estimate import Change, Figure
from medclip.wording import count, list_of


@dataclass(frozen=True)
class DenseCell:
    """One tower with one share of the labels."""

    tower: str
    share: float
    dice: Figure
    """Mean over images held out and seeds, of the images' own pixels."""
    iou: Figure
    of_seeds: tuple[float, ...]
    """Dice of each draw of labels."""
    unseen: Figure | None
    """Dice without images of the pack's training and without the other images of their patients; None where there are
    none to leave out, or too few others."""


@dataclass(frozen=True)
class Less:
    """Dice of the pack less that of another tower, paired over images, patients and seeds."""

    tower: str
    share: float
    difference: Change


@dataclass(frozen=True)
class DenseExample:
    """An image held out, with all labels and the first seed."""

    what: str
    """Worst, median or best by its Dice."""
    row: int
    dice: float
    is_drawn: bool
    """False where the header says that text is burned in."""


@dataclass(frozen=True)
class DenseFigures:
    """One set with masks, measured."""

    id: str
    group: str
    modality: str
    title: str
    titles: Mapping[str, str]
    """What each tower is called, in the order of tables."""
    shares: tuple[float, ...]
    images_learned: Mapping[str, int]
    """Training images by share, as text."""
    num_seeds: int
    num_images: int
    num_left_out: int
    num_train: int
    num_test: int
    num_test_patients: int
    """What images share, or images, where `names_patients` is false."""
    names_patients: bool
    num_in_training: int | None
    """Images held out whose pixels (not masks) the pack was trained on; None where it lists no training files."""
    num_empty: int
    """Images held out in which nothing is true; they have no Dice."""
    grid: tuple[int, int]
    size_px: int
    problems: Mapping[str, int]
    cells: tuple[DenseCell, ...]
    less: tuple[Less, ...]
    examples: tuple[DenseExample, ...]
    notes: tuple[str, ...]

    def cell(self, tower: str, share: float) -> DenseCell:
        """Return one tower with one share."""
        return next(c for c in self.cells if (c.tower, c.share) == (tower, share))

    def apart(self, tower: str, share: float) -> Change:
        """Return the pack's Dice less that of a tower."""
        return next(one.difference for one in self.less if (one.tower, one.share) == (tower, share))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DenseFigures:
        """Read back what `to_json` gave."""
        kept = dict(values)
        kept["cells"] = tuple(
            DenseCell(
                c["tower"],
                c["share"],
                Figure(**c["dice"]),
                Figure(**c["iou"]),
                tuple(c["of_seeds"]),
                None if c["unseen"] is None else Figure(**c["unseen"]),
            )
            for c in kept["cells"]
        )
        kept["less"] = tuple(Less(one["tower"], one["share"], Change(**one["difference"])) for one in kept["less"])
        kept["examples"] = tuple(DenseExample(**one) for one in kept["examples"])
        for name in ("shares", "grid", "notes"):
            kept[name] = tuple(kept[name])
        return cls(**kept)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield Dice and IoU of each tower and share as rows of a table."""
        for cell in self.cells:
            for metric, figure in (("dice", cell.dice), ("iou", cell.iou)):
                yield {
                    "set": self.id,
                    "metric": f"{metric} {cell.tower} {cell.share:g}",
                    "value": figure.value,
                    "low": figure.low,
                    "high": figure.high,
                    "num_images": self.num_test,
                }

    def sentences(self) -> Iterator[str]:
        """Yield what was seen in sentences: whether more labels help, and what the pack is better than."""
        pack, most = self.titles[PACK], self.shares[-1]
        values = [self.cell(PACK, share).dice.value for share in self.shares]
        if len(values) > 1:
            texts = list_of([f"{value:.2f} with {share_of(s)}" for value, s in zip(values, self.shares, strict=True)])
            rises = "more labels help throughout" if values == sorted(values) else "more labels do not always help"
            yield f"{pack} has a Dice of {texts}: {rises}."
        parts: dict[str, list[str]] = {"better than": [], "not told from": [], "worse than": []}
        for tower in self.titles:
            if tower != PACK:
                parts[_verdict(self.apart(tower, most))].append(self.titles[tower])
        verdicts = [f"{what} {list_of(towers)}" for what, towers in parts.items() if towers]
        yield f"With {share_of(most)} it is {'; '.join(verdicts)}."
        if self.cell(RANDOM, most).dice.value >= self.cell(PACK, most).dice.value:
            yield "A tower of random weights does as well: the masks here ask for little that was learned."

    def lines(self) -> Iterator[str]:
        """Yield the table on screen."""
        who = "patients" if self.names_patients else "groups of images (no patients are named)"
        yield (
            f"{self.id}: {count(self.num_test, 'image')} of {self.num_test_patients} {who} held out, "
            f"{self.num_train} to learn from; {self.grid[0]} x {self.grid[1]} places at {self.size_px} px"
        )
        width = max([len(title) for title in self.titles.values()] + [18])
        heads = [f"Dice, {share_of(share)} ({self.images_learned[f'{share:g}']})" for share in self.shares]
        yield f"{'tower':{width}}" + "".join(f"{head:>28}" for head in heads) + f"{'IoU, most labels':>26}"
        for tower, title in self.titles.items():
            cells = [self.cell(tower, share) for share in self.shares]
            texts = "".join(f"{shown_figure(c.dice):>28}" for c in cells)
            yield f"{printable(title):{width}}{texts}{shown_figure(cells[-1].iou):>26}"
            if tower == PACK and cells[-1].unseen is not None:
                unseen = "".join(f"{'' if c.unseen is None else shown_figure(c.unseen):>28}" for c in cells)
                yield f"{'  without training':{width}}{unseen}"
        for tower, title in self.titles.items():
            if tower != PACK:
                texts = "".join(f"{shown_figure(self.apart(tower, share)):>28}" for share in self.shares)
                yield f"{printable('less ' + title):{width}}{texts}"
        yield from (f"  {printable(sentence)}" for sentence in (*self.sentences(), *self.notes))
        if self.num_in_training:
            yield f"  {self.num_in_training} of the images held out are in the pack's training data, without masks."


TITLES = {IMAGENET: "ImageNet weights", RANDOM: "random weights", POSITION: "position alone"}
"""Of the towers beside the pack and the one it is compared with."""


def share_of(share: float) -> str:
    """Write a share of labels, such as "2 % of labels"."""
    return "all labels" if share == 1 else f"{100 * share:g} % of labels"


def _verdict(apart: Change) -> str:
    if apart.low is None or apart.high is None or apart.low <= 0 <= apart.high:
        return "not told from"
    return "better than" if apart.low > 0 else "worse than"
