from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medclip.imaging.slides.nuclei import NucleiMeasurements
from medclip.pairs.selection.patches import prompts_for
from medclip.pairs.words.agent import CaptionedPatch, caption_patch
from medclip.pairs.words.measuring_agent import MeasuringAgent
from medclip.pairs.words.patch_caption_check import Room, check_patch_caption

AGENT = MeasuringAgent()
ROOM = Room(77, lambda text: 2 * len(text.split()))
COLON = NucleiMeasurements(190, 5050, 0.31, 33.4, 0.37, 1.51, 0.91, 7.5, 0.82, 0.42, 0.21)
NOTHING = NucleiMeasurements(0, 0, 0, *[float("nan")] * 5, 0.6, 0.05, 0.3)


def shown(measured: NucleiMeasurements, again: NucleiMeasurements | None = None, organ: str | None = "colon"):
    pixels = np.zeros((8, 8, 3), np.uint8)
    return CaptionedPatch(pixels, 0.5, prompts_for(organ), measured, again or measured)


def test_the_caption_has_words_and_the_numbers_that_they_stand_on():
    written = caption_patch(AGENT, shown(COLON), Room(200, lambda text: len(text.split())))
    assert written.caption == (
        "Histology patch of colon tissue that is densely cellular, 5,000 nuclei per mm² on 31 % of the tissue. "
        "Nuclei are medium-sized, 33 µm² or 6.5 µm across, and moderately varied in size. "
        "They are oval with slightly irregular outlines. Haematoxylin is moderate and eosin moderate. "
        "Neighbouring nuclei are crowded, 8 µm apart. Tissue covers 82 % of the patch."
    )
    assert written.edits == ()


def test_what_a_second_measurement_does_not_confirm_is_taken_back():
    again = replace(COLON, median_elongation=1.2, haematoxylin=0.6)
    written = caption_patch(AGENT, shown(COLON, again), Room(200, lambda text: len(text.split())))
    assert [edit.kind for edit in written.edits] == ["delete", "delete"]
    assert "oval" not in written.caption
    assert "Haematoxylin" not in written.caption
    assert "medium-sized" in written.caption


def test_a_density_that_moves_becomes_a_range():
    written = caption_patch(AGENT, shown(COLON, replace(COLON, per_mm2=3900, area_share=0.25)), ROOM)
    assert "moderately cellular to densely cellular, 3,900 to 5,000 nuclei per mm² on 25 to 31 %" in written.caption


def test_a_caption_is_cut_at_sentences_until_it_fits_and_says_the_most_telling_first():
    written = caption_patch(AGENT, shown(COLON), ROOM)
    assert ROOM.fits(written.caption)
    assert written.caption.startswith("Histology patch of colon tissue")
    assert written.caption.endswith(".")
    assert len(written.caption) < len(written.revised)


def test_a_text_tower_with_little_room_gets_the_words_without_the_numbers():
    written = caption_patch(AGENT, shown(COLON), Room(12, lambda text: len(text.split())))
    assert written.caption == "Histology patch of colon tissue that is densely cellular."


def test_a_patch_without_nuclei_is_described_as_one():
    written = caption_patch(AGENT, shown(NOTHING, organ=None), ROOM)
    assert written.caption.startswith("Histology patch of tissue without nuclei.")
    assert "nan" not in written.caption


@pytest.mark.parametrize("organ", ["colon", "lymph node", None])
@pytest.mark.parametrize("per_mm2", [0, 100, 1000, 3000, 6000, 12000])
@pytest.mark.parametrize("size", [15.0, 35.0, 80.0])
def test_everything_that_it_can_say_is_in_its_own_list(organ, per_mm2, size):
    for again in (None, replace(COLON, per_mm2=3900), replace(COLON, median_um2=80.0, size_variation=0.1)):
        measured = replace(COLON, per_mm2=per_mm2, num_nuclei=per_mm2 // 20, median_um2=size)
        written = caption_patch(AGENT, shown(measured, again, organ), Room(300, lambda text: len(text.split())))
        assert check_patch_caption(written.caption, Room(300, len), AGENT.allowed) is None or len(written.caption) > 300
        assert not AGENT.allowed.refused(written.caption)


def test_the_same_patch_has_the_same_caption_every_time():
    assert caption_patch(AGENT, shown(COLON), ROOM) == caption_patch(AGENT, shown(COLON), ROOM)
