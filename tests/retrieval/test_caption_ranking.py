"""Sentences ranked for an image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.progress import Progress
from medclip.retrieval.caption_ranking import CaptionRanking, rank_captions, read_captions
from medclip.retrieval.hits import write_hits
from tests.retrieval.test_folder_search import WordModel

TEXTS = ["a chest film", "a fundus", "", "a fundus", "an ECG"]


class Model(WordModel):
    """A model to which an image is the vector of its file's name."""

    def embed_images(self, paths: list[Path], **_: object) -> np.ndarray:
        return self.encode_text([path.stem.replace("_", " ") for path in paths])

    def embed_text(self, texts: list[str], progress: Progress) -> np.ndarray:
        return self.encode_text(texts)


def rank(captions: list[str], image: Path, **options: object) -> CaptionRanking:
    image.touch()
    return rank_captions(captions, [image], Model, **options)  # type: ignore[arg-type]


def test_captions_are_ranked_by_their_cosine_and_equal_ones_are_one(tmp_path: Path) -> None:
    ranking = rank(TEXTS, tmp_path / "a_fundus.png")
    assert (ranking.hits[0].caption, ranking.hits[0].row, ranking.hits[0].score) == ("a fundus", 2, 1.0)
    texts = ["a chest film", "a fundus", "an ECG"]
    cosines = Model().encode_text(texts) @ Model().encode_text(["a fundus"])[0]
    assert [hit.caption for hit in ranking.hits] == [texts[n] for n in np.argsort(-cosines)]
    assert (ranking.num_captions, ranking.mean) == (3, pytest.approx(cosines.mean(), abs=1e-6))
    assert len(rank(TEXTS, tmp_path / "a_fundus.png", num_hits=1).hits) == 1


def test_captions_that_are_cut_are_counted(tmp_path: Path) -> None:
    notes = rank([*TEXTS, "word " * 40, "other " * 12], tmp_path / "a_fundus.png").notes
    assert notes[0] == "2 of 5 captions are longer than the model reads: the first words count alone."
    assert not any("longer" in note for note in rank([*TEXTS, "word " * 11], tmp_path / "a_fundus.png").notes)


def test_a_ranking_shows_itself_and_is_written(tmp_path: Path) -> None:
    ranking = rank(TEXTS, tmp_path / "a_fundus.png")
    assert "a fundus" in repr(ranking)
    assert json.loads(ranking.to_json())["hits"][0]["caption"] == "a fundus"
    assert (
        write_hits(tmp_path / "r.csv", ranking.table).read_text().splitlines()[0]
        == '"rank","row","caption","score","z"'
    )
    assert len(ranking.to_pandas()) == 3


def test_captions_are_read_from_lists_lines_and_tables(tmp_path: Path) -> None:
    lines, table, one = tmp_path / "c.txt", tmp_path / "c.csv", tmp_path / "one.csv"
    lines.write_text("a  b\n\nc\n")
    table.write_text("file,text\nx.png,a b\ny.png,c\n")
    one.write_text("words\na b\nc\n")
    assert read_captions(["a b", "c"]) == read_captions(table) == read_captions(one) == ["a b", "c"]
    assert read_captions(lines) == ["a b", "", "c"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("c.csv", "file,label\na.png,1\n", Reason.TABLE_INVALID),
        ("c.txt", "\n \n", Reason.NOTHING_TO_DO),
        ("missing.txt", None, Reason.MISSING_FILE),
        ("missing.csv", None, Reason.MISSING_FILE),
    ],
)
def test_where_there_are_no_captions_that_is_said(tmp_path: Path, name: str, text: str | None, reason: Reason) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(MedclipError) as e:
        read_captions(tmp_path / name)
    assert e.value.reason is reason
