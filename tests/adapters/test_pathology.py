from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medclip.adapters.base import Source
from medclip.adapters.pathology import PathologyAdapter
from medclip.errors import MedclipError, Reason, Status
from medclip.files.recognise.inspect import FileFacts, inspect_file
from medclip.files.recognise.sniff import Format
from medclip.sample import Kind, Modality
from medclip.settings import ReadPolicy, Settings
from tests.kits.slides import draw_section, tiles_of, write_dicom_slide, write_pyramid

SETTINGS = Settings()
ADAPTER = PathologyAdapter()


def read(*paths, kind=Kind.SLIDE):
    return ADAPTER.read(Source(kind, tuple(paths), tuple(inspect_file(path, SETTINGS) for path in paths)), SETTINGS)


def test_a_tile_is_given_as_it_is(tmp_path):
    image = draw_section(300, 320)
    Image.fromarray(image).save(tmp_path / "a.png")
    sample = read(tmp_path / "a.png", kind=Kind.IMAGE)
    assert sample.modality is Modality.PATHOLOGY
    np.testing.assert_array_equal(sample.views[0].pixels, image)


def test_a_slide_becomes_patches_on_its_tissue(tmp_path):
    path = write_pyramid(tmp_path / "a.tiff", draw_section(2000, 2600))
    sample = read(path)
    assert sample.kind is Kind.SLIDE
    assert 10 < len(sample.views) <= 64
    for view in sample.views:
        assert view.pixels.shape == (256, 256, 3)
        assert view.pixels.dtype == np.uint8
        assert view.spacing_mm == pytest.approx((0.0005, 0.0005))
    greens = [view.pixels[:, :, 1].mean() for view in sample.views]
    assert np.mean(np.array(greens) < 225) > 0.8  # the section; the rest lies on its small hole, which is filled
    assert sample.headers["mpp_um"] == [0.5, 0.5]
    assert sample.headers["levels"] == [[2600, 2000], [650, 500]]
    assert sample.headers["num_patches"] >= len(sample.views)
    assert 0.2 < sample.headers["tissue_fraction"] < 0.5
    assert {"tissue", "patches", "scale"} <= {step.name for step in sample.provenance.steps}
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(sample.views, read(path).views, strict=True))


def test_no_more_views_than_declared_and_the_hash_knows_the_kind(tmp_path):
    class Few(PathologyAdapter):
        num_views = 5

    path = write_pyramid(tmp_path / "a.tiff", draw_section(2000, 2600))
    sample = Few().read(Source(Kind.SLIDE, (path,), (inspect_file(path, SETTINGS),)), SETTINGS)
    assert len(sample.views) == 5
    hashes = {adapter.preprocessing_of(kind) for adapter in (Few(), ADAPTER) for kind in (Kind.IMAGE, Kind.SLIDE)}
    assert len(hashes) == 3


def test_a_blank_slide_is_skipped_with_a_reason(tmp_path):
    path = write_pyramid(tmp_path / "a.tiff", np.full((900, 900, 3), 245, np.uint8))
    with pytest.raises(MedclipError) as caught:
        read(path)
    assert caught.value.reason is Reason.NO_TISSUE
    assert caught.value.reason.status is Status.SKIPPED


def test_a_slide_without_scale_fails(tmp_path):
    path = write_pyramid(tmp_path / "a.tiff", draw_section(600, 700), mpp=None)
    with pytest.raises(MedclipError) as caught:
        ADAPTER.read(Source(Kind.SLIDE, (path,), (FileFacts("0", Format.SLIDE),)), SETTINGS)
    assert caught.value.reason is Reason.NO_SCALE


def test_the_users_scale_is_taken_where_a_slide_has_none_and_enters_the_hash(tmp_path):
    path = write_pyramid(tmp_path / "a.tiff", draw_section(1200, 1400), mpp=None)
    source = Source(Kind.SLIDE, (path,), (FileFacts("0", Format.SLIDE),))
    settings = Settings(policy=ReadPolicy(mpp_um=0.25))
    sample = ADAPTER.read(source, settings)
    assert sample.headers["mpp_um"] == [0.25, 0.25]
    assert sample.views[0].spacing_mm == pytest.approx((0.0005, 0.0005))
    stated = write_pyramid(tmp_path / "b.tiff", draw_section(1200, 1400), mpp=0.25)
    same = ADAPTER.read(Source(Kind.SLIDE, (stated,), (FileFacts("1", Format.SLIDE),)), SETTINGS)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(sample.views, same.views, strict=True))
    assert sample.provenance.preprocessing != same.provenance.preprocessing


def test_the_tables_scale_goes_before_the_one_for_all_and_never_before_the_slides_own(tmp_path):
    unsaid = write_pyramid(tmp_path / "a.tiff", draw_section(1200, 1400), mpp=None)
    stated = write_pyramid(tmp_path / "b.tiff", draw_section(1200, 1400), mpp=0.25)
    settings = Settings(policy=ReadPolicy(mpp_um=1.0))
    facts = (FileFacts("0", Format.SLIDE),)
    sample = ADAPTER.read(Source(Kind.SLIDE, (unsaid,), facts, mpp_um=0.25), settings)
    assert sample.headers["mpp_um"] == [0.25, 0.25]
    assert any("0.25 µm/px as the user says" in step.detail for step in sample.provenance.steps)
    own = ADAPTER.read(Source(Kind.SLIDE, (stated,), facts, mpp_um=0.5), SETTINGS)
    assert own.headers["mpp_um"] == [0.25, 0.25]
    assert not any("user" in step.detail for step in own.provenance.steps)
    assert own.provenance.preprocessing == ADAPTER.preprocessing_of(Kind.SLIDE)


def test_the_users_scale_goes_before_a_print_resolution_and_the_steps_say_so(tmp_path):
    path = write_pyramid(tmp_path / "a.tiff", draw_section(1200, 1400), mpp=25_400 / 300)
    facts = (inspect_file(path, SETTINGS),)
    with pytest.raises(MedclipError) as caught:
        ADAPTER.read(Source(Kind.SLIDE, (path,), facts), SETTINGS)
    assert caught.value.reason is Reason.NO_SCALE
    sample = ADAPTER.read(Source(Kind.SLIDE, (path,), facts, mpp_um=0.25), SETTINGS)
    assert sample.headers["mpp_um"] == [0.25, 0.25]
    assert any("print resolution; 0.25 µm/px as the user says" in step.detail for step in sample.provenance.steps)


def test_a_dicom_slide_is_read_and_names_nobody(tmp_path):
    import imagecodecs

    image = draw_section(1500, 1900)
    frames = [imagecodecs.jpeg8_encode(part, level=90) for part in tiles_of(image, 256)]
    path = write_dicom_slide(tmp_path / "a.dcm", image, photometric="RGB", frames=frames, tile=256)
    sample = read(path)
    assert sample.views
    assert sample.headers["objective_power"] == 20
    assert "Planted" not in repr((sample.headers, sample.provenance))


@pytest.mark.shared
def test_the_svs_and_the_dicom_pyramid_made_of_it_give_nearly_the_same(shared):
    wsi = shared / "data/field_dev/wsi"
    svs = read(wsi / "svs/CMU-1-Small-Region.svs")
    dicom = read(*sorted((wsi / "dicom-cmu1-pyramid").glob("*.dcm")))
    assert abs(svs.headers["num_patches"] - dicom.headers["num_patches"]) <= 2
    a, b = (np.mean([view.pixels.mean((0, 1)) for view in sample.views], axis=0) for sample in (svs, dicom))
    assert np.abs(a - b).max() < 5
