from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medclip.models.inputs.preprocess import Preprocess
from medclip.shards.reading.foreign import ForeignSet, read_foreign, read_packed
from medclip.training.batches.samples import Drawing, Room, Samples

UPSTREAM_ERRORS = {"", "noreportpresent"}
"""Texts that upstream's reader gives by mistake, as the specification says."""


@pytest.mark.golden
def test_every_packed_text_reaches_exactly_its_captions(golden):
    entries = json.loads((golden / "unimed_clip_caption_choice.json").read_text(encoding="utf-8"))
    assert entries
    for name, entry in entries.items():
        packed = read_packed(entry["packed"])
        expected = set(entry["reachable"]) - UPSTREAM_ERRORS
        assert set(packed.choices) == expected, name
        assert not UPSTREAM_ERRORS & {*packed.captions, packed.report}, name
        if packed.marker:
            assert packed.marker in entry["packed"]
            assert packed.marker == f"_{packed.source}_"


class OneForeignSample:
    """What training reads of a foreign tar, without the tar."""

    def __init__(self, text):
        self.text = text

    def raw(self, index):
        return b""

    def key(self, index):
        return "k"

    def unpack(self, index, raw):
        return {"txt": self.text.encode()}

    def understand(self, index, found):
        row = {"key": "k", "sha256": "", "patient": "p"}
        return read_foreign(found, ForeignSet("unimed", "", None), row)

    def image(self, found, wanted_px=None, gap=2):
        return Image.new("L", (4, 4))


def trained_on(text, n=400, **shares):
    drawing = Drawing(Preprocess(4), 0, None, **{"native_share": 0.3, "report_share": 0.5} | shares)
    samples = Samples(OneForeignSample(text), drawing, Room(1 << 20))
    return {samples.make(epoch, 0).text for epoch in range(n)}


@pytest.mark.golden
def test_training_reaches_exactly_the_captions_of_every_packed_text(golden):
    entries = json.loads((golden / "unimed_clip_caption_choice.json").read_text(encoding="utf-8"))
    for name, entry in entries.items():
        assert trained_on(entry["packed"]) == set(entry["reachable"]) - UPSTREAM_ERRORS, name
        assert trained_on(entry["packed"], native_share=0.0, report_share=0.0) == trained_on(entry["packed"]), name


def test_training_gives_foreign_texts_unchanged():
    for text in ("Optic neuritis.", "Seen by Mr. Smith of ward 3", "Normal. Normal. Normal.", "word " * 99 + "end"):
        assert trained_on(text, 20) == {text}
    report = "FINDINGS: Compared with ___, no effusion.\nIMPRESSION: Unchanged."
    assert trained_on(f"One._mimiccxr__mimiccxr_{report}", 20) == {report}


def test_a_marker_inside_a_caption_is_text():
    for plain in ("Photograph scan_dr_01 of the fundus.", "See _openi_ and _mimiccxr_ for more.", "a_medicat_b"):
        assert read_packed(plain).captions == (plain,)
        assert read_packed(plain).source == ""
    packed = read_packed("File img_dr_07 of the eye._dr_Also left_dr_eye.png._dr_")
    assert packed.captions == ("File img_dr_07 of the eye.", "Also left_dr_eye.png.")
    assert read_packed("The image x_dr_1.png._chexpert_No effusion._chexpert_").source == "chexpert"


def test_a_list_without_full_stops_is_split_too():
    assert read_packed("clear lungs_chexpert_no effusion_chexpert_").captions == ("clear lungs", "no effusion")


def test_a_report_is_kept_apart_and_is_the_only_choice():
    packed = read_packed("One._mimiccxr_Two._mimiccxr__mimiccxr_ The whole report. ")
    assert packed.captions == ("One.", "Two.")
    assert packed.report == "The whole report."
    assert packed.choices == ("The whole report.",)
    assert read_packed("One._mimiccxr__mimiccxr_").report is None


def test_nothing_gives_nothing():
    assert read_packed("  ").captions == ()
    assert read_packed("").choices == ()


@given(st.lists(st.from_regex(r"[A-Z][a-z ]{0,30}[a-z]\.", fullmatch=True), min_size=1, max_size=14), st.booleans())
def test_what_is_packed_comes_out(captions, with_report):
    text = "".join(f"{c}_mimiccxr_" for c in captions) + "_mimiccxr_" * with_report + "Its report." * with_report
    packed = read_packed(text)
    assert packed.captions == tuple(captions)
    assert packed.report == ("Its report." if with_report else None)
