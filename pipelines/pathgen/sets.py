"""Labels of two published sets whose own form is no table of labels, for `medclip evaluate --suite pathgen`.

Usage: python pipelines/pathgen/sets.py wsss4luad FOLDER
       python pipelines/pathgen/sets.py sicapv2 FOLDER SHEET

It writes FOLDER/labels.csv (file, label, patient). All other sets of the suite are folders of their classes, or tables.

wsss4luad: training patches are named ID-X-Y-[TUMOUR, STROMA, NORMAL].png, with flags of 0 and 1: tumour or none.
sicapv2: SHEET is the set's own sheet as CSV, with `image_name` and the columns NC, G3, G4, G5 and perhaps G4C; rows
with exactly one of the first four are taken, and rows that are cribriform (G4C) alone are not.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from medclip.files.tables.read_table import read_table

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import write_rows  # pyright: ignore[reportMissingImports]

GRADES = {"NC": "non_cancerous", "G3": "gleason_3", "G4": "gleason_4", "G5": "gleason_5"}
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_FLAGS = re.compile(r"\[\s*([01])[\s,]+([01])[\s,]+([01])\s*\]")


def read_wsss4luad(folder: Path) -> list[dict[str, str]]:
    """Read the flags in the names; the patient is what stands before the first hyphen.

    Raises:
        SystemExit: A name has no flags, or there is no image.
    """
    rows = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGES):
        flags = _FLAGS.search(path.stem)
        if flags is None:
            raise SystemExit(f"{path}: its name ends in no flags like [1, 0, 0].")
        label = "tumour" if flags[1] == "1" else "normal"
        rows.append({"file": str(path.relative_to(folder)), "label": label, "patient": path.name.partition("-")[0]})
    if not rows:
        raise SystemExit(f"{folder}: no image is here.")
    return rows


def read_sicapv2(folder: Path, sheet: Path) -> list[dict[str, str]]:
    """Read the sheet's rows with exactly one grade; the patient is what stands before the first underscore.

    Raises:
        SystemExit: An image of the sheet is not below the folder.
    """
    table = read_table(sheet).with_names(("image_name", *GRADES, "G4C"))
    places = {p.name: p for p in folder.rglob("*") if p.suffix.lower() in IMAGES}
    rows = []
    for row in table.rows():
        grades = [name for code, name in GRADES.items() if row[code].split(".")[0] == "1"]
        if len(grades) != 1:
            continue
        name = row["image_name"]
        if name not in places:
            raise SystemExit(f"{sheet}: its image {name} is not below {folder}.")
        file = str(places[name].relative_to(folder))
        rows.append({"file": file, "label": grades[0], "patient": name.partition("_")[0]})
    return rows


def main(arguments: list[str]) -> int:
    """Write the table of one set."""
    if len(arguments) == 2 and arguments[0] == "wsss4luad":
        rows = read_wsss4luad(Path(arguments[1]))
    elif len(arguments) == 3 and arguments[0] == "sicapv2":
        rows = read_sicapv2(Path(arguments[1]), Path(arguments[2]))
    else:
        raise SystemExit(__doc__)
    print(f"{len(rows)} images: {write_rows(Path(arguments[1]) / 'labels.csv', rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
