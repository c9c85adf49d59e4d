"""Images that are of no patient at all: pages, tables, screens, charts, textures, colours, and photographs.

All but the photographs are drawn by code, each from a seed alone. Photographs are crops of those that scikit-learn and
matplotlib ship: few, so that what holds for them is not known to hold for others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from itertools import pairwise
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy.ndimage import gaussian_filter

Pixels = NDArray[np.uint8]
"""H x W grey levels, or H x W x 3."""
SYLLABLES = (
    "ba",
    "con",
    "de",
    "di",
    "el",
    "fi",
    "for",
    "ge",
    "in",
    "ka",
    "la",
    "men",
    "mi",
    "no",
    "per",
    "ra",
    "re",
    "sa",
    "si",
    "ta",
    "te",
    "tion",
    "tu",
    "un",
    "ver",
    "vi",
    "wa",
    "zo",
)
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSansMono", "STIXGeneral")
"""What matplotlib ships; beside them the font of Pillow."""
STYLES = ("default", "ggplot", "bmh", "fivethirtyeight", "dark_background", "grayscale", "classic", "Solarize_Light2")
PALETTES = ("tab10", "Set2", "Dark2", "viridis", "plasma", "Greys", "Pastel1")


def page(seed: int) -> Pixels:
    """Draw a scanned page of one to three columns, with or without a heading."""
    rng = np.random.default_rng(seed)
    width, height = _paper(rng)
    image, draw = _blank(rng, width, height)
    margin, columns = int(width * rng.uniform(0.06, 0.14)), int(rng.integers(1, 4))
    size = max(8, int(width / rng.uniform(28, 75) / columns**0.4))
    font, ink = _font(rng, size), int(rng.integers(0, 80))
    top = margin
    if rng.random() < 0.6:
        draw.text((margin, top), _words(rng, 4).title(), font=_font(rng, 2 * size), fill=ink)
        top += 3 * size
    wide = (width - margin * (columns + 1)) // columns
    for column in range(columns):
        y, left = top, margin + column * (wide + margin)
        while y < height - margin:
            last = rng.random() < 0.12
            line = _fitting(rng, draw, font, wide * (rng.uniform(0.2, 0.8) if last else 1))
            draw.text((left, y), line, font=font, fill=ink)
            y += int(size * (2.3 if last else 1.35))
    return _scanned(image, rng)


def form(seed: int) -> Pixels:
    """Draw a form or a table: ruled boxes with labels, numbers and ticks."""
    rng = np.random.default_rng(seed)
    width, height = _paper(rng)
    image, draw = _blank(rng, width, height)
    rows, columns = int(rng.integers(6, 28)), int(rng.integers(2, 8))
    margin = int(width * rng.uniform(0.03, 0.1))
    ys = np.linspace(margin * 2, height - margin, rows + 1).astype(int)
    inner = np.sort(rng.uniform(0.1, 0.9, columns - 1))
    xs = (margin + (width - 2 * margin) * np.concatenate([[0], inner, [1]])).astype(int)
    size = int(np.clip((ys[1] - ys[0]) * rng.uniform(0.35, 0.6), 8, width / 25))
    font, ink, line = _font(rng, size), int(rng.integers(0, 70)), int(rng.integers(60, 190))
    shade, ruled, upright = rng.random() < 0.4, rng.random() < 0.8, rng.random() < 0.7
    draw.text((margin, margin // 2), _words(rng, 3).title(), font=_font(rng, int(size * 1.5)), fill=ink)
    for number, (above, below) in enumerate(pairwise(ys)):
        if shade and number % 2 == 0:
            draw.rectangle((xs[0], above, xs[-1], below), fill=int(rng.integers(225, 240)))
        for left, right in pairwise(xs):
            kind = rng.random()
            text = f"{rng.uniform(0, 500):.2f}" if kind < 0.45 else _words(rng, 2) if kind < 0.8 else ""
            if kind > 0.95:
                draw.rectangle((left + size, above + size // 3, left + 2 * size, above + 4 * size // 3), outline=ink)
            while text and draw.textlength(text, font=font) > right - left - size // 2:
                text = text[:-1]
            draw.text((left + size // 4, above + size // 3), text, font=font, fill=ink)
            if upright:
                draw.line((right, above, right, below), fill=line)
        if ruled:
            draw.line((xs[0], above, xs[-1], above), fill=line)
    draw.rectangle((xs[0], ys[0], xs[-1], ys[-1]), outline=line)
    return _scanned(image, rng)


def screen(seed: int) -> Pixels:
    """Draw a window of a program or a page of a report: bars, panels, buttons, rows of text and a small chart."""
    rng = np.random.default_rng(seed)
    width, height = int(rng.integers(500, 1100)), int(rng.integers(400, 1000))
    dark = rng.random() < 0.35
    paper, ink = ((30, 33, 38), (225, 228, 232)) if dark else ((252, 252, 253), (40, 44, 50))
    accent = tuple(int(v) for v in rng.integers(30, 220, 3))
    image = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(image)
    bar = int(rng.integers(20, 60))
    draw.rectangle((0, 0, width, bar), fill=accent)
    draw.text((12, bar // 4), _words(rng, 3), font=_font(rng, bar // 2), fill=(255, 255, 255))
    side = int(width * rng.choice([0, 0.2, 0.28]))
    panel = tuple(int(v * (1.5 if dark else 0.94)) for v in paper)
    draw.rectangle((0, bar, side, height), fill=panel)
    size = int(rng.integers(9, 17))
    font = _font(rng, size)
    for y in range(bar + size, height, 2 * size):
        if side:
            draw.text((size, y), _words(rng, 2)[: side // size], font=font, fill=ink)
    y = bar + size
    while y < height - 3 * size:
        block, right = rng.random(), width - 2 * size
        if block < 0.35:
            for _ in range(int(rng.integers(2, 6))):
                draw.text((side + size, y), _fitting(rng, draw, font, right - side - size), font=font, fill=ink)
                y += int(1.5 * size)
        elif block < 0.6:
            for _ in range(int(rng.integers(2, 7))):
                draw.text((side + size, y), _words(rng, 2), font=font, fill=ink)
                end = side + (right - side) * rng.uniform(0.45, 0.95)
                draw.rectangle((side + (right - side) * 0.4, y, end, y + size), fill=accent)
                y += int(1.9 * size)
        elif block < 0.8:
            tall = int(rng.integers(4, 12)) * size
            draw.rectangle((side + size, y, right, y + tall), outline=ink, fill=panel)
            walk = np.cumsum(rng.normal(0, 1, 60))
            walk = y + tall * (0.1 + 0.8 * (walk - walk.min()) / np.ptp(walk))
            places = np.linspace(side + 2 * size, right - size, 60)
            draw.line([*zip(places.tolist(), walk.tolist(), strict=True)], fill=accent, width=2)
            y += tall
        else:
            for left in range(side + size, right - 8 * size, 10 * size):
                draw.rounded_rectangle((left, y, left + 8 * size, y + 2 * size), size // 2, fill=accent)
                draw.text((left + size, y + size // 2), _words(rng, 1), font=font, fill=(255, 255, 255))
            y += 2 * size
        y += size
    return grey_or_not(np.asarray(image), rng)


def lines(seed: int) -> Pixels:
    """Plot one to six curves, smooth, noisy or in steps, with or without a grid."""
    return _plotted(seed, _lines)


def bars(seed: int) -> Pixels:
    """Plot bars, upright or lying, or a histogram."""
    return _plotted(seed, _bars)


def points(seed: int) -> Pixels:
    """Plot a cloud of points in one to three groups, or points with error bars."""
    return _plotted(seed, _points)


def pie(seed: int) -> Pixels:
    """Plot a pie or a ring."""
    return _plotted(seed, _pie)


def checks(seed: int) -> Pixels:
    """Draw a board, stripes, dots or a grid of lines, straight, turned or seen aslant."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(160, 640))
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    if rng.random() < 0.5:
        turn = rng.uniform(0, np.pi)
        x, y = x * np.cos(turn) - y * np.sin(turn) + 2, x * np.sin(turn) + y * np.cos(turn) + 2
        far = 1 + rng.uniform(0, 0.6) * (y - 2)
        x, y = x * far, y * far
    u, v, kind = x * rng.uniform(3, 20), y * rng.uniform(3, 20), rng.integers(4)
    if kind == 0:
        on = (u.astype(int) + v.astype(int)) % 2 == 0
    elif kind == 1:
        on = u % 1 < rng.uniform(0.2, 0.8)
    elif kind == 2:
        on = np.hypot(u % 1 - 0.5, v % 1 - 0.5) < rng.uniform(0.15, 0.45)
    else:
        on = (u % 1 < rng.uniform(0.04, 0.2)) | (v % 1 < rng.uniform(0.04, 0.2))
    return _two_colours(on, rng)


def bricks(seed: int) -> Pixels:
    """Draw a wall of bricks or tiles, each of a shade of its own, with joints and grain."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(200, 640))
    rows, columns = rng.uniform(5, 18), rng.uniform(2.5, 9)
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    x = x + 0.01 * gaussian_filter(rng.normal(0, 20, x.shape), 20)
    v = y * rows + 0.1 * gaussian_filter(rng.normal(0, 20, x.shape), 20)
    u = x * columns + rng.choice([0.5, 0.5, 0.33, 0]) * (v.astype(int) % 2) + 1
    shade = rng.normal(rng.uniform(0.35, 0.65), rng.uniform(0.03, 0.12), (64, 64))[v.astype(int) % 64, u.astype(int)]
    joint = (u % 1 < 0.05 * columns / 6) | (v % 1 < rng.uniform(0.06, 0.16))
    image = np.where(joint, rng.uniform(0.1, 0.9), shade) + gaussian_filter(rng.normal(0, 0.12, x.shape), 1)
    image = gaussian_filter(image, rng.uniform(0.5, 1.5))
    tint = np.array([1, rng.uniform(0.5, 1), rng.uniform(0.4, 1)]) if rng.random() < 0.5 else np.ones(3)
    return grey_or_not(_8_bit(image[:, :, None] * tint), rng, grey=0.4)


def wheel(seed: int) -> Pixels:
    """Draw all colours around a middle, or patches of a few of them."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(160, 512))
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    away = np.hypot(x, y)
    hue = (np.arctan2(y, x) / (2 * np.pi) + rng.random()) % 1
    if rng.random() < 0.4:
        number = int(rng.integers(2, 9))
        hue = np.kron(rng.random((number, number)), np.ones((size // number + 1,) * 2))[:size, :size]
    elif rng.random() < 0.4:
        hue = np.floor(hue * rng.integers(4, 13)) / 12
    strong = np.clip(away * rng.uniform(0.7, 1.5), 0, 1) if rng.random() < 0.6 else np.full_like(x, rng.uniform(0.4, 1))
    inside = away < rng.uniform(0.7, 1) if rng.random() < 0.6 else np.ones_like(x, bool)
    rgb = np.asarray(Image.fromarray(_8_bit(np.stack([hue, strong, np.ones_like(x)], -1)), "HSV").convert("RGB"))
    return np.where(inside[:, :, None], rgb, np.uint8(rng.choice([0, 128, 255]))).astype(np.uint8)


def ramp(seed: int) -> Pixels:
    """Draw one shade that passes into another, along a line, around a point, or behind an edge."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(160, 512, 2)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    turn, kind = rng.uniform(0, 2 * np.pi), rng.integers(3)
    along = x * np.cos(turn) + y * np.sin(turn)
    if kind == 1:
        along = np.hypot(x - rng.uniform(-1, 1), y - rng.uniform(-1, 1))
    share = (along - along.min()) / np.ptp(along)
    if kind == 2:
        share = np.clip((share - 0.5) * rng.uniform(2, 40) + 0.5, 0, 1)
    ends = rng.random((2, 3))
    return grey_or_not(_8_bit(ends[0] + share[:, :, None] * (ends[1] - ends[0])), rng)


def noise(seed: int) -> Pixels:
    """Draw noise, from white to clouds, of one channel or three."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(160, 512, 2)
    far = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    far[0, 0] = 1
    falls, channels = rng.uniform(0, 2.5), rng.choice([1, 3])
    layers = [np.fft.ifft2(np.fft.fft2(rng.normal(size=far.shape)) / far**falls).real for _ in range(channels)]
    image = np.stack([(v - v.mean()) / v.std() for v in layers], -1) * rng.uniform(0.08, 0.25) + rng.uniform(0.25, 0.75)
    return grey_or_not(_8_bit(np.broadcast_to(image, (height, width, 3))), rng, grey=0.3)


def shapes(seed: int) -> Pixels:
    """Draw discs, boxes and lines of plain colours at random places: an icon, a sign, a toy."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(160, 512))
    image = Image.new("RGB", (size, size), tuple(rng.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 14))):
        colour = tuple(rng.integers(0, 256, 3).tolist())
        (left, right), (top, bottom) = np.sort(rng.uniform(0, size, (2, 2)), axis=1).tolist()
        kind = rng.integers(4)
        if kind == 0:
            draw.ellipse((left, top, right, bottom), fill=colour)
        elif kind == 1:
            draw.rectangle((left, top, right, bottom), fill=colour)
        elif kind == 2:
            draw.polygon(rng.uniform(0, size, (3, 2)).ravel().tolist(), fill=colour)
        else:
            draw.line((left, top, right, bottom), fill=colour, width=int(rng.integers(2, size // 8)))
    return grey_or_not(np.asarray(image), rng)


def scene(seed: int) -> Pixels:
    """Draw a sky above a rough ground, with houses, trunks or somebody before it."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(200, 520, 2)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    ground = y > rng.uniform(0.3, 0.8) + 0.03 * gaussian_filter(rng.normal(0, 30, x.shape), 25)
    rough = gaussian_filter(rng.normal(0, 1, x.shape), rng.uniform(0.5, 3))
    sky, soil = rng.uniform(0.5, 1, 3) - 0.25 * y[:, :, None], rng.uniform(0.15, 0.6, 3) + 0.15 * rough[:, :, None]
    image = np.where(ground[:, :, None], soil, sky)
    for _ in range(int(rng.integers(0, 7))):
        left, wide, top, foot = rng.uniform(0, 0.9), rng.uniform(0.03, 0.3), rng.uniform(0.1, 0.7), rng.uniform(0.6, 1)
        thing = (x > left) & (x < left + wide) & (y > top) & (y < foot)
        if rng.random() < 0.4:  # a head above a body
            middle = left + wide / 2
            thing = (np.hypot(x - middle, y - top) < wide / 3) | (np.hypot((x - middle) / wide, y - foot) < foot - top)
        image = np.where(thing[:, :, None], rng.uniform(0, 0.7, 3) + 0.05 * rough[:, :, None], image)
    return grey_or_not(_8_bit(_focused(image, rng)), rng)


def round_things(seed: int) -> Pixels:
    """Draw plates, dials, coins or fruit on a table, sharp, out of focus or shaken."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(200, 520, 2)
    y, x = np.mgrid[0 : height / width : height * 1j, 0 : 1 : width * 1j]
    image = np.broadcast_to(rng.random(3) + 0.2 * (x * rng.normal() + y * rng.normal())[:, :, None], (*x.shape, 3))
    for _ in range(int(rng.choice([1, 1, 2, 5, 15]))):
        middle, radius = rng.uniform(0.2, 0.8, 2) * (1, height / width), rng.uniform(0.05, 0.4)
        away = np.hypot(x - middle[0], (y - middle[1]) * rng.uniform(1, 1.5)) / radius
        shade = rng.random(3) * (1 - rng.uniform(-0.3, 0.6) * (away**2)[:, :, None])
        image = np.where((away < 1)[:, :, None], shade, image)
        image = np.where(((away > 0.88) & (away < 1))[:, :, None], rng.random(3), image)
        if rng.random() < 0.5:  # the marks and hands of a dial
            turn = np.arctan2(y - middle[1], x - middle[0])
            marks = (np.abs(turn / (2 * np.pi) * 12 % 1 - 0.5) > 0.45) & (away > 0.7) & (away < 0.85)
            hands = (np.abs(np.sin(turn - rng.uniform(0, 6))) * away < 0.04) & (away < rng.uniform(0.4, 0.7))
            image = np.where((marks | hands)[:, :, None], rng.random(3), image)
    return grey_or_not(_8_bit(_focused(image + rng.normal(0, 0.01, image.shape), rng)), rng)


def disc(seed: int) -> Pixels:
    """Draw a disc or a ring of one grey on another, as phantoms and test images are."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(120, 520, 2)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    away = np.hypot((x - rng.uniform(-0.2, 0.2)) / rng.uniform(0.3, 0.9), (y - rng.uniform(-0.2, 0.2)) / 0.7)
    dark, light = rng.uniform(0, 90), rng.uniform(120, 255)
    pixels = np.where(away < 1, light, dark)
    if rng.random() < 0.4:
        pixels = np.where(away < rng.uniform(0.3, 0.8), rng.uniform(0, 255), pixels)
    return pixels.astype(np.uint8)


def photograph(seed: int, name: str) -> Pixels:
    """Cut a piece out of a photograph, in colour or grey, sharp or not."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(_photographs()[name])
    part = np.sqrt(rng.uniform(0.08, 1))
    width, height = int(image.width * part), int(image.height * part * rng.uniform(0.8, 1))
    left, top = int(rng.uniform(0, image.width - width)), int(rng.uniform(0, image.height - height))
    piece = image.crop((left, top, left + width, top + height))
    if rng.random() < 0.5:
        piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.3:
        piece = piece.filter(ImageFilter.GaussianBlur(rng.uniform(1, 6)))
    light = np.asarray(piece, float) * rng.uniform(0.6, 1.3) + rng.uniform(-20, 20)
    return grey_or_not(light.clip(0, 255).astype(np.uint8), rng)


DRAWN: Mapping[str, Callable[[int], Pixels]] = {
    "page of text": page,
    "form or table": form,
    "screen": screen,
    "line chart": lines,
    "bar chart": bars,
    "scatter chart": points,
    "pie chart": pie,
    "checks": checks,
    "bricks": bricks,
    "colour wheel": wheel,
    "gradient": ramp,
    "noise": noise,
    "shapes": shapes,
    "drawn scene": scene,
    "round things": round_things,
    "disc": disc,
}
PHOTOGRAPHS = ("china", "flower", "person")
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "documents and screens": ("page of text", "form or table", "screen"),
    "charts": ("line chart", "bar chart", "scatter chart", "pie chart"),
    "textures and colours": ("checks", "bricks", "colour wheel", "gradient", "noise", "shapes", "disc"),
    "scenes and photographs": ("drawn scene", "round things", *(f"photograph: {name}" for name in PHOTOGRAPHS)),
}
"""Kinds that look alike, to leave out together."""


def draw_all(count: int) -> Iterator[tuple[str, int, Pixels]]:
    """Yield the kind, the number and the pixels of so many images of each kind."""
    photographs = {f"photograph: {name}": partial(photograph, name=name) for name in PHOTOGRAPHS}
    for kind, draw in {**DRAWN, **photographs}.items():
        for number in range(count):
            yield kind, number, draw(crc32(f"{kind} {number}".encode()))


@cache
def _photographs() -> Mapping[str, Pixels]:
    from matplotlib.cbook import get_sample_data
    from sklearn.datasets import load_sample_image

    person = Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")
    own = {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    return own | {"person": np.asarray(person)}


def _words(rng: np.random.Generator, count: int) -> str:
    return " ".join("".join(rng.choice(SYLLABLES, rng.integers(1, 4))) for _ in range(count))


def _fitting(rng: np.random.Generator, draw: ImageDraw.ImageDraw, font: Any, wide: float) -> str:
    """Return as many words as stand in a line."""
    text = _words(rng, 3)
    while draw.textlength(text, font=font) < wide:
        text += " " + _words(rng, 2)
    while len(text) > 1 and draw.textlength(text, font=font) > wide:
        text = text[:-1]
    return text


def _font(rng: np.random.Generator, size: int) -> Any:
    from matplotlib import get_data_path

    number = int(rng.integers(len(FONTS) + 1))
    if number == len(FONTS):
        return ImageFont.load_default(size)
    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/{FONTS[number]}.ttf", size)


def _paper(rng: np.random.Generator) -> tuple[int, int]:
    """Return width and height of a sheet, upright, lying, or a piece of one."""
    width = int(rng.integers(380, 1000))
    return width, int(width * rng.choice([1.414, 0.707, 0.5, 1.0, rng.uniform(0.4, 1.5)]))


def _blank(rng: np.random.Generator, width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("L", (width, height), int(rng.integers(225, 256)))
    return image, ImageDraw.Draw(image)


def _scanned(image: Image.Image, rng: np.random.Generator) -> Pixels:
    """Turn a sheet a little, blur it, and add uneven light, grain and the tint of paper."""
    if rng.random() < 0.6:
        image = image.rotate(rng.normal(0, 2), Image.Resampling.BILINEAR, fillcolor=int(rng.choice([240, 255, 60])))
    pixels: NDArray[Any] = np.asarray(image, float)
    if rng.random() < 0.6:
        pixels = gaussian_filter(pixels, rng.uniform(0.3, 1.2))
        y, x = np.mgrid[-1 : 1 : image.height * 1j, -1 : 1 : image.width * 1j]
        slope = rng.uniform(0, 0.3) * (x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1))
        pixels = pixels * (1 - 0.15 * rng.random() + slope) + rng.normal(0, rng.uniform(0, 8), pixels.shape)
    pixels = pixels.clip(0, 255)[:, :, None] * (np.array([1, 0.97, 0.86]) if rng.random() < 0.2 else np.ones(3))
    return grey_or_not(pixels.astype(np.uint8), rng)


def _plotted(seed: int, plot: Callable[[Any, np.random.Generator, Any], None]) -> Pixels:
    """Plot into a figure of a random size, style and palette."""
    import matplotlib as mpl
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rng = np.random.default_rng(seed)
    with style.context(str(rng.choice(STYLES))):
        figure = Figure(figsize=(rng.uniform(3, 8), rng.uniform(3, 8)), dpi=80)
        canvas = FigureCanvasAgg(figure)
        colours = mpl.colormaps[str(rng.choice(PALETTES))](np.linspace(0.1, 0.9, 8))
        panels = np.ravel(figure.subplots(*((1, 1) if rng.random() < 0.75 else rng.integers(1, 4, 2)), squeeze=False))
        for axes in panels:
            plot(axes, rng, colours[rng.permutation(8)])
            if rng.random() < 0.7:
                axes.set_title(_words(rng, 2).title())
            if rng.random() < 0.7:
                axes.set(xlabel=_words(rng, 1), ylabel=_words(rng, 1))
            if plot is not _pie:
                axes.grid(visible=rng.random() < 0.5)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
    return grey_or_not(pixels, rng)


def _lines(axes: Any, rng: np.random.Generator, colours: Any) -> None:
    x = np.linspace(0, rng.uniform(1, 100), int(rng.integers(20, 600)))
    for number in range(int(rng.integers(1, 7))):
        kind = rng.integers(4)
        waves = np.sin(x / x[-1] * rng.uniform(2, 40) + rng.uniform(0, 6)) * rng.uniform(0.2, 2)
        y = (waves, np.cumsum(rng.normal(0, 0.2, len(x))), rng.normal(0, 1, len(x)), np.exp(-x / x[-1] * 4))[kind]
        drawn = axes.step if rng.random() < 0.15 else axes.plot
        drawn(x, y + rng.normal(0, 0.05, len(x)), color=colours[number], lw=rng.uniform(0.6, 3), label=_words(rng, 1))
    if rng.random() < 0.4:
        axes.legend()


def _bars(axes: Any, rng: np.random.Generator, colours: Any) -> None:
    count, groups = int(rng.integers(3, 16)), int(rng.integers(1, 4))
    for number in range(groups):
        places, tall = np.arange(count) + number * 0.8 / groups, rng.gamma(2, 2, count)
        if groups == 1 and rng.random() < 0.4:
            axes.barh(places, tall, color=colours[: rng.choice([1, 8])])
        else:
            axes.bar(places, tall, 0.8 / groups, color=colours[number], label=_words(rng, 1))


def _points(axes: Any, rng: np.random.Generator, colours: Any) -> None:
    for number in range(int(rng.integers(1, 4))):
        count = int(rng.integers(10, 400))
        xy = rng.normal(0, 1, (count, 2)) @ rng.normal(0, 1, (2, 2)) + rng.normal(0, 2, 2)
        if rng.random() < 0.25:
            xy = xy[:12]
            axes.errorbar(*xy.T, yerr=rng.gamma(2, 0.2, len(xy)), fmt="o", color=colours[number])
        else:
            axes.scatter(*xy.T, rng.uniform(4, 60), color=colours[number], alpha=rng.uniform(0.4, 1))


def _pie(axes: Any, rng: np.random.Generator, colours: Any) -> None:
    parts = rng.gamma(2, 1, int(rng.integers(2, 9)))
    ring = {"width": rng.uniform(0.2, 0.6)} if rng.random() < 0.35 else {}
    named = [_words(rng, 1) for _ in parts] if rng.random() < 0.7 else None
    axes.pie(parts, labels=named, colors=colours, startangle=rng.uniform(0, 360), wedgeprops=ring)


def _two_colours(on: NDArray[np.bool_], rng: np.random.Generator) -> Pixels:
    """Fill a pattern with two colours or greys that differ enough, with perhaps a little blur."""
    one, other = rng.uniform(0, 0.45, 3), rng.uniform(0.55, 1, 3)
    image = np.where(on[:, :, None], one, other)
    if rng.random() < 0.4:
        image = gaussian_filter(image, (rng.uniform(0.5, 3),) * 2 + (0,)) + rng.normal(0, 0.03, image.shape)
    return grey_or_not(_8_bit(image), rng, grey=0.7)


def _focused(image: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.floating]:
    """Blur an image as a lens out of focus or a shaken hand does, or not at all."""
    kind = rng.random()
    if kind < 0.4:
        return image
    along = (
        (rng.uniform(2, 10), rng.uniform(0, 1))[:: rng.choice([1, -1])] if kind > 0.8 else (rng.uniform(0.5, 8),) * 2
    )
    return gaussian_filter(image, (*along, 0))


def _8_bit(image: NDArray[np.floating]) -> Pixels:
    return (image.clip(0, 1) * 255).astype(np.uint8)


def grey_or_not(pixels: Pixels, rng: np.random.Generator, grey: float = 0.5) -> Pixels:
    """Return the image without its colours, as often as said."""
    return np.asarray(Image.fromarray(pixels).convert("L")) if rng.random() < grey else pixels
