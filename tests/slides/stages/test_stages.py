"""A folder of slides goes through its stages: a row for each slide, and files that the next stage takes."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from pydicom.dataset import Dataset

import medclip
from medclip.errors import MedclipError, Reason
from medclip.imaging.slides.patch_grid import PatchGrid, make_grid
from medclip.imaging.slides.patch_quality import assess_patch
from medclip.imaging.slides.readers.open import open_slide
from medclip.imaging.slides.stain import StainOptions, normalise_stain, slide_stain, slide_white
from medclip.imaging.slides.tissue.find import find_tissue
from medclip.models.packs.pack import load_model
from medclip.runs.call import Call
from medclip.sample import View
from medclip.settings import ReadPolicy, Settings
from medclip.slides.stages import reading
from medclip.slides.stages.run_stage import StageRun
from medclip.slides.stages.stage_files import grid_geojson
from tests.kits.dicom_slides import all_of, shows
from tests.kits.scoring import make_pack
from tests.kits.slides import damage_tile, draw_section, make_pathology_pack, write_dicom_slide, write_pyramid
from tests.kits.stained_slide import draw_stained, write_stained

SETTINGS = Settings(workers=1)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pathology_pack(tmp_path_factory.mktemp("packs") / "pathology")


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    write_pyramid(folder / "a.tiff", draw_section())
    write_pyramid(folder / "glass.tiff", np.full((1500, 1900, 3), 244, np.uint8))
    write_pyramid(folder / "no_scale.tiff", draw_section(), mpp=None)
    write_pyramid(folder / "z.tiff", draw_section(1400, 1700))
    (folder / "note.txt").write_text("no slide")
    return folder


@pytest.fixture(scope="module")
def embedded(slides: Path, pack: Path, tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    return medclip.slides.embed(slides, tmp_path_factory.mktemp("out") / "o", model=pack, settings=SETTINGS)


def by_file(run: StageRun) -> dict:
    return {row.file: row for row in run.rows}


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything that a run leaves but its ledger, which has times of files in it."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and "ledger" not in path.name)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_every_slide_has_one_row_and_a_slide_without_tissue_or_scale_says_so(embedded: StageRun):
    rows = by_file(embedded)
    assert list(rows) == ["a.tiff", "glass.tiff", "no_scale.tiff", "z.tiff"]
    assert [row.status for row in embedded.rows] == ["done", "skipped", "failed", "done"]
    assert rows["glass.tiff"].reason == Reason.NO_TISSUE
    assert rows["glass.tiff"].tissue_share == 0
    assert rows["no_scale.tiff"].reason == Reason.NO_SCALE
    assert embedded.num_files == 5
    assert embedded.exit_code == 3
    row = rows["a.tiff"]
    assert (row.mpp_um, row.mpp_source, row.height_um, row.width_um) == (0.5, "file", 750, 950)
    assert row.num_places == 48
    assert row.num_lost == 0
    assert len({row.key for row in embedded.rows}) == 4
    assert not any("a.tiff" in row.key for row in embedded.rows)


def test_vectors_are_those_of_the_patches_as_the_reader_and_the_model_have_them(
    embedded: StageRun, slides: Path, pack: Path
):
    model = load_model(pack)
    features = embedded.store.read(by_file(embedded)["a.tiff"].key)
    with open_slide(slides / "a.tiff") as reader:
        grid = make_grid(reader, find_tissue(reader))
        assert len(features) == len(grid) == by_file(embedded)["a.tiff"].num_patches
        np.testing.assert_array_equal(features.corners_um_N2, [[patch.top_um, patch.left_um] for patch in grid])
        np.testing.assert_array_equal(features.coverage_N, grid.coverage)
        views = [View(reader.read(p.top_um, p.left_um, 256, 256, 0.5), (0, 255)) for p in grid]
    pixels = model.preprocess.together([model.preprocess.to_array(view) for view in views])
    np.testing.assert_array_equal(features.features_ND, model.encode_image(pixels))
    assert features.slide_size_um == (750, 950)
    assert features.pack.name == "tiny"


def test_a_second_call_computes_nothing_and_another_model_or_grid_is_refused(
    embedded: StageRun, slides: Path, pack: Path
):
    before = files_of(embedded.folder)
    again = medclip.slides.embed(slides, embedded.folder, model=pack, settings=SETTINGS)
    assert again.already_finished
    assert files_of(embedded.folder) == before
    with pytest.raises(MedclipError, match="size, scale") as caught:
        medclip.slides.embed(slides, embedded.folder, model=pack, size_px=224, settings=SETTINGS)
    assert caught.value.reason is Reason.OUTPUT_IN_USE


def test_vectors_that_were_removed_since_are_computed_again(
    embedded: StageRun, slides: Path, pack: Path, tmp_path: Path
):
    shutil.copytree(embedded.folder, tmp_path / "o")
    before = files_of(tmp_path / "o")
    (tmp_path / "o" / "features" / f"{by_file(embedded)['z.tiff'].key}.h5").unlink()
    again = medclip.slides.embed(slides, tmp_path / "o", model=pack, settings=SETTINGS)
    assert files_of(tmp_path / "o") == before
    assert again.time["num_patches"] == by_file(embedded)["z.tiff"].num_patches


def test_vectors_that_were_removed_are_computed_again_where_paths_are_hashed(slides: Path, pack: Path, tmp_path: Path):
    def embed() -> StageRun:
        return medclip.slides.embed(slides, tmp_path / "o", model=pack, hash_paths=True, settings=SETTINGS)

    run = embed()
    before = files_of(run.folder)
    done = [row for row in run.rows if row.status == "done"]
    (run.folder / "features" / f"{done[1].key}.h5").unlink()
    again = embed()
    assert again.time["num_patches"] == done[1].num_patches
    assert files_of(run.folder) == before
    for name in ("a.tiff", "z.tiff"):
        assert not any(name.encode() in path.read_bytes() for path in run.folder.rglob("*") if path.is_file())
    assert embed().already_finished


def test_stages_one_by_one_end_in_the_bytes_of_one_alone_and_nothing_is_found_twice(
    embedded: StageRun, slides: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out"
    tissue = medclip.slides.tissue(slides, out, settings=SETTINGS)
    assert [row.status for row in tissue.rows] == ["done", "skipped", "failed", "done"]
    key = by_file(tissue)["a.tiff"].key
    outlines = json.loads((out / "tissue" / f"{key}.geojson").read_text())
    assert {f["properties"]["objectType"] for f in outlines["features"]} == {"annotation"}
    places = medclip.slides.places(slides, out, settings=SETTINGS)
    with h5py.File(out / "patches" / f"{key}.h5") as file:
        assert dict(file["coords"].attrs)["patch_size_level0"] == 256
        assert len(file["coords"]) == by_file(places)["a.tiff"].num_patches
    squares = json.loads((out / "patches" / f"{key}.geojson").read_text())
    assert squares["features"][0]["properties"]["objectType"] == "tile"
    # Where a grid is known, the overview is not even read: a mark that only the grid file has shows up in the rows.
    with h5py.File(out / "patches" / f"{key}.h5", "r+") as file:
        facts = json.loads(file.attrs["tissue"])
        file.attrs["tissue"] = json.dumps(facts | {"pen_share": 0.125})
    run = medclip.slides.embed(slides, out, model=pack, settings=SETTINGS)
    assert by_file(run)["a.tiff"].pen_share == 0.125
    for name, content in files_of(embedded.folder).items():
        if name.startswith("features/"):
            assert (out / name).read_bytes() == content, name


def test_what_another_stage_left_with_other_options_is_not_used(slides: Path, pack: Path, tmp_path: Path):
    medclip.slides.places(slides / "a.tiff", tmp_path / "o", size_px=128, settings=SETTINGS)
    run = medclip.slides.embed(slides / "a.tiff", tmp_path / "o", model=pack, settings=SETTINGS)
    assert run.rows[0].num_places == 48


def test_a_damaged_tile_costs_its_patches_and_not_the_slide(slides: Path, pack: Path, tmp_path: Path):
    shutil.copy(slides / "a.tiff", tmp_path / "a.tiff")
    damage_tile(tmp_path / "a.tiff", 2 * 8 + 2)  # of 6 x 8 tiles, in the section
    run = medclip.slides.embed(tmp_path / "a.tiff", tmp_path / "o", model=pack, settings=SETTINGS)
    assert (run.rows[0].status, run.rows[0].num_lost, run.num_lost) == ("done", 1, 1)
    features = run.store.read(run.rows[0].key)
    assert len(features) == run.rows[0].num_patches - 1 == run.num_patches
    assert [256.0, 256.0] not in features.corners_um_N2.tolist()
    assert np.allclose(np.linalg.norm(features.features_ND, axis=1), 1, atol=1e-5)


def test_a_block_that_cannot_be_read_as_a_whole_is_read_patch_by_patch_with_the_same_end(
    slides: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from medclip.slides.stages import stage

    shutil.copy(slides / "a.tiff", tmp_path / "a.tiff")
    damage_tile(tmp_path / "a.tiff", 2 * 8 + 2)
    ends = []
    job = stage.EmbedStage._job

    def too_large(self: stage.EmbedStage, slide: Any, rows: np.ndarray) -> tuple[Any, ...]:
        arguments = list(job(self, slide, rows))
        if len(rows) > 1:
            arguments[2] = 1 << 20  # rows and columns of a patch
        return tuple(arguments)

    for name in ("blocks", "single"):
        run = medclip.slides.embed(tmp_path / "a.tiff", tmp_path / name, model=pack, qc=True, settings=SETTINGS)
        assert (run.rows[0].status, run.num_lost) == ("done", 1)
        ends.append(run.store.read(run.rows[0].key))
        monkeypatch.setattr(stage.EmbedStage, "_job", too_large)
    blocks, single = ends
    np.testing.assert_array_equal(single.corners_um_N2, blocks.corners_um_N2)
    np.testing.assert_allclose(single.features_ND, blocks.features_ND, atol=1e-6)
    assert all((single.quality[name] == blocks.quality[name]).all() for name in blocks.quality)


def test_a_damaged_part_of_the_overview_is_taken_for_glass_and_told(slides: Path, tmp_path: Path):
    shutil.copy(slides / "a.tiff", tmp_path / "a.tiff")
    damage_tile(tmp_path / "a.tiff", 0, page=1)  # the upper left one of 2 x 2
    run = medclip.slides.tissue(tmp_path, tmp_path / "o", settings=SETTINGS)
    assert run.rows[0].status == "done"
    assert "damaged parts of the overview, which are taken for glass" in (run.rows[0].notes or "")


@pytest.mark.parametrize("qc", [False, True])
def test_a_slide_of_which_no_patch_can_be_read_fails(slides: Path, pack: Path, tmp_path: Path, qc: bool):
    shutil.copy(slides / "a.tiff", tmp_path / "a.tiff")
    for tile in range(6 * 8):
        damage_tile(tmp_path / "a.tiff", tile)
    run = medclip.slides.embed(tmp_path / "a.tiff", tmp_path / "o", model=pack, qc=qc, settings=SETTINGS)
    assert (run.rows[0].status, run.rows[0].reason) == ("failed", Reason.CORRUPT)
    assert not list((tmp_path / "o" / "features").glob("*")) if (tmp_path / "o" / "features").exists() else True
    assert not (tmp_path / "o" / "unfinished").exists()


def test_a_slide_that_grows_while_it_is_read_fails_and_leaves_no_vectors(
    slides: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from medclip.slides.stages import stage

    shutil.copy(slides / "a.tiff", tmp_path / "a.tiff")
    begin = stage.EmbedStage.begin

    def grow(self: stage.EmbedStage, slide: object) -> object:
        with (tmp_path / "a.tiff").open("ab") as file:
            file.write(bytes(100))
        return begin(self, slide)  # pyright: ignore

    monkeypatch.setattr(stage.EmbedStage, "begin", grow)
    run = medclip.slides.embed(tmp_path / "a.tiff", tmp_path / "o", model=pack, settings=SETTINGS)
    assert (run.rows[0].status, run.rows[0].reason) == ("failed", Reason.CHANGED)
    assert not list((tmp_path / "o").rglob("*.h5"))


def test_a_table_that_says_another_scale_than_the_file_is_told_and_not_followed(slides: Path, tmp_path: Path):
    table = tmp_path / "table.csv"
    table.write_text("file,patient,mpp_um\na.tiff,P1,0.25\nno_scale.tiff,P2,0.5\nz.tiff,P1,0.5\n")
    run = medclip.slides.places(slides, tmp_path / "o", table=table, settings=SETTINGS)
    rows = by_file(run)
    assert rows["a.tiff"].mpp_um == 0.5
    assert json.loads(rows["a.tiff"].notes or "[]") == [
        "the table says 0.25 µm/px and the file 0.5; the file's is used"
    ]
    assert rows["z.tiff"].notes is None
    assert (rows["no_scale.tiff"].status, rows["no_scale.tiff"].mpp_source) == ("done", "table")
    assert rows["a.tiff"].patient == rows["z.tiff"].patient != rows["no_scale.tiff"].patient
    assert "P1" not in (tmp_path / "o" / "patches" / "slides.parquet").read_bytes().decode("latin-1")


def test_a_scale_for_all_is_used_where_a_slide_states_none(slides: Path, tmp_path: Path):
    settings = Settings(workers=1, policy=ReadPolicy(mpp_um=0.5))
    run = medclip.slides.tissue(slides / "no_scale.tiff", tmp_path / "o", settings=settings)
    assert (run.rows[0].status, run.rows[0].mpp_source, run.rows[0].mpp_um) == ("done", "option", 0.5)


def test_a_table_says_more_of_a_slide_than_a_scale_for_all(slides: Path, tmp_path: Path):
    (tmp_path / "t.csv").write_text("file,mpp_um\nno_scale.tiff,0.25\n")
    settings = Settings(workers=1, policy=ReadPolicy(mpp_um=0.5))
    run = medclip.slides.tissue(
        slides / "no_scale.tiff", tmp_path / "o", table=tmp_path / "t.csv", settings=settings, geojson=False
    )
    assert (run.rows[0].status, run.rows[0].mpp_source, run.rows[0].mpp_um) == ("done", "table", 0.25)


def test_vectors_that_are_no_numbers_make_their_slide_fail(
    slides: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "medclip.models.model.Model.encode_image", lambda model, images: np.full((len(images), model.dim), np.nan, "f4")
    )
    run = medclip.slides.embed(slides / "a.tiff", tmp_path / "o", model=pack, settings=SETTINGS)
    assert [(row.status, row.reason) for row in run.rows] == [("failed", Reason.NON_FINITE)]
    assert not list((tmp_path / "o").rglob("*.h5"))


@pytest.mark.parametrize("workers", [1, 4])
def test_caches_of_all_reading_processes_take_an_eighth_of_the_memory(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
):
    asked: list[Settings] = []

    def conducted(call: Call, *_: object) -> None:
        asked.append(call.settings)
        raise KeyboardInterrupt

    monkeypatch.setattr("medclip.slides.stages.run_stage.conduct", conducted)
    settings = Settings(workers=workers, memory_bytes=1 << 30, slide_cache_bytes=1 << 40)
    with pytest.raises(KeyboardInterrupt):
        medclip.slides.tissue(slides, tmp_path / "o", settings=settings)
    assert [one.slide_cache_bytes * workers for one in asked] == [1 << 27]


def test_the_tissue_of_a_slide_that_was_said_to_be_of_another_scale_is_not_used(slides: Path, tmp_path: Path):
    shares = []
    for mpp_um in (0.25, 0.5):
        settings = Settings(workers=1, policy=ReadPolicy(mpp_um=mpp_um))
        medclip.slides.tissue(slides / "no_scale.tiff", tmp_path / f"o{mpp_um}", settings=settings)
        places = medclip.slides.places(slides / "no_scale.tiff", tmp_path / f"o{mpp_um}", settings=settings)
        shares.append(places.rows[0].tissue_mm2)
        if mpp_um == 0.25:
            shutil.copytree(tmp_path / "o0.25" / "tissue", tmp_path / "kept")
    shutil.rmtree(tmp_path / "o0.5" / "patches")
    for path in (tmp_path / "kept").glob("*.png"):
        shutil.copy(path, tmp_path / "o0.5" / "tissue")
    again = medclip.slides.places(slides / "no_scale.tiff", tmp_path / "o0.5", settings=settings)
    assert shares[1] == pytest.approx(4 * shares[0], rel=0.05)
    assert again.rows[0].tissue_mm2 == shares[1]


def test_squares_count_from_the_corner_that_a_viewer_shows_first():
    grid = PatchGrid(64, 1.0, (1.0, 1.0), (64.0, 64.0), np.array([[1, 2]], np.int32), np.ones(1, np.float32), 9)
    reader: Any = SimpleNamespace(mpp_um=(0.5, 0.25), facts=SimpleNamespace(origin_px=(10, 20)))
    (square,) = grid_geojson(grid, reader)["features"]
    left_top, right_bottom = square["geometry"]["coordinates"][0][0], square["geometry"]["coordinates"][0][2]
    assert left_top == [128 / 0.25 - 20, 64 / 0.5 - 10]
    assert right_bottom == [left_top[0] + 64 / 0.25, left_top[1] + 64 / 0.5]


def test_copies_on_a_quick_disk_give_the_same_vectors_and_are_gone_afterwards(
    embedded: StageRun, slides: Path, pack: Path, tmp_path: Path
):
    quick = tmp_path / "quick"
    quick.mkdir()
    run = medclip.slides.embed(slides, tmp_path / "o", model=pack, stage_to=quick, settings=SETTINGS)
    assert files_of(run.folder) == files_of(embedded.folder)
    assert list(quick.iterdir()) == []


def test_quality_is_measured_where_it_is_asked_for(slides: Path, pack: Path, tmp_path: Path):
    run = medclip.slides.embed(slides / "a.tiff", tmp_path / "o", model=pack, qc=True, settings=SETTINGS)
    features = run.store.read(run.rows[0].key)
    assert set(features.quality) == {
        "flags",
        "sharpness",
        "stained_share",
        "pen_share",
        "dark_share",
        "dense_share",
    }
    assert features.quality["stained_share"].min() > 0.3
    assert run.rows[0].num_blurred is not None
    assert run.rows[0].num_artefacts == 0


def test_colours_are_made_alike_before_patches_are_encoded_and_the_store_is_another(pack: Path, tmp_path: Path):
    (tmp_path / "in").mkdir()
    write_stained(tmp_path / "in" / "a.tiff", height=420, width=520)
    write_pyramid(tmp_path / "in" / "one_stain.tiff", draw_section())
    how = {"model": pack, "size_px": 128, "settings": SETTINGS}
    plain = medclip.slides.embed(tmp_path / "in", tmp_path / "plain", **how)
    run = medclip.slides.embed(tmp_path / "in", tmp_path / "o", stain="macenko", **how)
    rows = by_file(run)
    assert run.store.run["stain"] == "macenko"
    assert run.store.pack.digest == plain.store.pack.digest
    assert run.store.pack.preprocessing != plain.store.pack.preprocessing
    # What cannot be estimated is told, and encoded as it was scanned.
    assert rows["a.tiff"].notes is None
    (note,) = json.loads(rows["one_stain.tiff"].notes or "[]")
    assert note.startswith("its stains cannot be estimated: one stain only")
    assert note.endswith("encoded as they were scanned")
    key = rows["one_stain.tiff"].key
    np.testing.assert_array_equal(run.store.read(key).features_ND, plain.store.read(key).features_ND)
    # The others have the vectors of patches that were recoloured by an estimate of their slide.
    features = run.store.read(rows["a.tiff"].key)
    assert not np.array_equal(features.features_ND, plain.store.read(features.key).features_ND)
    model = load_model(pack)
    with open_slide(tmp_path / "in" / "a.tiff") as reader:
        grid = make_grid(reader, find_tissue(reader), size_px=128)
        estimate = slide_stain(reader, grid, StainOptions("macenko"))
        pixels = [normalise_stain(reader.read(p.top_um, p.left_um, 128, 128, 0.5), estimate) for p in grid]
    images = [model.preprocess.to_array(View(one, (0, 255), spacing_mm=(0.0005, 0.0005))) for one in pixels]
    np.testing.assert_array_equal(features.features_ND, model.encode_image(model.preprocess.together(images)))
    with pytest.raises(MedclipError) as caught:
        medclip.slides.embed(tmp_path / "in", tmp_path / "o", stain="hed", **how)
    assert caught.value.reason is Reason.OUTPUT_IN_USE


def test_an_unknown_way_of_making_stains_alike_is_refused_before_anything_is_read(slides: Path, tmp_path: Path):
    with pytest.raises(MedclipError, match="macenko"):
        medclip.slides.embed(slides, tmp_path / "o", stain="maccenko", settings=SETTINGS)
    assert not (tmp_path / "o").exists()


def test_quality_is_measured_against_the_slides_own_glass(pack: Path, tmp_path: Path):
    grey = (draw_stained(height=720, width=840) * 0.85).astype(np.uint8)
    write_pyramid(tmp_path / "grey.tiff", grey)
    how = {"model": pack, "size_px": 96, "min_coverage": 0, "qc": True, "settings": SETTINGS}
    run = medclip.slides.embed(tmp_path / "grey.tiff", tmp_path / "o", **how)
    features = run.store.read(run.rows[0].key)
    with open_slide(tmp_path / "grey.tiff") as reader:
        white = slide_white(reader)
        first = [reader.read(top, left, 96, 96, 0.5) for top, left in features.corners_um_N2[:2]]
    assert white is not None
    for row, pixels in enumerate(first):  # of the glass above the section
        assert "blank" not in assess_patch(pixels, 0.5).flags
        assert assess_patch(pixels, 0.5, white=white).flags == ("blank",)
        assert features.quality["flags"][row] == 1


def test_a_slide_that_was_cut_is_a_slide_that_failed_and_a_picture_is_none(slides: Path, tmp_path: Path):
    (tmp_path / "in").mkdir()
    content = (slides / "a.tiff").read_bytes()
    (tmp_path / "in" / "cut.tiff").write_bytes(content[: len(content) // 2])
    tifffile.imwrite(tmp_path / "in" / "picture.tif", draw_section()[:64, :64])
    run = medclip.slides.tissue(tmp_path / "in", tmp_path / "o", settings=SETTINGS)
    assert [(row.file, row.status, row.reason) for row in run.rows] == [("cut.tiff", "failed", Reason.TRUNCATED)]
    assert (run.num_files, run.exit_code) == (2, 3)


def test_a_dicom_slide_that_does_not_say_what_its_images_are_fails_and_a_label_beside_one_is_not_read(tmp_path: Path):
    section = draw_section(1024, 1280)

    def without_type(ds: Dataset) -> None:
        del ds.ImageType

    def label(ds: Dataset) -> None:
        shows("LABEL")(ds)
        ds.PixelData = b"SURNAME^GIVEN" * (len(ds.PixelData) // 13 + 1)

    (tmp_path / "in" / "typed").mkdir(parents=True)
    (tmp_path / "in" / "untyped").mkdir()
    write_dicom_slide(tmp_path / "in" / "typed" / "a.dcm", section, photometric="RGB")
    write_dicom_slide(tmp_path / "in" / "typed" / "label.dcm", section[:128, :128], photometric="RGB", edit=label)
    write_dicom_slide(
        tmp_path / "in" / "untyped" / "a.dcm", section, photometric="RGB", edit=all_of(without_type, other_series)
    )
    run = medclip.slides.tissue(tmp_path / "in", tmp_path / "o", settings=SETTINGS)
    rows = by_file(run)
    assert [(row.status, row.reason, row.num_files) for row in run.rows] == [
        ("done", None, 2),
        ("failed", Reason.CORRUPT, 1),
    ], rows
    assert "ImageType" in (rows["untyped/a.dcm"].message or "")
    hashes = [
        hashlib.sha256((tmp_path / "in" / "typed" / f"{name}.dcm").read_bytes()).hexdigest() for name in ("a", "label")
    ]
    assert rows["typed/a.dcm"].sha256 == hashlib.sha256("".join(hashes).encode()).hexdigest()
    for name, content in files_of(tmp_path / "o").items():
        assert b"SURNAME" not in content, name
        assert b"Planted" not in content, name


def test_of_a_stack_of_focal_planes_the_middle_one_is_embedded_and_the_row_says_so(pack: Path, tmp_path: Path):
    section = draw_section(1024, 1280)
    stack = np.stack([np.full_like(section, 40), section, np.full_like(section, 250)])
    sizes = {"axes": "ZYXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "stack.ome.tif", stack, tile=(256, 256), photometric="rgb", metadata=sizes)
    tifffile.imwrite(
        tmp_path / "in" / "single.ome.tif",
        section,
        tile=(256, 256),
        photometric="rgb",
        metadata=sizes | {"axes": "YXS"},
    )
    run = medclip.slides.embed(tmp_path / "in", tmp_path / "o", model=pack, settings=SETTINGS)
    rows = by_file(run)
    assert [row.status for row in run.rows] == ["done", "done"]
    assert json.loads(rows["stack.ome.tif"].notes or "[]") == ["the middle one of 3 focal planes is read"]
    assert rows["single.ome.tif"].notes is None
    of_stack, alone = (run.store.read(rows[name].key) for name in ("stack.ome.tif", "single.ome.tif"))
    np.testing.assert_array_equal(of_stack.corners_um_N2, alone.corners_um_N2)
    np.testing.assert_array_equal(of_stack.features_ND, alone.features_ND)


def other_series(ds: Dataset) -> None:
    """Put it into a study of its own."""
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(ds, name, f"{getattr(ds, name)[:40]}.9")


@pytest.mark.shared
def test_real_slides_have_one_row_each_whatever_they_are(shared: Path, tmp_path: Path):
    run = medclip.slides.places(shared / "data" / "field_dev" / "wsi", tmp_path / "o", settings=SETTINGS)
    ended = {row.file: (row.status, row.reason, row.num_patches) for row in run.rows}
    assert ended["svs/CMU-1-Small-Region.svs"] == ("done", None, 39)
    assert ended["dicom-cmu1-pyramid/level-0-frames-0-30.dcm"] == ("done", None, 38)
    assert ended["broken/unreadable.svs"][:2] == ("failed", Reason.CORRUPT)
    assert ended["broken/truncated_300k.svs"][:2] == ("failed", Reason.TRUNCATED)
    assert ended["ndpi/test3-TRITC 2 (560).ndpi"][:2] == ("skipped", Reason.NO_TISSUE)  # fluorescence
    assert ended["dicom-wsi2dcm/jpeg.dcm"][:2] == ("skipped", Reason.TOO_SMALL)
    assert ended["tiff/boxes.tiff"][:2] == ("failed", Reason.NO_SCALE)
    assert "ome-tiff/cells-2c.ome.tif" in ended
    notes = {row.file: row.notes for row in run.rows}
    assert "two channels" in (notes["ome-tiff/cells-2c.ome.tif"] or "")


def test_hashed_paths_name_no_file(slides: Path, tmp_path: Path):
    run = medclip.slides.tissue(slides, tmp_path / "o", hash_paths=True, settings=SETTINGS)
    assert all(row.file.startswith("path:") for row in run.rows)
    assert len({row.key for row in run.rows}) == 4


def test_a_model_of_other_images_is_refused_before_anything_is_read(slides: Path, tmp_path: Path):
    with pytest.raises(MedclipError, match="not trained on pathology") as caught:
        medclip.slides.embed(slides, tmp_path / "o", model=make_pack(tmp_path / "tiny"), settings=SETTINGS)
    assert caught.value.reason is Reason.WRONG_USE
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("wrong", [{"size_px": 0}, {"overlap_px": 256}, {"min_coverage": 1.5}, {"patch_mpp_um": 0}])
def test_impossible_grids_are_refused(slides: Path, tmp_path: Path, wrong: dict):
    with pytest.raises(MedclipError) as caught:
        medclip.slides.places(slides, tmp_path / "o", settings=SETTINGS, **wrong)
    assert caught.value.reason is Reason.WRONG_USE


def test_a_grid_from_each_piece_of_tissue_comes_back_from_its_file_and_ends_in_the_same_vectors(
    pack: Path, tmp_path: Path
):
    (tmp_path / "in").mkdir()
    image = np.concatenate([draw_section(900, 1100), draw_section(1000, 1100)])
    write_pyramid(tmp_path / "in" / "two.tiff", image)
    how = {"size_px": 64, "by_piece": True, "settings": SETTINGS}
    alone = medclip.slides.embed(tmp_path / "in", tmp_path / "alone", model=pack, **how)
    places = medclip.slides.places(tmp_path / "in", tmp_path / "o", **how)
    run = medclip.slides.embed(tmp_path / "in", tmp_path / "o", model=pack, **how)
    key = run.rows[0].key
    assert (run.folder / "features" / f"{key}.h5").read_bytes() == (
        alone.folder / "features" / f"{key}.h5"
    ).read_bytes()
    with open_slide(tmp_path / "in" / "two.tiff") as reader:
        grid = make_grid(reader, find_tissue(reader), size_px=64, by_piece=True)
    assert len(grid.origins_um) == 2
    np.testing.assert_array_equal(run.store.read(key).corners_um_N2, grid.corners_um_N2)
    assert places.rows[0].num_places == grid.candidates
    with pytest.raises(MedclipError, match="origin of patches"):
        medclip.slides.embed(tmp_path / "in", tmp_path / "o", model=pack, size_px=64, settings=SETTINGS)


def test_small_pieces_of_tissue_share_a_block_and_large_ones_have_squares():
    sizes = [3, 200, 2, 1]
    kept = np.concatenate([np.stack(np.divmod(np.arange(n), 20), 1) for n in sizes]).astype(np.int32)
    piece = np.repeat(np.arange(4, dtype=np.int32), sizes)
    um = (64.0, 64.0)
    grid = PatchGrid(64, 1.0, (1.0, 1.0), um, kept, np.ones(206, np.float32), 206, piece, np.zeros((4, 2)))
    blocks = reading.blocks_of(grid)
    np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), np.arange(206))
    assert max(len(block) for block in blocks) <= 64
    assert piece[blocks[-1]].tolist()[-3:] == [2, 2, 3]
    assert len(blocks) < 9


def test_blocks_are_squares_that_hold_every_patch_once(slides: Path):
    with open_slide(slides / "a.tiff") as reader:
        grid = make_grid(reader, None, size_px=64, min_coverage=0)
    blocks = reading.blocks_of(grid)
    np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), np.arange(len(grid)))
    for rows in blocks:
        assert len(rows) <= 64
        assert (np.ptp(grid.kept[rows], axis=0) < 8).all()
        assert (np.diff(rows) > 0).all()
