"""BreakHis from its own tree and names: one row for each image, with patient, subtype and magnification.

Usage: python pipelines/breakhis/tree.py FOLDER TABLE

FOLDER is `BreaKHis_v1` or any folder above or below it. Names are SOB_{B|M}_{subtype}-{year}-{slide}-{mag}-{seq}.png,
in a folder for each magnification (40X, 100X, 200X, 400X). The patient is the slide field, with its letters, alone: one
patient is known under two malignant subtypes, so that the label is the image's and never the patient's. Beside TABLE
stands TABLE.rejects.csv with what was left out, and why.

Reference: Spanhol et al., A dataset for breast cancer histopathological image classification, IEEE TBME 63 (2016).
"""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import write_rows  # pyright: ignore[reportMissingImports]

BENIGN: Mapping[str, str] = {
    "A": "adenosis",
    "F": "fibroadenoma",
    "PT": "phyllodes_tumour",
    "TA": "tubular_adenoma",
}
MALIGNANT: Mapping[str, str] = {
    "DC": "ductal_carcinoma",
    "LC": "lobular_carcinoma",
    "MC": "mucinous_carcinoma",
    "PC": "papillary_carcinoma",
}
SUBTYPES: tuple[str, ...] = (*BENIGN.values(), *MALIGNANT.values())
"""Eight classes; the first four are benign."""
MALIGNANCY: tuple[str, ...] = ("benign", "malignant")
MAGNIFICATIONS = (40, 100, 200, 400)
PUBLISHED_COUNTS: Mapping[int, tuple[int, int]] = {
    40: (625, 1370),
    100: (644, 1437),
    200: (623, 1390),
    400: (588, 1232),
}
"""Benign and malignant images of the whole set; the owner's own table prints 652 for 625, which does not add up."""
PUBLISHED_SUBTYPES: Mapping[str, int] = {
    "A": 444,
    "F": 1014,
    "PT": 453,
    "TA": 569,
    "DC": 3451,
    "LC": 626,
    "MC": 792,
    "PC": 560,
}

_NAME = re.compile(
    r"SOB_(?P<side>[BM])_(?P<subtype>A|F|PT|TA|DC|LC|MC|PC)-(?P<year>\d{2})-(?P<slide>\d+[A-Z]{0,2})"
    r"-(?P<mag>40|100|200|400)-(?P<seq>\d+)\.png",
    re.IGNORECASE,
)
_FOLDER = re.compile(r"(\d+)X", re.IGNORECASE)


@dataclass(frozen=True, order=True)
class BreakHisImage:
    """One image, as its name tells it."""

    file: str
    """Relative to the folder that was read."""
    patient: str
    """Slide number with its letters; what no split may divide."""
    subtype: str
    """One of `SUBTYPES`."""
    magnification: int
    """One of `MAGNIFICATIONS`."""

    @property
    def malignancy(self) -> str:
        """Benign or malignant."""
        return MALIGNANCY[SUBTYPES.index(self.subtype) >= len(BENIGN)]

    def row(self) -> dict[str, str]:
        """Return the row of the labelled table."""
        return {
            "file": self.file,
            "patient": self.patient,
            "modality": "pathology",
            "malignancy": self.malignancy,
            "subtype": self.subtype,
            "magnification": str(self.magnification),
        }


def read_name(file: Path) -> BreakHisImage:
    """Read what a path says of its image.

    Args:
        file: Relative path; the name of its folder, where that is a magnification, must agree with the file's.

    Raises:
        ValueError: With what does not fit: the name, its side and subtype, or its folder.
    """
    match = _NAME.fullmatch(file.name)
    if match is None:
        raise ValueError("the name is not SOB_{B|M}_{subtype}-{year}-{slide}-{magnification}-{number}.png")
    code, magnification = match["subtype"].upper(), int(match["mag"])
    if (match["side"].upper() == "M") != (code in MALIGNANT):
        raise ValueError(f"the name says {match['side'].upper()} and {code}, which do not go together")
    folder = _FOLDER.fullmatch(file.parent.name)
    if folder is not None and int(folder[1]) != magnification:
        raise ValueError(f"the name says {magnification}×, and its folder is {file.parent.name}")
    subtype = (BENIGN | MALIGNANT)[code]  # type: ignore[operator]
    return BreakHisImage(file.as_posix(), match["slide"].upper(), subtype, magnification)


def read_breakhis(folder: Path) -> tuple[list[BreakHisImage], list[tuple[str, str]]]:
    """Read the tree below a folder.

    Returns:
        The images in the order of their paths; and files that were left out with the reason: names that do not fit,
        and images that stand in the tree twice.

    Raises:
        SystemExit: No image of BreakHis is below the folder.
    """
    images: list[BreakHisImage] = []
    rejects: list[tuple[str, str]] = []
    places: dict[str, str] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() == ".png" and p.is_file()):
        relative = path.relative_to(folder)
        try:
            image = read_name(relative)
        except ValueError as e:
            rejects.append((relative.as_posix(), str(e)))
            continue
        first = places.setdefault(path.name.upper(), relative.as_posix())
        if first != relative.as_posix():
            rejects.append((relative.as_posix(), f"an image of this name stands at {first}"))
            continue
        images.append(image)
    if not images:
        raise SystemExit(f"{folder}: none of its files has a name of BreakHis. Name the folder of BreaKHis_v1.")
    return images, rejects


def count_images(images: Iterable[BreakHisImage]) -> dict[int, tuple[int, int]]:
    """Count benign and malignant images by magnification, as the set's own table does."""
    counts = Counter((image.magnification, image.malignancy) for image in images)
    return {m: (counts[m, "benign"], counts[m, "malignant"]) for m in MAGNIFICATIONS}


def count_table(images: Sequence[BreakHisImage]) -> str:
    """Write the counts as Markdown, with a note where they are not those of the whole set."""
    counts = count_images(images)
    lines = ["| magnification | benign | malignant | whole set |", "|---|---|---|---|"]
    lines += [f"| {m}× | {b} | {a} | {' + '.join(map(str, PUBLISHED_COUNTS[m]))} |" for m, (b, a) in counts.items()]
    patients = len({image.patient for image in images})
    differs = "" if counts == PUBLISHED_COUNTS else " This is not the whole set, or not that set."
    return "\n".join([*lines, "", f"{len(images)} images of {patients} patients.{differs}"]) + "\n"


def write_table(folder: Path, table: Path) -> list[BreakHisImage]:
    """Write the labelled table of a tree, and what was left out beside it; files are relative to the folder."""
    images, rejects = read_breakhis(folder)
    write_rows(table, [image.row() for image in images])
    with table.with_name(f"{table.stem}.rejects.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "reason"), *rejects])
    return images


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    print(count_table(write_table(Path(sys.argv[1]), Path(sys.argv[2]))))
