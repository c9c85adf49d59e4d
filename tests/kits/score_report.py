"""A ledger of studies whose names are hostile, and what a browser sees of a page."""

from __future__ import annotations

from html.parser import HTMLParser
from io import BytesIO

from PIL import Image

from medclip.runs.ledger.ledger import Ledger
from medclip.runs.rows import FileRow, ScoreRow, Thumbnail
from tests.kits.ledger import fill_ledger

EVIL = "<img src=x onerror=alert(1)>\"'&"


class Page(HTMLParser):
    """Collects tags and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data


def small_jpeg(grey: int, size: tuple[int, int] = (160, 120)) -> bytes:
    """Give a small image as a run keeps it, of one grey."""
    buffer = BytesIO()
    Image.new("L", size, grey).save(buffer, format="JPEG")
    return buffer.getvalue()


def score_row(
    study: str, name: str, probability: float, kind: str = "multiclass", task: str = "chest_xray_view"
) -> ScoreRow:
    return ScoreRow(study, None, "xray", task, name, kind, probability, 0.0, 1, "tiny", "1", "p")


def fill_with_evil(ledger: Ledger, num_studies: int = 3) -> None:
    prompt = {"name": EVIL, "texts": [EVIL], "against": [f"no {EVIL}"]}
    ledger.remember({"identity": {"version": "0.1.0", "pack": "tiny 1 abc", "prompts": [prompt]}})
    files, scores, thumbnails = [], [], []
    for n in range(1, num_studies + 1):
        key = f"s{n}"
        files.append(
            FileRow(
                *(n, f"{EVIL}/{n:04}.png", "0" * 64, 9, "png", "scored", None, None, key, "xray", "inferred", 0.97),
                steps='[["decode", "8 bits"]]',
                adapter="xray",
                grouping="file",
            )
        )
        scores += [score_row(key, "ap", 0.7), score_row(key, "pa", 0.2), score_row(key, "lateral", 0.1)]
        scores.append(score_row(key, "x", 0.6, "multilabel", "prompt"))
        thumbnails.append(Thumbnail(n, small_jpeg(40 * n % 256), burned_in=False))
    bad = FileRow(num_studies + 1, f"{EVIL}/~.dcm", None, 0, "dicom", "failed", "truncated", f"Ends early {EVIL}.")
    fill_ledger(ledger, (*files, bad), tuple(scores), tuple(thumbnails))
