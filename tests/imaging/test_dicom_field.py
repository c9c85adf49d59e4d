"""Every DICOM file of the field folder gives the stored pixels that its manifest says."""

from __future__ import annotations

import csv
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from medclip.imaging.dicom_pixels import read_stored
from medclip.settings import Settings

pytestmark = [pytest.mark.shared, pytest.mark.field]

_LOSSY = ("4.50", "4.51", "4.81", "4.91", "4.203")


def test_every_dicom_file_gives_the_stored_pixels_of_the_manifest(shared: Path) -> None:
    folder = Path(os.environ.get("MEDCLIP_FIELD_DIR") or shared / "data" / "field_dev")
    with (folder / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["stored_sha1_12"] and row["transfer_syntax"]]
    assert rows
    wrong = []
    for row in rows:
        stored = read_stored(folder / row["path"], Settings())
        found = hashlib.sha1(stored.astype(row["dtype"]).tobytes()).hexdigest()[:12]
        if found == row["stored_sha1_12"]:
            continue
        # The standard lets decoders of lossy JPEG differ by one: libjpeg and GDCM agree with ours where others do not.
        near = np.allclose([stored.min(), stored.max()], [float(row["stored_min"]), float(row["stored_max"])], atol=1)
        if not (near and row["transfer_syntax"].endswith(_LOSSY)):
            wrong.append(row["path"])
    assert wrong == []
