"""Last stage: write what README and docs say of the built-in pack, from its own card.

Usage: python pipelines/mini/passages.py [--check]

A passage stands between `<!-- card: NAME -->` and `<!-- /card -->`, which show on no rendered page, and NAME is one of
`PASSAGES`. Whatever stands between them is written anew, so that no number of the pack is copied by hand. With --check
nothing is written, and the exit code is 1 where a passage is not what the card says.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError
from medclip.models.packs.card import Card
from medclip.models.packs.card_sources import ALL, METRIC_TITLES, SourceFigures, WithinFigure, within_figures
from medclip.models.packs.manifest import read_manifest
from medclip.models.packs.pack import DEFAULT, find_pack, pack_card
from medclip.models.prototypes.home_images import load_homes
from medclip.reports.model_card import task_title, view_card
from medclip.sample import spoken
from medclip.statistics.metrics.by_source import HOLDS, WITHIN_ONLY
from medclip.text.vocabulary.load import MODALITY_TASK, load_task
from medclip.wording import count, estimate, figure, list_of, number

ROOT = Path(__file__).resolve().parents[2]
PASSAGE = re.compile(r"<!-- card: (?P<name>[a-z_]+) -->(?P<text>.*?)<!-- /card -->", re.S)
WIDTHS = {"README.md": 140}
WIDTH = 180
"""Characters of a line of the docs."""
SETS = {
    "nih_cxr": "NIH ChestX-ray14",
    "covid_cxr": "the COVID-19 image collection",
    "breast_us": "BrEaST",
    "bus_bra": "BUS-BRA",
    "cdd_cesm": "CDD-CESM",
    "mini_mias": "mini-MIAS",
    "csdi_fundus": "CSDI",
    "medpix2": "MedPix",
    "vqa_rad": "VQA-RAD",
}
"""What readers know a set by; of others its name on the card."""
FINDING = ("chest_xray_findings", "pneumonia")
KINDS = {"volumes": ":volume", "loops": ":cine", "slides": ":slide", "ECG records": ":signal"}
"""What a pack may take beside images, and how the slots of its manifest end that say so."""
MOST_NAMED = 4
"""Sets of a figure that the table names; of more it says how many."""
RETRIEVAL = "retrieval, "
"""How the figures of a set's texts are called on the card."""


@dataclass(frozen=True)
class Pack:
    """What passages are written from."""

    card: Card
    slots: frozenset[str]
    """Names of what it was trained to see: "xray", "ecg:signal"."""
    homes: tuple[str, ...]
    """Modalities of which it knows where the images lie that were measured."""


@dataclass(frozen=True)
class Answer:
    """One task, or one finding of a task, with the figure that the card has of it."""

    task: str
    finding: str
    metric: str
    figure: Mapping[str, Any]
    sources: SourceFigures | None
    within: tuple[WithinFigure, ...] = ()
    """The figures of the sources that it holds within, where it holds nowhere else."""

    @property
    def title(self) -> str:
        """What it is called in a sentence."""
        if not self.finding:
            return task_title(self.task)
        titles = {c.name: c.title for c in load_task(self.task).classes}
        return f"{task_title(self.task)}: {in_a_sentence(titles.get(self.finding, self.finding))}"


def in_a_sentence(title: str) -> str:
    """Write a title as it stands within a sentence: "pneumonia", but "COVID-19" and "ST-T changes".

    Example:
        >>> in_a_sentence("Normal ECG"), in_a_sentence("COVID-19")
        ('normal ECG', 'COVID-19')
    """
    return title[:1].lower() + title[1:] if title[1:2].islower() else title


def answers_of(card: Card) -> Iterator[Answer]:
    """Yield every task of a card, those of findings one by one, with its first figure."""
    for task, entry in card.tasks.items():
        if by_finding := entry.metrics.get("auroc"):
            for finding, figures in by_finding.items():
                within = within_figures(entry.metrics, entry.sources, finding)
                yield Answer(task, finding, "auroc", figures["zero_shot"], entry.sources.get(finding), within)
        elif figures := entry.metrics.get("balanced_accuracy"):
            within = within_figures(entry.metrics, entry.sources, ALL)
            yield Answer(task, "", "balanced_accuracy", figures["zero_shot"], entry.sources.get(ALL), within)


def read_pack(model: str = DEFAULT) -> Pack:
    """Read what is needed of a pack."""
    folder = find_pack(model)
    return Pack(pack_card(model), frozenset(read_manifest(folder).preprocessing), tuple(load_homes(folder)))


def called(names: tuple[str, ...]) -> str:
    """Write sources as readers know them."""
    return list_of([SETS.get(name, name) for name in names])


def in_words(value: Mapping[str, Any]) -> str:
    """Write a figure with its interval."""
    return estimate(value["value"], value.get("low"), value.get("high"), decimals=2)


def elsewhere(card: Card) -> str:
    """Write in a sentence how pneumonia does across sites; blank where the card does not know."""
    task, finding = FINDING
    entry = card.tasks.get(task)
    if entry is None or finding not in entry.classes:
        return ""
    if counted := re.search(r"On films of three other sites [^.]*\.\d+\.", entry.note):
        return counted.group()
    figures = entry.sources[finding].printed
    directions = {name: value for name, value in figures.items() if name.startswith("positives of ")}
    if not directions:
        return ""
    name, worst = min(directions.items(), key=lambda item: item[1]["value"])
    positives, negatives = re.fullmatch(r"positives of (\w+), negatives of (\w+)", name).groups()  # pyright: ignore
    return (
        f"Between films with pneumonia of {called((positives,))} and films without of {called((negatives,))} the "
        f"AUROC was {in_words(worst)}."
    )


def pneumonia(card: Card) -> str:
    """Write in sentences what the figure for pneumonia is worth."""
    answer = next((a for a in answers_of(card) if (a.task, a.finding) == FINDING), None)
    if answer is None or answer.sources is None:
        return "No finding of chest films was above chance with its whole interval, so none is on the card."
    if answer.sources.verdict == HOLDS:
        where = f"holds across sources ({called(answer.sources.sources)})"
    elif answer.sources.verdict == WITHIN_ONLY:
        several = "s" if len(answer.sources.sources) > 1 else ""
        where = f"was measured within its source{several} only ({called(answer.sources.sources)})"
    else:
        where = f"is of one source ({called(answer.sources.sources)})"
    doubt = "" if answer.sources.verdict == HOLDS else ", and it does not apply to films from elsewhere"
    return " ".join(filter(None, (f"Its figure for pneumonia {where}{doubt}.", elsewhere(card))))


def size(card: Card) -> str:
    """Write how many images a card's pack was trained on, and of how many sets."""
    total = sum(source.num_images or 0 for source in card.data)
    num_sets = len({source.name for source in card.data})
    return f"{count(total, 'public image')} of {count(num_sets, 'set')}"


def limits(pack: Pack) -> str:
    """README, Limits."""
    return (
        f"**The built-in model is small** and was trained on {size(pack.card)}. Its card lists only tasks whose figure "
        "on held-out images is above chance with its whole 95 % interval; see `medclip models show medclip-mini`. "
        f"{pneumonia(pack.card)} A probability of 0.9 does not mean that nine of ten such patients are ill."
    )


def lacking_kinds(pack: Pack) -> list[str]:
    """Return the kinds that a pack was not trained on."""
    return [kind for kind, end in KINDS.items() if not any(slot.endswith(end) for slot in pack.slots)]


def what_is_not_scored(pack: Pack) -> str:
    """README, Limits."""
    lacking = lacking_kinds(pack)
    also = "" if "ECG records" in lacking else " An ECG record is scored as cuttings of its drawn sheet."
    return (
        f"**The built-in model does not score {list_of(lacking)}.** They are read and get their row. Models adapted to "
        f"them score them.{also}"
    )


def which_kinds(pack: Pack) -> str:
    """docs/concepts/units.md."""
    lacking = lacking_kinds(pack)
    records = "medclip-mini was trained on images" + ("" if "ECG records" in lacking else " and on ECG records")
    return (
        f"{records}, so it does not score {list_of(lacking)}. Packs that were [adapted](../how-to/adapt.md) to them "
        "score them; an ECG is shown to a model of images as five sections of its drawn trace."
    )


def worth(pack: Pack) -> str:
    """docs/concepts/model_packs.md."""
    card, known = pack.card, list_of([spoken(name) for name in pack.card.modalities])
    answered = {str(one) for task in card.tasks if task != MODALITY_TASK for one in load_task(task).modalities}
    silent = [name for name in card.modalities if name not in answered]
    recognised = [name for name in silent if MODALITY_TASK in card.tasks and name in card.tasks[MODALITY_TASK].classes]
    neither = [name for name in silent if name not in recognised]
    said = [f"Version {card.version} was trained on {known} images."]
    said += [f"It recognises {list_of(list(map(spoken, recognised)))} images and answers nothing of them."] * bool(
        recognised
    )
    said += [
        f"It neither recognises {list_of(list(map(spoken, neither)))} images nor answers anything of them."
    ] * bool(neither)
    return " ".join([*said, pneumonia(card)])


def answered(pack: Pack) -> str:
    """docs/how-to/coming_from.md: which findings of chest films are answered."""
    entry = pack.card.tasks.get(FINDING[0])
    if entry is None:
        return "The built-in model answers no finding of chest films."
    titles = {c.name: in_a_sentence(c.title) for c in load_task(FINDING[0]).classes}
    names = list_of([titles[name] for name in entry.classes])
    noun = "one finding" if len(entry.classes) == 1 else f"{len(entry.classes)} findings"
    return f"The built-in model answers {noun} of chest films, {names}. {pneumonia(pack.card)}"


def homes(pack: Pack) -> str:
    """docs/how-to/monitor.md: of which modalities the pack knows its home."""
    return list_of([spoken(name) for name in pack.homes]) or "no"


def counted(figure: Mapping[str, Any]) -> str:
    """Write how many patients a figure is over; images where nobody knows of how many patients they are."""
    if num_patients := figure.get("num_patients"):
        return f"{number(num_patients)} patients"
    num_images = figure.get("num_images", figure.get("num_rows"))
    if num_images is None and "num_positive" in figure:  # of one finding, each image is on one side
        num_images = figure["num_positive"] + figure["num_negative"]
    return f"{number(num_images)} images"


def figures(pack: Pack) -> str:
    """docs/concepts/model_packs.md: the table of the card, with the figure of the source that it names."""
    lines = ["| question | figure (95 % interval) | chance | over | sources |", "|---|---|---|---|---|"]
    for a in answers_of(pack.card):
        measured = [(one.metric, one.figure, f" within {one.source}") for one in a.within]
        sources = "not measured" if a.sources is None else a.sources.verdict
        names = () if a.sources is None else a.sources.named
        named = ", ".join(names) if len(names) <= MOST_NAMED else count(len(names), "set")
        where = f" ({named})" if names else ""
        for metric, one, place in measured or [(a.metric, a.figure, "")]:
            what = f"{METRIC_TITLES[metric]} {in_words(one)}{place}"
            chance = figure(one["chance"], decimals=2)
            lines.append(f"| {a.title} | {what} | {chance} | {counted(one)} | {sources}{where} |")
    return "\n".join(["", *lines, ""])


def not_claimed(pack: Pack) -> str:
    """docs/concepts/model_packs.md: what was tried, with its figure and why it is not claimed; blank for none."""
    lines = [f"| {what} | {measured} |" for what, measured in view_card(pack.card).not_claimed]
    return "\n".join(["", "| tried and not claimed | figure and reason |", "|---|---|", *lines, ""]) if lines else ""


def texts(pack: Pack) -> str:
    """docs/concepts/model_packs.md: how well the texts of a set are found among those of its own images."""
    lines = [
        "| set | images | text to image, first | among the first five | image to text, first |",
        "|---|---|---|---|---|",
    ]
    figures = pack.card.held_out.figures if pack.card.held_out else {}
    for name, of_set in figures.items():
        if name.startswith(RETRIEVAL):
            found = [of_set[one] for one in ("text_to_image_r1", "text_to_image_r5", "image_to_text_r1")]
            cells = [f"{in_words(one)}, chance {figure(one['chance'], decimals=2)}" for one in found]
            lines.append(
                f"| {called((name[len(RETRIEVAL) :],))} | {number(found[0]['num_images'])} | {' | '.join(cells)} |"
            )
    return "\n".join(["", *lines, ""])


PASSAGES: Mapping[str, Callable[[Pack], str]] = {
    "limits": limits,
    "not_scored": what_is_not_scored,
    "kinds": which_kinds,
    "worth": worth,
    "answered": answered,
    "homes": homes,
    "figures": figures,
    "not_claimed": not_claimed,
    "texts": texts,
}


def written(text: str, pack: Pack, width: int) -> str:
    """Return a page with its passages as the card has them.

    Raises:
        KeyError: There is no such passage.
    """

    def anew(match: re.Match[str]) -> str:
        name = match["name"]
        passage = PASSAGES[name](pack)
        before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        if "|" not in passage:
            indent = "  " if before.startswith("- ") else ""
            first = f"{before}<!-- card: {name} -->"
            filled = textwrap.fill(
                first + passage, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
            )
            passage = filled[len(first) :]
        return f"<!-- card: {name} -->{passage}<!-- /card -->"

    return PASSAGE.sub(anew, text)


def pages() -> Iterator[Path]:
    """Yield README and the pages of the docs that have a passage."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        if PASSAGE.search(page.read_text(encoding="utf-8")):
            yield page


def main(arguments: list[str]) -> int:
    """Write the passages, or say which are not what the card says."""
    try:
        pack = read_pack()
    except MedclipError as error:
        print(error, file=sys.stderr)
        return 2
    stale = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        anew = written(text, pack, WIDTHS.get(page.name, WIDTH))
        if anew != text:
            stale.append(page.relative_to(ROOT).as_posix())
            if "--check" not in arguments:
                page.write_text(anew, encoding="utf-8")
    done = "to be written" if "--check" in arguments else "written"
    print(f"{pack.card.name} {pack.card.version}: {', '.join(stale) or 'no page'} {done}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
