"""Articles made by code for the smoke run, and a stand-in for the experts who label clusters of figures.

Usage: python pipelines/biomedica/simulate.py articles OUT [NUM]
       python pipelines/biomedica/simulate.py labels CLUSTERS SHARDS OUT.csv
"""

from __future__ import annotations

import argparse
import csv
import random
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from medclip.pairs.pile import read_pile

EXAMPLES = Path(__file__).parents[2] / "examples" / "studies"
CLINICAL = {
    "chest_portable.jpg": "Chest radiograph taken at the bedside.",
    "fundus.jpg": "Fundus photograph of one eye.",
    "tissue.jpg": "Stained section under the microscope.",
    "breast_ultrasound.jpg": "Ultrasound of a breast with a mass.",
    "abdomen_ct.png": "CT slice of the abdomen.",
    "brain_flair.png": "MRI slice of the head.",
}
PLOT = "Plot of the response by dose"
TERMS = {True: "Plots and Charts", False: "Clinical Imaging"}
"""By whether a figure is a plot."""


def plot(rng: random.Random) -> Image.Image:
    """Draw axes and a curve."""
    image = Image.new("RGB", (240, 180), "white")
    draw = ImageDraw.Draw(image)
    draw.line([(20, 10), (20, 160), (230, 160)], fill="black", width=2)
    points = [(20 + 20 * i, 160 - rng.randrange(150)) for i in range(11)]
    draw.line(points, fill=rng.choice(["red", "blue", "green"]), width=3)
    return image


def part_of(name: str, rng: random.Random) -> Image.Image:
    """Cut a part of an example, so that no two figures are copies."""
    image = Image.open(EXAMPLES / name).convert("RGB")
    width, height = (int(side * rng.uniform(0.75, 0.95)) for side in image.size)
    left, top = rng.randrange(image.width - width + 1), rng.randrange(image.height - height + 1)
    return image.crop((left, top, left + width, top + height)).resize((240, 180))


def write_articles(out: Path, number: int) -> None:
    """Write packages of three figures each, two clinical images and a plot; every fourth forbids commercial use."""
    rng = random.Random(0)
    for n in range(number):
        folder = out / f"PMC{1000 + n}"
        folder.mkdir(parents=True, exist_ok=True)
        figures = []
        names = rng.sample(list(CLINICAL), 2)
        images = [(part_of(name, rng), CLINICAL[name]) for name in names] + [(plot(rng), f"{PLOT}, series {n}.")]
        for i, (image, caption) in enumerate(images, 1):
            image.save(folder / f"g{i}.png")
            figures.append(
                f'<fig id="F{i}"><label>Figure {i}</label><caption><p>{caption}</p></caption>'
                f'<graphic xlink:href="g{i}"/></fig>'
            )
        license_ = "by" if n % 4 else "by-nc"
        (folder / "article.nxml").write_text(
            '<article xmlns:xlink="http://www.w3.org/1999/xlink"><front><article-meta>'
            f'<article-id pub-id-type="pmc">{1000 + n}</article-id><permissions><license '
            f'xlink:href="https://creativecommons.org/licenses/{license_}/4.0/"/></permissions></article-meta></front>'
            f'<body><p>The finding is seen (<xref ref-type="fig" rid="F1">Figure 1</xref>).</p>{"".join(figures)}'
            "</body></article>",
            encoding="utf-8",
        )


def write_labels(clusters: Path, shards: Path, out: Path) -> None:
    """Label each cluster by what most of its captions say: experts look at clusters.html."""
    pile = read_pile(shards)
    is_plot = {key: PLOT in text for key, text in zip(pile.cells("key"), pile.cells("text"), strict=True)}
    votes: dict[int, Counter[bool]] = defaultdict(Counter)
    for row in pq.read_table(clusters / "assignments.parquet").to_pylist():
        votes[row["cluster"]][is_plot[row["key"]]] += 1
    with out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["cluster", "panel_type", "panel_subtype", "primary", "secondary"])
        for cluster, counts in sorted(votes.items()):
            table.writerow([cluster, "single", "single panel", TERMS[counts.most_common(1)[0][0]], ""])


def main() -> None:
    """Write articles, or labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    articles = commands.add_parser("articles")
    articles.add_argument("out", type=Path)
    articles.add_argument("number", type=int, nargs="?", default=40)
    labels = commands.add_parser("labels")
    for name in ("clusters", "shards", "out"):
        labels.add_argument(name, type=Path)
    arguments = parser.parse_args()
    if arguments.command == "articles":
        write_articles(arguments.out, arguments.number)
    else:
        write_labels(arguments.clusters, arguments.shards, arguments.out)


if __name__ == "__main__":
    main()
