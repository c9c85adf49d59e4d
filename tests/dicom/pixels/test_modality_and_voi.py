"""Windows and look-up tables of the header, against pydicom, and what of a header is usable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.processing import apply_voi_lut, apply_windowing
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from medclip.dicom.pixels.modality_and_voi import Element, elements_of, to_display, window
from medclip.errors import MedclipError

VALUES = np.arange(16, dtype=np.float64)


def _header(**elements: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.BitsStored, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 12, "MONOCHROME2", 0
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _table(entries: list[int], *, count: int | None = None, first: int = 0, bits: int, name: str = "") -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) if count is None else count, first, bits])
    item.add_new("LUTData", "US", entries)
    if name:
        item.LUTExplanation = name
    return item


def _display(dataset: Dataset, wanted: Any = 0, values: np.ndarray = VALUES) -> np.ndarray:
    shown = to_display(values, values[[0, -1]], dataset, elements_of(dataset, 0), wanted, [])
    assert shown is not None
    return shown


@pytest.mark.parametrize(
    ("function", "width"), [("SIGMOID", 0.5), ("SIGMOID", 4), ("LINEAR_EXACT", 0.5), ("LINEAR", 1), ("LINEAR", 7)]
)
def test_a_window_is_that_of_pydicom_at_every_width_of_the_standard(function: str, width: float) -> None:
    header = _header(WindowCenter=7, WindowWidth=width, VOILUTFunction=function)
    peak = 2**12 - 1
    np.testing.assert_allclose(window(VALUES, 7, width, function), apply_windowing(VALUES, header) / peak, atol=1e-12)


@pytest.mark.parametrize(("function", "width"), [("LINEAR", 0.5), ("LINEAR", 0), ("SIGMOID", 0), ("LINEAR_EXACT", 0)])
def test_a_width_outside_the_standard_is_refused(function: str, width: float) -> None:
    with pytest.raises(ValueError, match="outside the standard"):
        window(VALUES, 7, width, function)


@pytest.mark.parametrize("bits", [8, 10, 16])
def test_a_table_is_that_of_pydicom_whatever_its_bits(bits: int) -> None:
    top = 2**bits - 1
    header = _header(VOILUTSequence=Sequence([_table([n * top // 15 for n in range(16)], bits=bits)]))
    np.testing.assert_allclose(_display(header), apply_voi_lut(VALUES.astype(int), header) / top)


def test_the_bits_of_a_table_are_white_where_its_entries_use_most_of_them_and_else_the_largest_entry() -> None:
    for most, white in ((3000, 4095), (2000, 2000)):
        header = _header(VOILUTSequence=Sequence([_table([n * most // 15 for n in range(16)], bits=12)]))
        assert _display(header)[-1] == pytest.approx(most / white)


def test_a_table_of_one_bit_is_black_and_white() -> None:
    header = _header(VOILUTSequence=Sequence([_table([0] * 8 + [1] * 8, bits=1)]))
    np.testing.assert_array_equal(_display(header), VALUES >= 8)


def test_a_table_of_the_most_entries_is_stated_as_one_of_none() -> None:
    entries = list(range(1 << 16))
    item = _table([0], count=0, bits=16)
    item.add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    np.testing.assert_allclose(
        _display(_header(VOILUTSequence=Sequence([item])), values=np.array([0.0, 40_000.0, 65_535.0])),
        np.array([0, 40_000, 65_535]) / 65_535,
    )


def test_a_table_or_window_is_found_by_number_and_by_name() -> None:
    header = _header(
        VOILUTSequence=Sequence([_table([0] * 8 + [255] * 8, bits=8, name="STEP"), _table(list(range(16)), bits=4)]),
        WindowCenter=[4, 12],
        WindowWidth=[1, 1],
        WindowCenterWidthExplanation="SOFT",
    )
    step, ramp, soft, hard = VALUES >= 8, VALUES / 15, VALUES > 3.5, VALUES > 11.5
    expected = {0: step, 1: ramp, 2: soft, 3: hard, "step": step, "soft": soft}
    for wanted, values in expected.items():
        np.testing.assert_allclose(_display(header, wanted), values, err_msg=str(wanted))
    for wanted in (4, -1, "BONE"):
        with pytest.raises(MedclipError, match="2 VOI LUTs and 2 windows"):
            _display(header, wanted)


def _element(**elements: Any) -> Element:
    return elements_of(_header(**elements), 0)


def test_slope_and_intercept_count_together_and_what_is_half_stated_is_told() -> None:
    whole = _element(RescaleSlope=2, RescaleIntercept=-1024)
    assert (whole.slope, whole.intercept, whole.bad_rescale) == (2.0, -1024.0, False)
    for half in ({"RescaleSlope": 2}, {"RescaleIntercept": 5}, {"RescaleSlope": 0, "RescaleIntercept": 5}):
        element = _element(**half)
        assert (element.slope, element.bad_rescale) == (None, True), half
    assert not _element().bad_rescale


def test_spacing_is_rows_then_columns_and_none_where_a_side_is_missing_or_nothing() -> None:
    assert _element(PixelSpacing=[0.5, 0.25]).spacing_mm == (0.5, 0.25)
    for spacing in ([0.5, 0], [0.5], None):
        assert _element(**({} if spacing is None else {"PixelSpacing": spacing})).spacing_mm is None
