"""Burned-in letters: how many drawn words `medclip.imaging.letters` sees, and how often it sees one without a word.

    python benchmarks/burned_letters.py ../shared/data [--fit]

Of each image one word is drawn at 2.5 to 7 % of its shorter side, in fonts that no weight was fitted with, near an edge
or within, and stored as JPEG. Seen is a word with a box inside it. Alarms are counted before the word is drawn, where
sets are not free of letters of their own: these are upper limits. Wilson intervals, by image. brain_mri, cdd_cesm and
the middles of nih_cxr are of other patients than those that the weights were fitted to; the rest are other sets.

`--fit` fits the weights anew, to the other half of the patients of these three sets, and prints them.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from statsmodels.stats.proportion import proportion_confint

from medclip.imaging.geometry import Box
from medclip.imaging.letters import letter_boxes, pieces_of

FONTS = Path(matplotlib.__file__).parent / "mpl-data/fonts/ttf"
FITTED = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf")
OTHERS = ("cmss10.ttf", "STIXGeneralBol.ttf", "STIXGeneral.ttf", "")
"""The last is Pillow's own."""
WORDS = ("L", "R", "PORTABLE", "R ERECT", "AP 10:32", "12/03/1998", "SUPINE", "LEFT", "JM", "L", "R")
SIDE = 512
HALVES = {"brain_mri": "dup_group", "cdd_cesm": "patient_id", "nih_cxr": "patient_id"}
"""Sets that weights are fitted to, with the column whose values are cut into two halves."""
MIDDLES = {"nih_cxr": 0.22, "kermany_cxr": 0.22}
"""Share that is cut off at each edge of films, where their markers lie."""
MEASURED = ("brain_mri", "cdd_cesm", "nih_cxr", "kermany_cxr", "idrid", "breast_us")
MOST = 100


def images_of(data: Path, name: str, half: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the images of a set, grey, at most 512 px; of the sets that are cut in two, one half."""
    with (data / name / "labels.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    random.Random(1).shuffle(rows)
    if name in HALVES:
        rows = [row for row in rows if sum(map(ord, row[HALVES[name]])) % 2 == half]
    for row in rows[:MOST]:
        image, cut = Image.open(data / name / row["file"]).convert("L"), MIDDLES.get(name, 0)
        width, height = image.size
        image = image.crop((int(width * cut), int(height * cut), int(width * (1 - cut)), int(height * (1 - cut))))
        image.thumbnail((SIDE, SIDE))
        yield np.asarray(image)


def with_word(
    grey_HW: NDArray[np.uint8], rng: random.Random, fonts: Sequence[str], *, faint: bool
) -> tuple[NDArray[np.uint8], Box]:
    """Draw a word; return the image after JPEG, and the word's box."""
    image = Image.fromarray(grey_HW)
    width, height = image.size
    name, size = rng.choice(fonts), round(max(9, rng.uniform(0.025, 0.07) * min(width, height)) / 0.72)
    font = ImageFont.truetype(str(FONTS / name), size) if name else ImageFont.load_default(size)
    word, draw = rng.choice(WORDS), ImageDraw.Draw(image)
    while (box := draw.textbbox((0, 0), word, font=font))[2] - box[0] > 0.8 * width:
        word = word[: len(word) // 2]
    wide, tall = int(box[2] - box[0]), int(box[3] - box[1])
    most_x, most_y = max(width - wide - 4, 3), max(height - tall - 4, 3)
    x, y, edge = rng.randint(2, most_x), rng.randint(2, most_y), rng.choice("LRTB")
    if edge in "LR":
        x = rng.randint(*((2, max(3, width // 6)) if edge == "L" else (max(2, most_x - width // 6), most_x)))
    else:
        y = rng.randint(*((2, max(3, height // 6)) if edge == "T" else (max(2, most_y - height // 6), most_y)))
    place, fill = (x - box[0], y - box[1]), rng.randint(225, 255)
    if faint and rng.random() < 0.5:
        around = int(np.median(grey_HW[y : y + tall + 1, x : x + wide + 1]))
        layer = Image.new("L", image.size, 0)
        ImageDraw.Draw(layer).text(place, word, fill=255, font=font)
        layer = layer.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.0)))
        image = Image.composite(Image.new("L", image.size, rng.randint(min(around + 45, 255), 255)), image, layer)
    else:
        draw.text(place, word, fill=fill, font=font)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=rng.choice([85, 92, 95]))
    return np.asarray(Image.open(file).convert("L")), Box(y, x, y + tall, x + wide)


def is_inside(one: Box, word: Box) -> bool:
    """Return whether a piece lies in the box of a word, or three pixels beside it."""
    rows = one.top >= word.top - 3 and one.bottom <= word.bottom + 3
    return rows and one.left >= word.left - 3 and one.right <= word.right + 3


def measure(data: Path) -> None:
    """Print what is seen of each set."""
    for name in MEASURED:
        rng, seen, alarms, num = random.Random(11), 0, 0, 0
        for grey_HW in images_of(data, name, 1):
            drawn_HW, word = with_word(grey_HW, rng, OTHERS, faint=False)
            alarms += bool(letter_boxes(grey_HW))
            seen += any(is_inside(one, word) for one in letter_boxes(drawn_HW))
            num += 1
        parts = []
        for words, hits in (("seen", seen), ("alarms", alarms)):
            low, high = proportion_confint(hits, num, method="wilson")
            parts.append(f"{words} {hits} of {num} = {hits / num:.2f} ({low:.2f} to {high:.2f})")
        print(f"{name}: {', '.join(parts)}", flush=True)


def fit(data: Path) -> None:
    """Print weights that tell pieces of words, half of them faint, from all pieces of images without a word."""
    rng = random.Random(3)
    facts: list[tuple[float, ...]] = []
    is_word: list[bool] = []
    for name in HALVES:
        for grey_HW in images_of(data, name, 0):
            drawn_HW, word = with_word(grey_HW, rng, FITTED, faint=True)
            for is_drawn, image_HW in ((False, grey_HW), (True, drawn_HW)):
                some = [of for box, of in pieces_of(image_HW) if not is_drawn or is_inside(box, word)]
                facts, is_word = facts + some, is_word + [is_drawn] * len(some)
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced")).fit(facts, is_word)
    scaler, regression = model[0], model[1]
    weights = regression.coef_[0] / scaler.scale_
    constant = float(regression.intercept_[0] - (weights * scaler.mean_).sum())
    print(len(facts), "pieces,", sum(is_word), "of words; constant", round(constant, 2), "weights", weights.round(2))


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the shared data")
    parser.add_argument("--fit", action="store_true", help="fit weights, and measure nothing")
    arguments = parser.parse_args()
    (fit if arguments.fit else measure)(arguments.data)


if __name__ == "__main__":
    main()
