"""A device is filled in and denied in the text; who has no such partner has a reason."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medclip.pairs.words.reports.masked_devices import masked_partner, without_device
from medclip.pairs.words.reports.rewrite_steps import EditSteps, RewriteSteps
from medclip.pairs.words.reports.rewriting import Rewriting, rewrite
from medclip.pairs.words.reports.rewritten_shards import EDITS
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.shards.reading.check_folder import check_shards
from medclip.shards.reading.samples import ShardReader
from medclip.shards.sample_json import from_json, to_json
from medclip.shards.stored_data import encode
from medclip.shards.writing.build import Form, build_shards
from medclip.text.captions.record import CaptionRecord
from tests.kits.shards import KEY, write


@pytest.mark.parametrize(
    ("text", "written", "reason"),
    [
        ("Left chest pacemaker. No effusion.", "No pacemaker seen. No effusion.", ""),
        (
            "There is a left-sided pacemaker in place. Heart size is normal.",
            "No pacemaker can be seen in this image. Heart size is normal.",
            "",
        ),
        ("No pacemaker. Effusion.", "", "denied"),
        ("Effusion.", "", "device_not_named"),
        ("ET tube above the carina. Sternal wires.", "", "several_devices"),
        ("Pacemaker. Its leads end in the ventricle. The pacemaker is on the left.", "", "not_alone"),
    ],
)
def test_a_device_is_denied_or_there_is_a_reason(text, written, reason):
    assert without_device(text, "xray")[::2] == (written, reason)


def grey(bright: bool) -> np.ndarray:
    pixels = np.tile(np.linspace(60, 120, 64).astype(np.uint8), (64, 1))
    if bright:
        pixels[20:28, 20:28] = 255
    return pixels


def test_the_partner_shows_and_says_no_device(tmp_path):
    Image.fromarray(grey(True)).save(tmp_path / "a.png")
    mask = (grey(True) == 255).astype(np.uint8) * 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(mask[:, :40]).save(tmp_path / "cut.png")
    Image.fromarray(mask * 0).save(tmp_path / "empty.png")
    Image.fromarray(np.full_like(mask, 255)).save(tmp_path / "full.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    text = "Left chest pacemaker. No effusion."
    record = CaptionRecord(Modality.XRAY, texts=(text,), report=text, long_captions=(text, "Effusion."))
    image = encode(grey(True)[..., None], "png", 95)
    members = {"png": image, "json": to_json(record, {"study": "S1", "key": "k"})}
    partner, row = masked_partner("k", members, tmp_path / "mask.png")
    assert partner is not None
    assert (row.entities, row.change, row.partner) == (("pacemaker",), "device", "k~device")
    edited, meta = from_json(partner.members["json"])
    without = "No pacemaker seen. No effusion."
    assert (edited.texts, edited.long_captions, edited.report) == ((without,), (without,), None)
    assert meta["synthetic"]
    pixels = np.asarray(ShardReader.image(partner.members)).squeeze()
    assert np.abs(pixels.astype(int) - grey(False)).max() <= 2
    assert from_json(partner.source["json"])[0].edit_pairs == edited.edit_pairs
    reasons = {"cut": "mask_of_other_shape", "empty": "mask_empty", "full": "mask_too_large"}
    for name, reason in (reasons | {"broken": "mask_unreadable", "gone": "mask_unreadable"}).items():
        assert masked_partner("k", members, tmp_path / f"{name}.png")[1].reason == reason
    assert masked_partner("k", members, None)[1].reason == "no_mask"


def test_masks_come_of_a_column_and_lie_by_the_file_that_the_sample_was_made_of(tmp_path):
    rows = []
    texts = ("Left chest pacemaker. No effusion.", "Left chest pacemaker. Effusion.", "Effusion.")
    for n, text in enumerate(texts):
        Image.fromarray(np.roll(grey(True), n, axis=1)).save(tmp_path / f"{n}.png")
        rows.append({"file": f"{n}.png", "patient": f"P{n}", "modality": "xray", "report": text, "split": "train"})
    Image.fromarray((grey(True) == 255).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    rows[0]["pacer"] = "mask.png"
    table = write(tmp_path / "films.csv", rows)
    shards = build_shards(table, tmp_path / "shards", Form(key=KEY, stored="png"), settings=Settings(workers=1)).folder
    steps = RewriteSteps(edits=EditSteps(table="films.csv", device_mask="pacer"))
    result = rewrite(Rewriting(shards, tmp_path / "out", steps, folder=tmp_path))
    assert check_shards(result.shards).problems == ()
    reasons = sorted(row["reason"] for row in pq.read_table(tmp_path / "out" / EDITS).to_pylist())
    assert reasons == ["", "device_not_named", "no_mask"]
    assert result.num_partners == 1
    assert dict(result.refused_partners) == {"device_not_named": 1, "no_mask": 1}
