"""The values that travel through every room show themselves without a pixel."""

from __future__ import annotations

import numpy as np

from medclip.sample import Kind, Modality, Provenance, Sample, Signal, Step, View, Volume


def test_a_sample_shows_itself_in_a_few_lines_whatever_it_holds() -> None:
    view = View(np.zeros((300, 200, 1), np.uint8), (0, 255), laterality="L", position="CC")
    volume = Volume(np.zeros((9, 8, 7), np.int16), np.diag([5.0, 0.5, 0.5, 1.0]), "HU", "axial")
    signal = Signal(np.zeros((12, 5000), np.float32), np.arange(12) < 8, 500.0)
    read = Provenance("0" * 64, "dicom", "ct", "abc", (Step("decode", "a lot"), Step("window", "more")))
    assert repr(view) == "View(300 x 200 x 1 uint8, relative, L, CC)"
    assert repr(volume) == "Volume(9 x 8 x 7 int16, 5 x 0.5 x 0.5 mm, HU, axial)"
    assert repr(signal) == "Signal(8 of 12 leads, 10 s, 500 Hz)"
    sample = Sample(Modality.CT, (view, view), read, kind=Kind.VOLUME, volume=volume, frames=np.zeros((4, 2, 2, 1)))
    assert repr(sample).splitlines() == [
        "Sample (volume)",
        "  modality: ct",
        f"  {volume!r}",
        "  4 frames",
        f"  2 x {view!r}",
        "  adapter: ct",
        "  steps: decode, window",
    ]
    assert "modality: unknown" in repr(Sample(None, (), read))
