"""An approximate index: what it finds, what it says of itself, and what is said without faiss."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import medclip
from medclip.embeddings.open_embeddings import open_embeddings
from medclip.errors import MedclipError, Reason
from medclip.progress import Silent
from medclip.retrieval.searchable import check_faiss, open_index, open_searchable
from medclip.retrieval.top_rows import top_rows
from tests.kits.embeddings import make_units, write_store
from tests.retrieval.test_folder_search import DIM, search

check_faiss()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("e") / "e", make_units(4000, DIM))


def test_the_index_finds_what_it_says_and_scores_it_exactly(folder: Path) -> None:
    opened = open_embeddings(folder)
    searched = open_searchable(opened, "units", Silent())
    index = open_index(opened.folder, searched, Silent())
    assert 0.95 <= index.recall <= 1
    assert index.num_probed < 63
    queries = searched.vectors.rows(np.arange(7, 4000, 40))
    wanted = np.arange(4000) % 2 == 1
    exact = top_rows(searched.vectors, queries, 10, wanted=wanted)
    near = index.top_rows(searched.vectors, queries, 10, wanted=wanted)
    shares = [len(np.intersect1d(a, b)) / 10 for a, b in zip(near.rows, exact.rows, strict=True)]
    assert np.mean(shares) > 0.9
    assert wanted[near.rows].all()
    of = dict(zip(exact.rows[0].tolist(), exact.scores[0].tolist(), strict=True))
    assert all(of[row] == score for row, score in zip(near.rows[0], near.scores[0], strict=True) if row in of)
    assert near.mean == pytest.approx(exact.mean, abs=1e-6)


def test_a_search_with_the_index_says_its_recall_and_keeps_it_beside_the_vectors(folder: Path) -> None:
    near = search(open_embeddings(folder), "effusion", like=3, level="units", num_hits=20, index="faiss")
    exact = search(open_embeddings(folder), "effusion", like=3, level="units", num_hits=20)
    assert near.engine == "faiss"
    assert "of the 10 best that the exact search finds" in near.notes[0]
    assert len({hit.row for hit in near.hits} & {hit.row for hit in exact.hits}) >= 15
    kept = sorted(path.name for path in (folder / "search").iterdir() if ".faiss" in path.name)
    assert len(kept) == 2
    times = {name: (folder / "search" / name).stat().st_mtime_ns for name in kept}
    assert (
        search(open_embeddings(folder), "effusion", like=3, level="units", num_hits=20, index="faiss").hits == near.hits
    )
    assert times == {name: (folder / "search" / name).stat().st_mtime_ns for name in kept}
    (folder / "search" / kept[0]).write_bytes(b"cut short")
    assert (
        search(open_embeddings(folder), "effusion", like=3, level="units", num_hits=20, index="faiss").hits == near.hits
    )


def test_where_the_lists_that_were_looked_at_hold_nothing_wanted_the_search_is_exact(folder: Path) -> None:
    where = "row=17"
    near = search(open_embeddings(folder), "effusion", level="units", where=where, index="faiss")
    assert [hit.row for hit in near.hits] == [17]


def test_a_folder_of_a_few_images_is_indexed_without_a_word_of_faiss(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    few = open_embeddings(write_store(tmp_path / "few", make_units(5, DIM)))
    assert len(search(few, "effusion", level="units", index="faiss").hits) == 5
    assert capfd.readouterr() == ("", "")


def test_without_faiss_the_line_that_installs_it_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = open_embeddings(write_store(tmp_path / "few", make_units(5, DIM)))
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MedclipError, match="needs faiss") as e:
        medclip.search(few, "effusion", index="faiss")
    assert e.value.hint == "Run: pip install 'medclip-imaging[search]'"
    with pytest.raises(MedclipError, match="index is one of exact and faiss, not 'lancedb'") as e:
        medclip.search(few, "effusion", index="lancedb")
    assert e.value.reason is Reason.WRONG_USE
