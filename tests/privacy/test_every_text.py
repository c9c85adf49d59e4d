"""A word planted in every text element of a header appears nowhere: in all at once, and in each that is read alone."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR

from examples import make_phantoms as phantoms
from medclip import open_study, view
from medclip.adapters.base import single
from medclip.adapters.registry import get_adapter, read_unit
from medclip.cli.main import main
from medclip.dicom.header.read import _TAGS, modality_from_header
from medclip.dicom.header.safe_header import ALLOWED
from medclip.errors import MedclipError
from medclip.files.recognise.inspect import inspect_file
from medclip.settings import Settings
from tests.privacy.test_planted import _png_texts

WORD = "ZQXWUTHER"
PLANTED: Mapping[str, str] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), WORD),
    "UI": "1.2.826.0.1.90909044711",
    "UR": f"http://example.org/{WORD}",
    "DA": "19310704",
    "DT": "19310704",
}
SECRETS = (WORD, WORD.lower(), WORD.title(), "90909044711", "19310704", "1931-07-04")
SETTINGS = Settings(workers=1)
_DECIDES = frozenset({"PhotometricInterpretation", "SpecificCharacterSet", "SOPClassUID", "Modality"})
"""Elements without which nothing is read; planted alone."""
_OF_PIXELS = (
    "WindowCenterWidthExplanation",
    "VOILUTFunction",
    "RescaleType",
    "PixelPresentation",
    "DerivationDescription",
    "ViewName",
    "ProtocolName",
    "SeriesDescription",
    "StationName",
    "SOPInstanceUID",
)


def _objects(folder: Path) -> Iterator[Path]:
    """Write an X-ray, a mammogram, a CT and an MR slice and an ultrasound loop, by makers that are known."""
    grey = (phantoms.chest_slice(64, 0.5) + 1024).astype(np.uint16)
    place = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}
    for modality, sop_class, tags in (
        ("DX", "1.2.840.10008.5.1.4.1.1.1.1", {"ViewPosition": "PA"}),
        ("MG", "1.2.840.10008.5.1.4.1.1.1.2", {"ViewPosition": "CC", "ImageLaterality": "L"}),
        ("CT", phantoms.CT_IMAGE, {"RescaleSlope": 1, "RescaleIntercept": -1024, **place}),
        ("MR", phantoms.MR_IMAGE, {"ScanningSequence": "SE", **place}),
    ):
        yield phantoms.dicom(folder / modality, sop_class, modality, 1, grey, Manufacturer="SIEMENS", **tags)
    yield phantoms.ultrasound_cine(folder / "US", num_frames=3)


def _save(source: Path, target: Path, words: Mapping[str, str]) -> None:
    data = dcmread(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a word where a code is expected
        for keyword, value in words.items():
            setattr(data, keyword, value)
        target.parent.mkdir(parents=True, exist_ok=True)
        data.save_as(target)


@pytest.fixture(scope="module")
def all_together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One object of each modality, with the word in all text elements of the dictionary."""
    root = tmp_path_factory.mktemp("together")
    words = {
        keyword: PLANTED[vr]
        for tag, (vr, _, _, _, keyword) in DicomDictionary.items()
        if vr in PLANTED and keyword and 0x0008 <= tag >> 16 < 0x7FE0 and keyword not in _DECIDES
    }
    assert len(words) > 1500
    for path in list(_objects(root / "whole")):
        _save(path, root / "in" / path.name, words)
    return root / "in"


@pytest.fixture(scope="module")
def one_each(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each modality and each text element that is read: an object with the word in that element alone."""
    root = tmp_path_factory.mktemp("alone")
    keywords = [keyword for keyword in (*_TAGS, *_OF_PIXELS) if dictionary_VR(keyword) in PLANTED]
    assert len(keywords) > 30
    for path in list(_objects(root / "whole")):
        for keyword in keywords:
            _save(path, root / "in" / path.name / keyword, {keyword: PLANTED[dictionary_VR(keyword)]})
    return root / "in"


def _nothing_in(where: str, text: str | bytes) -> None:
    body = text if isinstance(text, bytes) else text.encode()
    for secret in SECRETS:
        assert secret.encode() not in body, f"{secret} in {where}"


def _samples(folder: Path) -> Iterator[tuple[str, str]]:
    """Read each file as its adapter and as a plain image; give what a sample or an error says of it."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        facts = inspect_file(path, SETTINGS)
        modality = None if facts.header is None else modality_from_header(facts.header)
        for chosen in dict.fromkeys((modality, None)):
            name = f"{path.parent.name}/{path.name} as {chosen}"
            try:
                sample = read_unit(single(path, facts), chosen, SETTINGS)
                yield name, repr((sample.headers, sample.provenance, sample.views))
            except MedclipError as error:
                yield name, f"{error.message} {error.hint}"


def test_no_element_that_is_read_lets_a_word_through(one_each: Path) -> None:
    assert get_adapter(None).name == "generic"
    for name, said in _samples(one_each):
        _nothing_in(name, said)


def test_all_elements_together_let_no_word_through(all_together: Path) -> None:
    for name, said in _samples(all_together):
        _nothing_in(name, said)


@pytest.mark.parametrize("which", ["all_together", "one_each"])
def test_a_scan_prints_no_word(which: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    folder = request.getfixturevalue(which)
    for arguments in (["scan", str(folder)], ["scan", str(folder), "--json"]):
        assert main(arguments) in (0, 3)
        printed = capsys.readouterr()
        _nothing_in(" ".join(arguments), printed.out.replace(str(folder), "") + printed.err)


def test_a_view_shows_no_word_in_its_json_its_image_s_metadata_or_its_text(
    all_together: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted(all_together.iterdir()):
        out = tmp_path / f"{path.name}.png"
        for arguments in ([], ["--json", "--overwrite"]):
            assert main(["view", str(path), "--out", str(out), *arguments]) == 0
            printed = capsys.readouterr()
            _nothing_in(path.name, printed.out + printed.err)
        _nothing_in("the image", _png_texts(out.read_bytes()))


def test_a_notebook_shows_no_word(all_together: Path) -> None:
    for path in sorted(all_together.iterdir()):
        study = open_study(path, settings=SETTINGS)
        _nothing_in(path.name, study._repr_html_() + repr(study))


def test_ordinary_headers_give_their_values_by_the_names_of_the_list(tmp_path: Path) -> None:
    names = {entry.name for entry in ALLOWED}
    for path in _objects(tmp_path):
        data = dcmread(path)
        data.PatientAge, data.PatientSex, data.ManufacturerModelName = "095Y", "F", "Skyra"
        data.save_as(path)
        shown = view(path, tmp_path / "x.png", settings=SETTINGS, overwrite=True).headers
        assert (shown["age_years"], shown["sex"]) == (90.0, "F"), path.name
        assert set(json.loads(json.dumps(dict(shown)))) & names
        assert not {"view_position", "presentation_intent"} & set(shown)
        if path.name != "US":
            assert (shown["manufacturer"], shown["device_model"]) == ("Siemens", "Skyra")
