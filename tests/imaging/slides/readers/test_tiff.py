"""Plain and OME TIFFs: print resolutions, single levels, compressions, pixel sizes, and slides without OpenSlide."""

from __future__ import annotations

import builtins
import io
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from medclip.errors import MedclipError, Reason
from medclip.files.recognise.sniff import Format, sniff
from medclip.files.recognise.tiff_directories import is_vendors
from medclip.imaging.slides import open_slide
from medclip.imaging.slides.readers.tiff import ome_mpp
from medclip.settings import ReadPolicy, Settings
from tests.kits.slides import draw_section, write_pyramid, write_single


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return draw_section(700, 800)


@pytest.fixture
def no_openslide(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.partition(".")[0] == "openslide":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "openslide", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)


def said(mpp_um: float) -> Settings:
    return Settings(policy=ReadPolicy(mpp_um=mpp_um))


@pytest.mark.parametrize("print_um", [25_400 / 72, 25_400 / 300, 25_400 / 600, 1000.0])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "compressionargs": None, "photometric": "rgb"}])
def test_a_print_resolution_is_told_and_gives_way_to_the_users_scale(tmp_path, image, print_um, options):
    path = write_pyramid(tmp_path / "a.tiff", image, mpp=print_um, **options)
    with open_slide(path) as reader:
        assert reader.mpp_um == pytest.approx((print_um, print_um), rel=1e-3)
        with pytest.raises(MedclipError) as caught:
            reader.read(0, 0, 64, 64, 0.5)
    assert caught.value.reason is Reason.NO_SCALE
    assert "print resolution" in str(caught.value)
    assert "--reading mpp_um" in str(caught.value)
    with open_slide(path, said(0.25)) as reader:
        assert reader.mpp_um == (0.25, 0.25)
        assert reader.read(0, 0, 64, 64, 0.5).shape == (64, 64, 3)


def test_an_untiled_tiff_of_a_print_resolution_says_so_too(tmp_path, image):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, photometric="rgb", metadata=None, resolution=(72, 72), resolutionunit="INCH")
    with open_slide(path) as reader, pytest.raises(MedclipError) as caught:
        reader.read(0, 0, 64, 64, 0.5)
    assert caught.value.reason is Reason.NO_SCALE
    assert "print resolution" in str(caught.value)


@pytest.mark.shared
def test_the_boxes_of_the_field_folder_can_be_given_a_scale(shared):
    path = shared / "data/field_dev/wsi/tiff/boxes.tiff"
    with open_slide(path, said(0.5)) as reader:
        assert reader.mpp_um == (0.5, 0.5)


@pytest.mark.parametrize(
    ("height", "width", "mpp_um", "expected"),
    [
        (80_000, 100_000, 0.25, Format.SLIDE),
        (80_000, 100_000, None, Format.SLIDE),
        (9_000, 9_000, None, Format.SLIDE),
        (5_000, 5_000, 0.5, Format.SLIDE),
        (5_000, 5_000, None, Format.TIFF),
        (5_000, 5_000, 352.8, Format.TIFF),
        (2_048, 2_048, 0.25, Format.TIFF),
    ],
)
@pytest.mark.parametrize("big", [False, True])
def test_a_single_image_in_tiles_is_a_slide_where_it_is_too_large_for_a_image(
    tmp_path, height, width, mpp_um, expected, big
):
    assert sniff(write_single(tmp_path / "a.tif", height, width, mpp_um, big=big)) is expected


def test_a_single_level_of_100000_by_80000_pixels_is_read(tmp_path):
    path = write_single(tmp_path / "a.tif", 80_000, 100_000, 0.25)
    with open_slide(path) as reader:
        assert reader.size_px == (80_000, 100_000)
        assert reader.mpp_um == pytest.approx((0.25, 0.25))
        assert reader.read(9_000, 11_000, 256, 256, 0.25).any()


@pytest.mark.parametrize("compression", ["jpeg2000", "webp", "jpegxl"])
def test_compressions_that_openslide_refuses_are_read_with_tifffile(tmp_path, image, compression):
    path = write_pyramid(tmp_path / "a.tiff", image, compression=compression, compressionargs=None)
    with open_slide(path) as reader:
        assert reader.spec.backend == "tiff"
        assert len(reader.levels) == 2
        found = reader.read(0, 0, 256, 256, 0.5)
    assert np.abs(found.astype(int) - image[:256, :256]).mean() < 3


def xml(attributes: str) -> str:
    return (
        "<?xml version='1.0'?><OME xmlns='http://www.openmicroscopy.org/Schemas/OME/2016-06'><Image ID='Image:0'>"
        f"<Pixels {attributes}><Channel ID='C:0'/></Pixels></Image></OME>"
    )


@pytest.mark.parametrize(
    "unit", ["&#181;m", "&#xB5;m", "µm", "μm", "&#956;m", "um", "micron", "microns", "micrometer", "micrometre"]
)
@pytest.mark.parametrize("quote", ["'", '"'])
def test_the_micrometre_is_known_however_it_is_written(unit, quote):
    sides = "".join(f' PhysicalSize{axis}="0.25" PhysicalSize{axis}Unit="{unit}"' for axis in "XY")
    assert ome_mpp(xml(sides.replace('"', quote)), 0) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("unit", "factor"), [("nm", 1e-3), ("mm", 1e3), ("Å", 1e-4), ("pixel", None), ("reference frame", None)]
)
def test_other_units_are_converted_or_refused(unit, factor):
    sides = "".join(f" PhysicalSize{axis}='2' PhysicalSize{axis}Unit='{unit}'" for axis in "XY")
    found = ome_mpp(xml(sides), 0)
    assert found is None if factor is None else found == pytest.approx((2 * factor, 2 * factor))


@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE x [<!ENTITY a 'aaaa'>]>" + xml("PhysicalSizeX='1' PhysicalSizeY='1'"),
        "<!DOCTYPE x SYSTEM 'file:///etc/passwd'>" + xml("PhysicalSizeX='1' PhysicalSizeY='1'"),
        xml("PhysicalSizeX='1' PhysicalSizeY='nan'"),
        xml("PhysicalSizeX='1'"),
        "<OME><Pixels PhysicalSizeX='1' PhysicalSizeY='1'>",
        "",
    ],
)
def test_xml_that_refers_elsewhere_or_is_broken_states_no_scale(text):
    assert ome_mpp(text, 0) is None


def test_an_ome_tiff_with_an_escaped_unit_in_single_quotes_has_its_scale(tmp_path, image):
    description = xml(
        "ID='Pixels:0' DimensionOrder='XYCZT' Type='uint8' SizeX='800' SizeY='700' SizeC='3' SizeZ='1' SizeT='1' "
        "PhysicalSizeX='0.5' PhysicalSizeXUnit='&#181;m' PhysicalSizeY='0.5' PhysicalSizeYUnit='&#xB5;m'"
    ).replace("<Channel ID='C:0'/>", "<Channel ID='C:0' SamplesPerPixel='3'/><TiffData/>")
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", metadata=None, description=description)
    with open_slide(path) as reader:
        assert reader.mpp_um == (0.5, 0.5)


@pytest.mark.parametrize(
    "description", ["Aperio Image Library v11", "<iScan Magnification='40'/>", "<x>DPUfsImport</x>"]
)
def test_without_openslide_a_vendors_slide_names_the_package(tmp_path, image, description, no_openslide):
    path = tmp_path / "a.svs"
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", metadata=None, description=description)
    with pytest.raises(MedclipError) as caught:
        open_slide(path)
    assert caught.value.reason is Reason.MISSING_CODEC
    assert "openslide-python" in str(caught.value)
    assert "pip install 'medclip-imaging[wsi]'" in str(caught.value)


def test_without_openslide_what_is_no_tiff_names_the_package(tmp_path, no_openslide):
    (tmp_path / "a.mrxs").write_bytes(b"\xff\xd8\xff\xe0" + bytes(200))
    with pytest.raises(MedclipError) as caught:
        open_slide(tmp_path / "a.mrxs")
    assert caught.value.reason is Reason.MISSING_CODEC


@pytest.mark.shared
@pytest.mark.parametrize("folder", ["svs", "ndpi"])
def test_without_openslide_real_slides_name_the_package(shared, folder, no_openslide):
    path = next((shared / "data/field_dev/wsi" / folder).iterdir())
    with pytest.raises(MedclipError) as caught:
        open_slide(path)
    assert caught.value.reason is Reason.MISSING_CODEC


def test_without_openslide_a_plain_pyramid_is_read_with_tifffile(tmp_path, image, no_openslide):
    path = write_pyramid(tmp_path / "a.tiff", image, compression="zlib", compressionargs=None)
    with open_slide(path) as reader:
        assert reader.spec.backend == "tiff"
        assert reader.mpp_um == pytest.approx((0.5, 0.5))
        np.testing.assert_array_equal(reader.read(0, 0, 700, 800, 0.5), image)


def test_damaged_directories_name_no_vendor(tmp_path: Path):
    assert not is_vendors(io.BytesIO(b"II*\0\xff\xff\xff\x7f" + bytes(40)))


def test_of_a_stack_the_middle_plane_and_the_first_time_are_read_and_told(tmp_path):
    stack = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * 40 + np.zeros((1, 1, 256, 256, 3), np.uint8)
    sizes = {"axes": "TZYXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, tile=(128, 128), photometric="rgb", metadata=sizes)
    with open_slide(tmp_path / "a.ome.tif") as reader:
        assert (reader.read(0, 0, 256, 256, 0.5) == 40).all()
        assert reader.notes == ("the middle one of 3 focal planes is read", "the first of 2 time points is read")
