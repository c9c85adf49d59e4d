"""Search over embeddings made by code: a model whose words are known vectors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medclip.embeddings.open_embeddings import Embeddings, open_embeddings
from medclip.errors import MedclipError, Reason
from medclip.retrieval.folder_search import run_search
from medclip.retrieval.hits import SearchResult
from medclip.retrieval.question import Search, read_conditions, read_question
from tests.kits.embeddings import make_units, unit_vectors, write_store

DIM = 8


class WordModel:
    """A model whose words are unit vectors drawn by their letters."""

    name = "tiny"
    tokenizer = SimpleNamespace(
        context_length=12,
        pad_id=0,
        eos_id=1,
        vocab_size=50_000,
        decode=lambda ids: "word",
        encode=lambda texts: np.array([([2] * min(11, len(t.split())) + [1] + [0] * 12)[:12] for t in texts]),
    )

    def encode_text(self, texts: list[str]) -> np.ndarray:
        return np.concatenate([unit_vectors(np.random.default_rng(list(t.encode())), 1, DIM) for t in texts])


def never() -> Any:
    raise AssertionError("the model was loaded")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Embeddings:
    units = []
    for n, unit in enumerate(make_units(60, DIM)):
        sex = "F" if n % 2 else "M"
        headers = json.dumps({"sex": sex, "age_years": 20 + n, "image_type": ["ORIGINAL", "PRIMARY"]})
        units.append(
            replace(
                unit,
                modality="ct" if n % 3 == 0 else "xray",
                headers=headers,
                burned_in=n == 7,
                view="PA" if n % 3 else None,
            )
        )
    thumbnails = [(unit.row, b"\xff\xd8 of %d" % unit.row) for unit in units if not unit.burned_in]
    return open_embeddings(write_store(tmp_path_factory.mktemp("e") / "e", units, thumbnails=thumbnails))


def search(store: Embeddings, words: Any = (), *, not_: Any = (), like: Any = None, where: Any = (), **options: Any):
    question = read_question(words, not_, like)
    load = options.pop("load", WordModel)
    level = options.pop("level", "studies")
    return run_search(store, question, load, Search(read_conditions(where), **options), level=level)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("level", ["views", "units", "studies"])
def test_words_rank_by_the_cosine_with_the_mean_of_their_phrasings(store: Embeddings, level: Any) -> None:
    result = search(store, "effusion | fluid in the pleura", level=level, num_hits=5)
    single = WordModel().encode_text(["effusion", "fluid in the pleura"])
    cosines = store.vectors(level) @ unit(single.mean(axis=0))
    order = np.argsort(-cosines, kind="stable")[:5]
    rows = getattr(store, level).column("row").to_numpy()[order]
    assert [hit.row for hit in result.hits] == rows.tolist()
    assert [hit.score for hit in result.hits] == pytest.approx(cosines[order].tolist(), abs=2e-6)
    assert [hit.words for hit in result.hits] == pytest.approx(cosines[order].tolist(), abs=2e-6)
    z = (cosines[order] - cosines.mean()) / cosines.std()
    assert [hit.z for hit in result.hits] == pytest.approx(z.tolist(), abs=1e-4)
    spread = (store.vectors(level)[order] @ single.T).std(axis=1, ddof=1)
    assert [hit.spread for hit in result.hits] == pytest.approx(spread.tolist(), abs=1e-5)
    assert result.num_searched == len(cosines)


def test_what_is_not_looked_for_is_taken_off(store: Embeddings) -> None:
    result = search(store, "effusion", not_=["pacemaker", "tube"], level="units", num_hits=60)
    plus, minus = (WordModel().encode_text(texts) for texts in (["effusion"], ["pacemaker", "tube"]))
    scores = store.vectors("units") @ (plus[0] - unit(minus.mean(axis=0)))
    assert [hit.score for hit in result.hits] == pytest.approx(np.sort(scores)[::-1].tolist(), abs=3e-6)
    first = result.hits[0]
    assert first.words is not None
    assert first.without is not None
    assert first.score == pytest.approx(first.words - first.without, abs=3e-6)
    assert first.spread is None


def test_an_example_of_the_folder_is_known_by_its_number_and_left_out(store: Embeddings) -> None:
    units = store.vectors("units")
    result = search(store, like=5, level="units", num_hits=3, load=never)
    cosines = units @ units[4]
    cosines[4] = -2
    assert [hit.row for hit in result.hits] == (np.argsort(-cosines)[:3] + 1).tolist()
    assert result.num_left_out == 1
    assert result.like == ("file 5 (PNG)",)
    itself = search(store, like="5", level="units", num_hits=1, include_example=True, load=never)
    assert (itself.hits[0].row, itself.hits[0].like) == (5, pytest.approx(1, abs=1e-5))
    assert all(hit.row != 5 for hit in search(store, like=5, level="views", num_hits=200, load=never).hits)


def test_at_the_level_of_studies_the_study_of_the_example_is_left_out_and_its_patient_when_asked(
    store: Embeddings,
) -> None:
    own = store.units.to_pylist()[4]
    studies = search(store, like=5, num_hits=100, load=never)
    assert own["study"] not in {hit.study for hit in studies.hits}
    assert own["patient"] in {hit.patient for hit in studies.hits}
    others = search(store, like=5, num_hits=100, other_patients=True, load=never)
    assert own["patient"] not in {hit.patient for hit in others.hits}
    assert others.num_left_out > studies.num_left_out


def test_words_and_an_example_weigh_alike_after_their_own_spread(store: Embeddings) -> None:
    units, text = store.vectors("units"), WordModel().encode_text(["effusion"])[0]
    result = search(store, "effusion", like=5, level="units", num_hits=60)
    keep = np.arange(60) != 4
    a, b = units[keep] @ text, units[keep] @ units[4]
    expected = 0.5 * ((a - a.mean()) / a.std() + (b - b.mean()) / b.std())
    assert [hit.score for hit in result.hits] == pytest.approx(np.sort(expected)[::-1].tolist(), abs=1e-4)
    assert result.mean == pytest.approx(0, abs=1e-5)


def test_conditions_choose_units_and_the_studies_that_have_one(store: Embeddings) -> None:
    units = store.units.to_pylist()
    wanted = {u["row"] for u in units if u["modality"] == "ct" and json.loads(u["headers"])["age_years"] >= 50}
    where = ["modality=CT", "age_years>=50"]
    assert {hit.row for hit in search(store, "x", where=where, level="units", num_hits=99).hits} == wanted
    studies = {u["study"] for u in units if u["row"] in wanted}
    assert {hit.study for hit in search(store, "x", where=where, num_hits=99).hits} == studies
    either = search(store, "x", where={"modality": ["ct", "xray"], "sex": "f"}, level="units", num_hits=99)
    assert either.num_searched == 30
    assert search(store, "x", where="image_type=PRIMARY", level="units").num_searched == 60
    assert search(store, "x", where="view=", level="units").num_searched == 20


@pytest.mark.parametrize(
    ("where", "reason", "message"),
    [
        ("modalty=ct", Reason.WRONG_USE, "Did you mean 'modality'"),
        ("ct", Reason.WRONG_USE, "no condition"),
        ("modality=mri", Reason.NOTHING_TO_DO, "Values of modality are: ct, xray"),
        (["modality!=ct", "modality!=xray"], Reason.NOTHING_TO_DO, "has modality!=ct and modality!=xray."),
        (["modality=mri", "modality=us"], Reason.NOTHING_TO_DO, "has modality=mri or modality=us."),
        (["modality=ct", "view=PA"], Reason.NOTHING_TO_DO, "not all for one"),
        ("field_strength_t>1", Reason.NOTHING_TO_DO, "states no field_strength_t"),
    ],
)
def test_conditions_that_leave_nothing_say_why(store: Embeddings, where: Any, reason: Reason, message: str) -> None:
    with pytest.raises(MedclipError) as e:
        search(store, "x", where=where)
    assert e.value.reason is reason
    assert message in f"{e.value} {e.value.hint}"


def test_a_question_without_words_or_example_is_refused(store: Embeddings) -> None:
    for words in ((), "a | ", [" "]):
        with pytest.raises(MedclipError) as e:
            search(store, words)
        assert e.value.reason is Reason.WRONG_USE
    with pytest.raises(MedclipError, match="nothing to look for"):
        search(store, not_="tube")
    with pytest.raises(MedclipError, match="has the number 999"):
        search(store, like=999)


def test_a_text_longer_than_the_context_is_cut_and_that_is_said(store: Embeddings) -> None:
    notes = " ".join(search(store, "word " * 400).notes)
    assert "has 400 words; the model reads the first 11" in notes
    assert not any("reads the first" in note for note in search(store, "a short text").notes)


def test_only_equal_scores_are_said_to_have_no_order(store: Embeddings, tmp_path: Path) -> None:
    near = [
        *make_units(99, DIM),
        replace(
            make_units(1, DIM)[0], row=100, study="odd", sha256="odd", features=WordModel().encode_text(["effusion"])
        ),
    ]
    alike = np.tile(-near[-1].features, (99, 1)) + 0.05 * unit_vectors(np.random.default_rng(0), 99, DIM)
    units = [replace(u, features=alike[n : n + 1]) for n, u in enumerate(near[:-1])]
    odd = search(open_embeddings(write_store(tmp_path / "odd", [*units, near[-1]])), "effusion", level="units")
    assert odd.hits[0].row == 100
    assert odd.notes == ()
    same = open_embeddings(write_store(tmp_path / "same", [replace(u, features=alike[:1]) for u in near]))
    assert "order says nothing" in " ".join(search(same, "effusion").notes)


def test_files_are_named_by_number_unless_paths_are_asked_for(store: Embeddings) -> None:
    assert search(store, "x").hits[0].file.startswith("file ")
    assert search(store, "x", report_paths=True).hits[0].file.endswith(".png")


def test_a_result_shows_itself_and_holds_back_images_with_burned_in_text(store: Embeddings) -> None:
    result = search(store, "x", level="units", num_hits=60)
    assert len(repr(result).splitlines()) < 10
    images = dict(pair for hit in result.hits for pair in result.thumbnails(hit))
    assert images[8] is None
    assert images[9] == b"\xff\xd8 of 9"
    html = result._repr_html_()
    assert html.count("<img") + html.count("Withheld") == 12
    assert "no probabilities" in html
    assert len(result.to_pandas()) == 60
    assert json.loads(result.to_json())["hits"][0]["rank"] == 1


def test_a_data_frame_has_the_same_types_whatever_was_asked(store: Embeddings) -> None:
    frames = [search(store, "x").to_pandas(), search(store, like=3, level="views").to_pandas()]
    frames.append(search(store, "x | y", not_="z", where="view=", level="units").to_pandas())
    types = [frame.dtypes.astype(str).to_dict() for frame in frames]
    assert types[0] == types[1] == types[2]
    assert {types[0][name] for name in ("z", "words", "spread", "without", "like")} == {"float64"}
    assert "object" not in {types[0][name] for name in ("patient", "view", "laterality", "body_part", "image")}
    html = search(store, "x")._repr_html_()
    assert "<th>words</th>" in html
    assert "<th>without</th>" not in html


def test_hits_are_written_as_tables_and_nothing_else(store: Embeddings, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    result = search(store, "x", num_hits=3)
    assert pq.read_table(result.write(tmp_path / "hits.parquet")).num_rows == 3
    assert len((result.write(tmp_path / "hits.csv")).read_text().splitlines()) == 4
    with pytest.raises(MedclipError, match=r"\.parquet or \.csv"):
        result.write(tmp_path / "hits.xlsx")


def test_the_raw_file_is_made_once_and_anew_where_the_store_is_another(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "e", make_units(10, DIM))
    first = search(open_embeddings(folder), "x", level="units")
    (raw,) = (folder / "search").iterdir()
    assert raw.stat().st_mode & 0o777 == 0o600
    written = raw.stat().st_mtime_ns
    again = search(open_embeddings(folder), "x", level="units")
    assert raw.stat().st_mtime_ns == written
    assert again.hits == first.hits
    raw.write_bytes(raw.read_bytes()[:-8])  # cut short: made anew
    assert search(open_embeddings(folder), "x", level="units").hits == first.hits
    write_store(folder, make_units(12, DIM, seed=1))
    assert search(open_embeddings(folder), "x", level="units").num_searched == 12
    (other,) = (folder / "search").iterdir()
    assert other.name != raw.name


def test_where_nothing_can_be_written_the_search_is_the_same(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "e", make_units(10, DIM))
    (folder / "search").write_text("a file in the way")
    result = search(open_embeddings(folder), "x", level="units")
    assert isinstance(result, SearchResult)
    assert result.num_searched == 10


def test_embeddings_without_a_vector_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MedclipError) as e:
        search(open_embeddings(write_store(tmp_path / "e", [])), "x")
    assert e.value.reason is Reason.NOTHING_TO_DO
