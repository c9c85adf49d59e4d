"""Which images are mirrored: none of which a drawn text names a side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from medclip.models.inputs.preprocess import Preprocess
from medclip.settings import Settings
from medclip.shards.reading.samples import ShardReader
from medclip.shards.writing.build import Form, build_shards
from medclip.training.batches.sample_texts import DrawnRole
from medclip.training.batches.samples import Drawing, Room, Samples
from medclip.training.recipe.augment import Augment
from tests.kits.shards import KEY, write


def test_an_image_is_not_mirrored_where_a_text_beside_its_caption_names_a_side(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(80, 110, (64, 64), np.uint8)
    pixels[:, :32] += 90  # bright on the left
    rows = []
    for n, (long, false) in enumerate([("Left effusion.", ""), ("", "Left effusion."), ("An effusion.", "A mass.")]):
        Image.fromarray(pixels + np.uint8(n)).save(tmp_path / f"{n}.png")
        row = {"file": f"{n}.png", "patient": f"p{n}", "modality": "xray", "caption": "A film.", "split": "train"}
        rows.append(row | {"long_captions": long, "negatives": false})
    form, table = Form(key=KEY, stored="png"), write(tmp_path / "t.csv", rows)
    shards = build_shards(table, tmp_path / "shards", form, settings=Settings(workers=1)).folder
    roles = (DrawnRole("negative", 1), DrawnRole("long", 1))
    drawing = Drawing(
        preprocess=Preprocess(size_px=32),
        seed=3,
        augment=Augment(flip=1.0),
        native_share=1.0,
        native="whole",
        report_share=0.0,
        roles=roles,
    )
    assert shards is not None
    with ShardReader(shards, "train") as reader:
        samples = Samples(reader, drawing, Room(2**24))
        for index in range(3):
            record, _ = reader.record(index)
            made = samples.make(0, index)
            assert made.image is not None
            bright_left = made.image[:, :12].mean() > made.image[:, 20:].mean()
            assert bright_left == ("Left effusion." in (*record.long_captions, *record.negatives))
