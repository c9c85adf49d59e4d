"""Search among the patches of slides: words, slides and patches as examples, conditions on slides, and small images."""

from __future__ import annotations

import hashlib
import io
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import medclip
from medclip.api.run_arguments import folder_of
from medclip.errors import MedclipError, Reason
from medclip.imaging.slides.readers.open import open_slide
from medclip.models.packs.pack import load_model
from medclip.reports.search import render
from medclip.retrieval.hits import PatchHit, SearchResult
from medclip.retrieval.question import SLIDE_COLUMNS, Question, Search, read_conditions, read_question
from medclip.retrieval.searchable import FOLDER
from medclip.retrieval.slide_patches import run_patch_search
from medclip.settings import Settings
from medclip.slides.slide_store import SLIDES, SlideRow, SlideStore, open_slide_store, write_slide_rows
from tests.kits.slide_store import make_slide_features, write_slide_store
from tests.kits.slides import draw_section, make_pathology_pack, write_pyramid
from tests.retrieval.test_folder_search import WordModel, never, unit

SETTINGS = Settings(workers=1)
GLASS = SlideRow("f" * 16, "glass.tiff", 1, "skipped", "no_tissue", "no tissue was found on the slide.")
KEYS = ("1" * 16, "2" * 16, "3" * 16)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SlideStore:
    """Three slides of patients A, A and B behind one without tissue: rows 2, 3 and 4."""
    folder = tmp_path_factory.mktemp("stores") / "store"
    slides = [make_slide_features(key, num=num) for key, num in zip(KEYS, (9, 6, 12), strict=True)]
    opened = open_slide_store(write_slide_store(folder, slides, [GLASS]))
    patients = iter("AAB")
    rows = [
        replace(row, patient=next(patients), mpp_um=0.25, tissue_share=n / 10, sha256=f"{n}" * 64)
        if row.status == "done"
        else row
        for n, row in enumerate(opened.rows)
    ]
    write_slide_rows(folder / SLIDES, rows)
    return open_slide_store(folder)


def search(
    store: SlideStore,
    words: Any = (),
    *,
    like: Any = None,
    where: Any = (),
    load: Callable[[], Any] = WordModel,
    **more,
) -> SearchResult:
    asked = Search(read_conditions(where, SLIDE_COLUMNS), **more)
    return run_patch_search(store, read_question(words, (), like), load, asked)


def patches(result: SearchResult) -> list[PatchHit]:
    assert all(isinstance(hit, PatchHit) for hit in result.hits)
    return [hit for hit in result.hits if isinstance(hit, PatchHit)]


def vectors_of(store: SlideStore) -> np.ndarray:
    return np.concatenate([features.features_ND for features in store])


def test_words_rank_all_patches_by_their_cosine_and_hits_say_where_they_are(store: SlideStore) -> None:
    result = search(store, "tumour | malignant tissue", num_hits=5)
    cosines = vectors_of(store) @ unit(WordModel().encode_text(["tumour", "malignant tissue"]).mean(axis=0))
    order = np.argsort(-cosines, kind="stable")[:5]
    assert [hit.score for hit in result.hits] == pytest.approx(cosines[order].tolist(), abs=2e-6)
    corners = np.concatenate([features.corners_um_N2 for features in store])
    keys = [features.key for features in store for _ in range(len(features))]
    for hit, place in zip(patches(result), order, strict=True):
        assert (hit.top_um, hit.left_um) == tuple(corners[place])
        assert (hit.x_px, hit.y_px) == (round(hit.left_um / 0.25), round(hit.top_um / 0.25))
        assert hit.slide == keys[place]
        assert store.rows[hit.row - 1].key == hit.slide
        assert hit.patient == store.rows[hit.row - 1].patient
        assert hit.file == f"slide {hit.row}"
    assert (result.num_searched, result.noun, result.level) == (27, "patch", "patches")
    assert "27 patches" in repr(result)
    assert result.table.column_names[-6:] == ["slide", "top_um", "left_um", "x_px", "y_px", "coverage"]
    assert result.to_pandas()["slide"].tolist() == [hit.slide for hit in patches(result)]
    assert json.loads(result.to_json())["hits"][0]["x_px"] == patches(result)[0].x_px


def test_paths_are_named_where_they_are_asked_for(store: SlideStore) -> None:
    result = search(store, "tumour", report_paths=True)
    assert {hit.file for hit in result.hits} <= {row.file for row in store.rows}


def test_a_patch_of_a_hit_is_an_example_by_its_name_and_left_out(store: SlideStore) -> None:
    first = patches(search(store, "tumour", num_hits=1))[0]
    result = search(store, like=first.name, num_hits=99, load=never)
    assert first.name not in {hit.name for hit in patches(result)}
    assert (len(result.hits), result.num_left_out) == (26, 1)
    assert result.like == (f"slide {first.row} at {first.top_um:g},{first.left_um:g} µm",)
    itself = patches(search(store, like=first.name, num_hits=1, include_example=True, load=never))[0]
    assert (itself.name, itself.like) == (first.name, pytest.approx(1, abs=1e-5))
    near = f"{first.slide}@{first.top_um + 60},{first.left_um + 60}"  # within half a patch of 128 µm
    assert search(store, like=near, load=never).like == result.like


def test_a_slide_is_an_example_by_its_row_key_file_and_bytes_and_other_patients_leave_out_its_patient(
    store: SlideStore, tmp_path: Path
) -> None:
    result = search(store, like=2, num_hits=99, load=never)
    assert {hit.row for hit in result.hits} == {3, 4}
    mean = unit(store.read(KEYS[0]).features_ND.mean(axis=0, dtype=np.float64))
    expected = np.sort(vectors_of(store)[9:] @ mean)[::-1]
    assert [hit.score for hit in result.hits] == pytest.approx(expected.tolist(), abs=2e-6)
    for name in ("2", KEYS[0], store.rows[1].file):
        assert search(store, like=name, num_hits=99, load=never).hits == result.hits
    assert {hit.row for hit in search(store, like=2, num_hits=99, other_patients=True, load=never).hits} == {4}
    (tmp_path / "copy.tiff").write_bytes(b"a slide")
    rows = [*store.rows]
    rows[1] = replace(rows[1], sha256=hashlib.sha256(b"a slide").hexdigest())
    known = replace(store, rows=tuple(rows))
    assert search(known, like=tmp_path / "copy.tiff", num_hits=99, load=never).hits == result.hits


@pytest.mark.parametrize("like", ["9", "1", f"{KEYS[0]}@9000,9000", f"{'9' * 16}@0,0"])
def test_a_slide_without_vectors_and_a_place_without_a_patch_are_refused(store: SlideStore, like: str) -> None:
    with pytest.raises(MedclipError) as caught:
        search(store, like=like, load=never)
    assert caught.value.reason is Reason.WRONG_USE


def test_conditions_are_of_the_columns_of_slides(store: SlideStore) -> None:
    result = search(store, "tumour", where=["patient=A", "tissue_share>0.15"], num_hits=99)
    assert ({hit.row for hit in result.hits}, result.num_searched, result.num_left_out) == ({3}, 6, 21)
    with pytest.raises(MedclipError, match=r"no slide of this folder has tissue_share>0\.9") as caught:
        search(store, "tumour", where="tissue_share>0.9")
    assert caught.value.reason is Reason.NOTHING_TO_DO
    with pytest.raises(MedclipError, match="no patch is left") as caught:  # its row has no vectors
        search(store, "tumour", where="status=skipped")
    assert caught.value.reason is Reason.NOTHING_TO_DO
    with pytest.raises(MedclipError, match="no column 'modality'"):
        search(store, "tumour", where="modality=ct")


def test_the_raw_file_of_vectors_is_made_once_and_anew_where_the_store_has_changed(tmp_path: Path) -> None:
    folder = write_slide_store(tmp_path / "s", [make_slide_features("1" * 16), make_slide_features("2" * 16)])
    search(open_slide_store(folder), "tumour")
    (made,) = (folder / FOLDER).iterdir()
    before = made.stat().st_mtime_ns
    search(open_slide_store(folder), "tumour")
    assert made.stat().st_mtime_ns == before
    write_slide_store(folder, [make_slide_features("1" * 16)])
    assert search(open_slide_store(folder), "tumour").num_searched == 9
    (anew,) = (folder / FOLDER).iterdir()
    assert anew.name != made.name


def test_a_search_holds_places_and_some_vectors_and_never_all_of_a_slide(tmp_path: Path) -> None:
    num, dim = 60_000, 64
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((num, dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    places = np.stack(np.divmod(np.arange(num), 300), axis=1) * 128.0
    ones = np.ones(num, np.float32)
    features = replace(
        make_slide_features(KEYS[0]),
        features_ND=vectors,
        corners_um_N2=places,
        coverage_N=ones,
        slide_size_um=(26e3, 39e3),
    )
    folder = write_slide_store(tmp_path / "s", [features])
    num_bytes = vectors.nbytes
    del vectors, features
    assert len(open_slide_store(folder)) == 1  # what imports take does not count
    tracemalloc.start()
    try:
        result = run_patch_search(
            open_slide_store(folder), Question(like=(f"{KEYS[0]}@0,0",)), never, Search(num_hits=3)
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.num_searched == num - 1
    assert peak < num_bytes / 2


def test_float16_vectors_are_searched_as_well(tmp_path: Path) -> None:
    whole = make_slide_features("1" * 16)
    half = replace(whole, features_ND=whole.features_ND.astype(np.float16))
    result = search(open_slide_store(write_slide_store(tmp_path / "s", [half])), "tumour", num_hits=9)
    cosines = half.features_ND.astype(np.float32) @ WordModel().encode_text(["tumour"])[0]
    assert [hit.score for hit in result.hits] == pytest.approx(np.sort(cosines)[::-1].tolist(), abs=2e-6)


def test_a_store_whose_slides_all_lack_vectors_has_nothing_to_search_in(tmp_path: Path) -> None:
    folder = write_slide_store(tmp_path / "s", [make_slide_features()])
    write_slide_rows(folder / SLIDES, [GLASS])
    with pytest.raises(MedclipError, match="nothing to search in") as caught:
        search(open_slide_store(folder), "tumour")
    assert caught.value.reason is Reason.NOTHING_TO_DO


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Slides, their store and its pack; one slide states no scale."""
    folder = tmp_path_factory.mktemp("embedded")
    pack = make_pathology_pack(folder / "pack")
    (folder / "slides").mkdir()
    write_pyramid(folder / "slides" / "a.tiff", draw_section())
    write_pyramid(folder / "slides" / "b.tiff", draw_section(1400, 1700), mpp=None)
    (folder / "table.csv").write_text("file,patient,mpp_um\na.tiff,P1,\nb.tiff,P2,0.5\n")
    medclip.slides.embed(folder / "slides", folder / "store", model=pack, table=folder / "table.csv", settings=SETTINGS)
    return folder / "slides", folder / "store", pack


def test_small_images_are_the_patches_where_the_slides_lie_and_none_elsewhere(
    embedded: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    slides, folder, pack = embedded
    result = medclip.search(folder, "a tumour", model=pack, images=slides, settings=SETTINGS)
    assert {hit.row for hit in result.hits} == {1, 2}
    for hit in patches(result):
        ((_, body),) = result.thumbnails(hit)
        name = "a.tiff" if hit.row == 1 else "b.tiff"
        settings = SETTINGS if hit.row == 1 else replace(SETTINGS, policy=replace(SETTINGS.policy, mpp_um=0.5))
        with open_slide(slides / name, settings) as reader:
            pixels = reader.read(hit.top_um, hit.left_um, 256, 256, 0.5)
        shown = np.asarray(Image.open(io.BytesIO(body or b"")), np.float32)
        assert np.abs(shown - pixels).mean() < 6  # JPEG
    page = render(result)
    assert page.count("data:image/jpeg") == len(result.hits)
    assert patches(result)[0].name in page
    assert "a.tiff" not in page
    assert "data:image/jpeg" in result._repr_html_()
    for images in (None, tmp_path):
        bare = replace(result, images=images)
        assert [bare.thumbnails(hit) for hit in bare.hits] == [[(hit.row, b"")] for hit in bare.hits]
        assert "The slide is not at hand" in render(bare)


def test_an_image_file_from_elsewhere_is_an_example(embedded: tuple[Path, Path, Path], tmp_path: Path) -> None:
    slides, folder, pack = embedded
    with open_slide(slides / "a.tiff") as reader:
        pixels = reader.read(256, 256, 256, 256, 0.5)
    Image.fromarray(pixels).save(tmp_path / "patch.png")
    model = load_model(pack)
    result = medclip.search(folder, like=tmp_path / "patch.png", model=model, num_hits=1, settings=SETTINGS)
    first = patches(result)[0]
    assert (first.row, first.top_um, first.left_um) == (1, 256, 256)
    assert first.like == pytest.approx(1, abs=0.02)
    assert result.like == ("an image from elsewhere",)
    store = open_slide_store(folder)
    recoloured = replace(store, run={**store.run, "stain": "hed"})
    again = medclip.search(recoloured, like=tmp_path / "patch.png", model=model, num_hits=1, settings=SETTINGS)
    assert [note for note in again.notes if "made alike (hed)" in note]
    assert not [note for note in result.notes if "made alike" in note]


def test_another_pack_a_level_and_captions_are_refused(embedded: tuple[Path, Path, Path]) -> None:
    _, folder, pack = embedded
    wrongs: list[dict[str, Any]] = [{"level": "unit"}, {"where": "view=PA"}]
    for wrong in wrongs:
        with pytest.raises(MedclipError) as caught:
            medclip.search(folder, "a tumour", model=pack, **wrong)
        assert caught.value.reason is Reason.WRONG_USE
    with pytest.raises(MedclipError, match="another pack") as caught:
        medclip.search(folder, "a tumour", model="medclip-mini")
    assert caught.value.reason is Reason.WRONG_USE
    with pytest.raises(MedclipError, match="leave the slides out"):
        medclip.rank_captions(["a tumour"], embeddings=folder, like="x.png", model=pack)


def test_verbs_that_take_images_refuse_vectors_of_slides_and_say_who_takes_them(
    embedded: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    _, folder, pack = embedded
    calls: list[Callable[[], Any]] = [
        lambda: medclip.score(folder, tmp_path / "o", model=pack, prompt="x"),
        lambda: medclip.embed(folder, tmp_path / "o", model=pack),
        lambda: medclip.evaluate(folder, model=pack),
        lambda: medclip.evaluate(tmp_path, model=pack, images=folder),
        lambda: folder_of(folder),
    ]
    for call in calls:
        with pytest.raises(MedclipError, match="medclip slides predict") as caught:
            call()
        assert caught.value.reason is Reason.WRONG_USE
    assert not (tmp_path / "o").exists()
    (tmp_path / SLIDES).write_bytes(b"a table of somebody's own")
    assert folder_of(tmp_path) == tmp_path
