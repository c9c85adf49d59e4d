"""The table of modalities: one that the library does not have is a row and an adapter, and every list has it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pytest

from medclip import lazy
from medclip.adapters.registry import get_adapter
from medclip.api.scan import scan
from medclip.api.score import score
from medclip.imaging.corruptions import corrupt, corruptions_of, draws
from medclip.modalities import MODALITIES, ModalityFacts
from medclip.runs.units.problems import guess_problem
from medclip.sample import Modality, every_modality, modality_of_name
from medclip.shards.writing.table import read_shard_table
from medclip.text.captions.record import CaptionRecord, every_phrase, modality_names, side_phrases, view_names
from medclip.text.checks.caption_check import check_caption
from medclip.text.checks.closed_words import modality_words
from tests.kits.scoring import make_pack, rows, texture, write_dicom, write_png

NAME = "thermography"
PACKAGE = '''
import numpy as np
from medclip.adapters.base import ImageAdapter
from medclip.adapters.depth import to_range
from medclip.modalities import ModalityFacts
from medclip.sample import Modality, View

FACTS = ModalityFacts(
    "thermography",
    spellings=("infrared image", "thermogram"),
    dicom_codes=("TG",),
    text_words=r"\\b(?:thermogra\\w+|infrared)\\b",
    in_colour=True,
    paired_organ="breast",
    views={"FRONT": ("frontal view", "seen from the front")},
    image_phrases=("a thermogram", "an infrared image"),
    corruptions="dermamnist",
    corruptions_of="dermoscopic images",
)


class ThermographyAdapter(ImageAdapter):
    """One image in false colours to one RGB view."""

    name = "thermography"
    modality = Modality("thermography")
    version = 1
    grey = False
    dicom_codes = frozenset({"TG", ""})

    def render(self, decoded, facts, *, cropped):
        pixels, steps = to_range(decoded, facts, (0, 100))
        shown = (0.0, 255.0) if pixels.dtype == np.uint8 else (0.0, 1.0)
        return View(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels, shown), steps
'''
ENTRY_POINTS = """
[medclip.modalities]
thermography = thermography_images:FACTS
[medclip.adapters]
thermography = thermography_images:ThermographyAdapter
"""


@pytest.fixture(autouse=True)
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_readers: None) -> Iterator[ModalityFacts]:
    """Install a package that brings it."""
    site = tmp_path / "site"
    info = site / "thermography_images-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "thermography_images.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thermography-images\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH")))))
    lazy._entries.cache_clear()
    yield MODALITIES[NAME]
    lazy._entries.cache_clear()
    sys.modules.pop("thermography_images")


def test_it_is_a_modality_like_any_other(facts: ModalityFacts):
    modality = Modality(NAME)
    assert modality is Modality("thermography")
    assert modality.facts is facts
    assert every_modality() == (*Modality, modality)
    assert [*MODALITIES][-1] == NAME
    assert get_adapter(modality).modality is modality
    with pytest.raises(ValueError, match="sonar"):
        Modality("sonar")


@pytest.mark.parametrize("text", ["Thermography", "infrared-image", "thermogram", "TG"])
def test_tables_name_it(text: str, tmp_path: Path):
    assert modality_of_name(text) is Modality(NAME)
    table = pyarrow.table({"file": ["a.png"], "patient": ["1"], "modality": [text], "view": ["front"]})
    (row,) = read_shard_table(table).rows
    assert (row.record.modality, row.record.view, dict(row.not_understood)) == (NAME, "FRONT", {})


def test_captions_have_its_words_and_are_checked_for_them(facts: ModalityFacts):
    record = CaptionRecord(Modality(NAME), view="FRONT", laterality="L")
    assert modality_names(record.modality) == facts.image_phrases
    assert view_names(record) == facts.views["FRONT"]
    assert side_phrases(NAME, "L")[0] == "left breast"
    assert "seen from the front" in every_phrase()
    assert modality_words()[NAME].search("an infrared image")
    assert not check_caption("a thermogram of the left breast", record)
    assert check_caption("a thermogram of the left breast", CaptionRecord(Modality.CT))


def test_it_is_corrupted_as_its_row_says():
    corruption = corruptions_of(Modality(NAME), grades=[3])[0]
    pixels = np.repeat(texture(1)[:, :, None], 3, axis=2)
    assert (corrupt(pixels, corruption, draws("a", corruption.name)) != pixels).any()


def test_a_grey_image_is_not_taken_for_it():
    assert guess_problem(NAME, 0.99, 0.8, coloured=True) is None
    assert guess_problem(NAME, 0.99, 0.8, coloured=False) is not None


def test_its_files_are_found_read_and_scored(tmp_path: Path):
    adapter = get_adapter(NAME)
    pack = make_pack(
        tmp_path / "pack",
        {NAME: adapter.preprocessing_of(next(iter(adapter.kinds)))},
        modalities=[NAME],
        tasks={"breast_density": {"classes": ["fatty", "dense_glandular"]}},
    )
    write_png(tmp_path / "in" / "photo.png", 1)
    write_dicom(tmp_path / "in" / "scan.dcm", 2, modality="TG")
    assert scan(tmp_path / "in").counts("modality")[NAME] == 1
    run = score(tmp_path / "in", model=pack, workers=1, modality=NAME, prompt="a hot spot")
    assert {(row["modality"], row["status"]) for row in rows(run).values()} == {(NAME, "scored")}
    assert {row["task"] for row in run.scores.to_pylist()} == {"prompt"}
