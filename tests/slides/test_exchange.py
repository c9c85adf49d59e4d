"""A store of slides as AnnData files and SpatialData folders: what anndata and LazySlide look for is there."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import medclip
from medclip.errors import MedclipError, Reason
from medclip.slides.exchange import tile_table
from medclip.slides.slide_features import write_slide_features
from medclip.slides.slide_store import RUN, SlideFeatures, SlideRow, SlideStore, features_path, open_slide_store
from tests.kits.slide_store import make_slide_features, write_slide_store

GLASS = SlideRow("f" * 16, "glass.tiff", 1, "skipped", "no_tissue", "no tissue was found on the slide.")
KEY = "1" * 16
QUALITY = {"sharpness": np.linspace(0, 1, 9, dtype=np.float32)}


def written(folder: Path) -> tuple[SlideStore, SlideFeatures]:
    """A store of one slide with vectors and one without tissue."""
    features = make_slide_features(KEY, quality=QUALITY)
    path = write_slide_store(folder, [features], [GLASS])
    run = json.loads((path / RUN).read_text())
    (path / RUN).write_text(json.dumps({**run, "options": {"overlap_px": 64}}))
    return open_slide_store(path), features


def opened(path: Path) -> Any:
    return h5py.File(path)


def encoding(element: Any) -> tuple[str, str]:
    return str(element.attrs["encoding-type"]), str(element.attrs["encoding-version"])


def test_an_anndata_file_holds_vectors_places_and_what_they_are_of_in_the_published_layout(tmp_path: Path) -> None:
    store, features = written(tmp_path / "store")
    result = medclip.slides.export(store, tmp_path / "out")
    assert (result.counts, result.exit_code) == ({"skipped": 1, "done": 1}, 0)
    with opened(tmp_path / "out" / f"{KEY}.h5ad") as file:
        assert encoding(file) == ("anndata", "0.1.0")
        assert encoding(file["X"]) == ("array", "0.2.0")
        assert file["X"].dtype == np.float32
        np.testing.assert_array_equal(file["X"][()], features.features_ND)
        obs = file["obs"]
        assert encoding(obs) == ("dataframe", "0.2.0")
        columns = ["tile_id", "x", "y", "top_um", "left_um", "coverage", "sharpness", "library_id"]
        assert list(obs.attrs["column-order"]) == columns
        assert [name.decode() for name in obs[obs.attrs["_index"]][()]] == [str(n) for n in range(9)]
        assert encoding(obs["library_id"]) == ("categorical", "0.2.0")
        assert [name.decode() for name in obs["library_id/categories"][()]] == ["tiles"]
        for name, values in {"coverage": features.coverage_N, "sharpness": QUALITY["sharpness"]}.items():
            np.testing.assert_array_equal(obs[name][()], values)
        np.testing.assert_array_equal(np.stack([obs["x"], obs["y"]], axis=1), features.coords_N2)
        np.testing.assert_array_equal(file["obsm/spatial"][()], features.coords_N2)
        np.testing.assert_array_equal(file["obs/top_um"][()], features.corners_um_N2[:, 0])
        assert len(file["var/_index"]) == 8
        uns = file["uns"]
        assert {name: encoding(uns[name]) for name in uns} == dict.fromkeys(
            ("spatialdata_attrs", "tile_spec", "slide_properties", "medclip"), ("dict", "0.1.0")
        )
        assert uns["spatialdata_attrs/region"][()].decode() == "tiles"
        assert uns["spatialdata_attrs/instance_key"][()].decode() == "tile_id"
        assert uns["slide_properties/shape"][()].tolist() == [4000, 8000]
        assert uns["medclip/pack_digest"][()].decode() == store.pack.digest
        assert uns["medclip/pack_preprocessing"][()].decode() == store.pack.preprocessing
        assert encoding(uns["medclip/pack_name"]) == ("string", "0.2.0")
        assert encoding(uns["tile_spec/mpp"]) == ("numeric-scalar", "0.2.0")


def test_the_tile_spec_says_how_patches_lie_on_the_finest_level(tmp_path: Path) -> None:
    store, features = written(tmp_path / "store")
    spec = tile_table(store, features).tile_spec
    assert (spec["height"], spec["stride_width"], spec["mpp"]) == (256, 192, 0.5)
    assert spec["base_downsample"] == spec["ops_downsample"] == 2
    stained = replace(store, run={**store.run, "stain": "hed"})
    assert tile_table(stained, features).medclip["stain"] == "hed"


def test_equal_stores_give_equal_bytes_and_float16_is_widened(tmp_path: Path) -> None:
    _, whole = written(tmp_path / "store")
    half = whole.features_ND.astype(np.float16)
    for name in ("a", "b"):
        write_slide_store(tmp_path / name, [replace(whole, features_ND=half)])
        medclip.slides.export(tmp_path / name, tmp_path / f"out_{name}")
    files = [(tmp_path / f"out_{name}" / f"{KEY}.h5ad").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]
    with opened(tmp_path / "out_a" / f"{KEY}.h5ad") as file:
        np.testing.assert_array_equal(file["X"][()], half.astype(np.float32))


def test_the_table_beside_them_says_which_slide_a_key_is_and_the_files_do_not(tmp_path: Path) -> None:
    store, _ = written(tmp_path / "store")
    medclip.slides.export(store, tmp_path / "out")
    table = (tmp_path / "out" / "slides.csv").read_text()
    assert f'"{KEY}","slide_0.tiff","done"' in table
    assert '"no_tissue"' in table
    for name in (f"{KEY}.h5ad", "export.json"):
        content = (tmp_path / "out" / name).read_bytes()
        assert b"slide_0" not in content
        assert b"patient0" not in content


def test_a_damaged_file_of_vectors_is_one_row_with_its_reason(tmp_path: Path) -> None:
    store, _ = written(tmp_path / "store")
    path = features_path(store.folder, KEY)
    path.write_bytes(path.read_bytes()[:2000])
    result = medclip.slides.export(store, tmp_path / "out")
    (row,) = [slide for slide in result.slides if slide.key == KEY]
    assert (row.status, row.reason, row.written, result.exit_code) == ("failed", Reason.CORRUPT, None, 3)
    assert not (tmp_path / "out" / f"{KEY}.h5ad").exists()


def test_an_export_is_replaced_only_where_that_is_asked_for_and_never_into_the_store(tmp_path: Path) -> None:
    store, features = written(tmp_path / "store")
    medclip.slides.export(store, tmp_path / "out")
    with pytest.raises(MedclipError, match="holds an export already") as caught:
        medclip.slides.export(store, tmp_path / "out")
    assert caught.value.reason is Reason.OUTPUT_IN_USE
    write_slide_features(features_path(store.folder, KEY), replace(features, num_lost=5))
    medclip.slides.export(store, tmp_path / "out", overwrite=True)
    with opened(tmp_path / "out" / f"{KEY}.h5ad") as file:
        assert file["uns/medclip/num_lost"][()] == 5
    with pytest.raises(MedclipError):
        medclip.slides.export(store, store.folder, overwrite=True)
    with pytest.raises(MedclipError, match="'h5mu'"):
        medclip.slides.export(store, tmp_path / "other", as_="h5mu")


def test_without_spatialdata_the_line_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "geopandas", None)
    store, _ = written(tmp_path / "store")
    with pytest.raises(MedclipError, match="pip install 'medclip-imaging\\[spatialdata\\]'") as caught:
        medclip.slides.export(store, tmp_path / "out", as_="spatialdata")
    assert caught.value.reason is Reason.MISSING_CODEC
    assert not (tmp_path / "out").exists()


def test_anndata_reads_the_file(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    store, features = written(tmp_path / "store")
    medclip.slides.export(store, tmp_path / "out")
    table = anndata.read_h5ad(tmp_path / "out" / f"{KEY}.h5ad")
    np.testing.assert_array_equal(table.X, features.features_ND)
    np.testing.assert_array_equal(table.obsm["spatial"], features.coords_N2)
    assert table.obs["library_id"].tolist() == ["tiles"] * 9
    assert table.uns["tile_spec"]["base_downsample"] == 2
    assert table.uns["medclip"]["pack_name"] == store.pack.name


SQUARE = [[0, 0], [1100, 0], [1100, 4000], [0, 4000], [0, 0]]
CRUMB = [[1200, 0], [1600, 0], [1600, 4000], [1200, 4000], [1200, 0]]


@pytest.mark.filterwarnings("ignore")  # of spatialdata's own libraries
def test_spatialdata_reads_the_folder_and_finds_tiles_tissues_and_vectors_bound_to_each_other(tmp_path: Path) -> None:
    spatialdata = pytest.importorskip("spatialdata")
    store, features = written(tmp_path / "store")
    (store.folder / "tissue").mkdir()
    outlines = {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}} for ring in (SQUARE, CRUMB)
        ],
    }
    (store.folder / "tissue" / f"{KEY}.geojson").write_text(json.dumps(outlines))
    medclip.slides.export(store, tmp_path / "out", as_="spatialdata")
    opened = spatialdata.read_zarr(tmp_path / "out" / f"{KEY}.zarr")
    tiles, table = opened.shapes["tiles"], opened.tables["tiny_tiles"]
    np.testing.assert_array_equal(tiles[["x", "y"]], features.coords_N2)
    np.testing.assert_array_equal(tiles.bounds[["minx", "miny"]], features.coords_N2)
    assert set(tiles.bounds["maxx"] - tiles.bounds["minx"]) == {512}
    assert len(opened.shapes["tissues"]) == 2
    assert set(tiles["tissue_id"][tiles["x"] == 1024]) == {1}  # of columns 1024 to 1536 the crumb has more
    assert set(tiles["tissue_id"][tiles["x"] < 1024]) == {0}
    np.testing.assert_array_equal(table.X, features.features_ND)
    assert opened.attrs["tile_spec"]["tiles"]["tissue_name"] == "tissues"
    assert opened.attrs["slide_properties"]["shape"] == [4000, 8000]
    assert spatialdata.match_element_to_table(opened, "tiles", "tiny_tiles")[1].n_obs == 9
