"""`medclip search`: what is printed and written, and what is refused."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import medclip
from medclip.cli.main import main
from medclip.embeddings.embedded_unit import EmbeddingPack
from medclip.embeddings.open_embeddings import open_embeddings
from medclip.embeddings.write_embeddings import begin_embeddings
from medclip.errors import MedclipError, Reason
from medclip.models.packs.manifest import pack_digest
from medclip.models.packs.pack import load_model
from tests.kits.embeddings import make_units, write_store
from tests.kits.image_only import image_only_pack
from tests.kits.scoring import make_pack, write_png

WORDS = "an X-ray image | a chest film"


def store_of(folder: Path, pack: Path, dim: int, images: list[Path] | None = None) -> Path:
    """Write embeddings of a pack: units of noise, or of images."""
    units = make_units(20, dim)
    if images is not None:
        vectors = load_model(pack).embed_images(images, modality="xray")
        hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in images]
        units = [
            replace(unit, features=vectors[n : n + 1], sha256=hashes[n])
            for n, unit in enumerate(make_units(len(images), dim))
        ]
    named = EmbeddingPack(pack.name, "1", pack_digest(pack), "t" * 64, "p" * 16)
    return write_store(folder, units, named, dim=dim)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    return [write_png(folder / f"{n}.png", n) for n in range(8)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, pack: Path, images: list[Path]) -> Path:
    return store_of(tmp_path_factory.mktemp("e") / "e", pack, 32, images)


def run(*words: object) -> int:
    return main(["search", *map(str, words)])


def test_hits_are_a_table_with_what_must_be_known_of_it(
    store: Path, pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(store, "an X-ray image", "a chest film", "--model", pack, "--level", "unit") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "8 hits among 8 units."
    assert "± phrasings" in lines[1]
    assert lines[2].startswith("1 ")
    assert "no probabilities" in lines[-1]
    assert not any(f"{n}.png" in line for n in range(8) for line in lines)


def test_json_and_tables_and_the_page_hold_the_same_hits(
    store: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, page = tmp_path / "hits.parquet", tmp_path / "hits.html"
    assert run(store, WORDS, "--model", pack, "--num-hits", 3, "--json", "--out", table, "--html", page) == 0
    printed = capsys.readouterr()
    values = json.loads(printed.out)
    assert printed.err == ""
    assert [hit["row"] for hit in values["hits"]] == pq.read_table(table).column("row").to_pylist()
    assert page.read_text().count('<li id="hit-') == 3
    assert {path.stat().st_mode & 0o777 for path in (table, page)} == {0o600}
    before = page.read_bytes()
    assert run(store, WORDS, "--model", pack, "--html", page) == 2
    assert page.read_bytes() == before
    assert run(store, WORDS, "--model", pack, "--num-hits", 3, "--html", page, "--overwrite") == 0
    assert page.read_bytes() == before


def test_a_recipe_asks_what_the_command_line_may_override(
    store: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, table = tmp_path / "recipe.yaml", tmp_path / "hits.csv"
    recipe.write_text(
        f"embeddings: {store}\nwords: [an X-ray image, a chest film]\nagainst: [a mammogram]\nmodel: {pack}\n"
        f"level: unit\nnum_hits: 5\nwhere: modality=xray\nout: {table}\n"
    )
    assert main(["search", "--recipe", str(recipe), "--num-hits", "2"]) == 0
    assert f"Written: {table}" in capsys.readouterr().out
    assert len(table.read_text().splitlines()) == 3
    result = medclip.search(recipe=recipe, overwrite=True)  # pyright: ignore[reportCallIssue] (the recipe has the folder)
    assert (len(result.hits), result.words) == (5, ("an X-ray image", "a chest film"))
    recipe.write_text(f"embeddings: {store}\nwords: film\ntop: 5\n")
    assert main(["search", "--recipe", str(recipe)]) == 2
    assert "'top' is no option of this" in capsys.readouterr().err


def test_an_image_from_elsewhere_is_read_and_one_of_the_folder_is_known(
    store: Path, pack: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(store, "--like", images[3], "--level", "unit", "--json") == 0  # by its hash; no pack is looked for
    known = json.loads(capsys.readouterr().out)
    assert 4 not in {hit["row"] for hit in known["hits"]}
    other = tmp_path / "other.png"
    other.write_bytes(images[3].read_bytes() + b"\0")  # the same pixels in another file
    asked = ["--like", other, "--level", "unit", "--json", "--model", pack, "--modality", "xray"]
    assert run(store, *asked) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["hits"][0]["row"], answer["like"]) == (4, ["an image from elsewhere"])
    assert answer["hits"][0]["score"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "--num-hits", "0"], "Invalid value for '--num-hits'"),
        ([], "nothing to look for"),
        (["a", "--level", "patient"], "cannot be ranked"),
        (["a", "--where", "modalty=ct"], "Did you mean 'modality'"),
        (["--like", "2", "--where", "modality=ct"], "Values of modality are: xray"),
        (["--like", "nowhere.png"], "no such file"),
        (["a", "--out", "hits.txt"], ".parquet or .csv"),
        (["a"], "is not built in"),
        (["a", "--model", "medclip-mini"], "another pack"),
    ],
)
def test_what_cannot_be_searched_for_is_one_sentence(
    store: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(store, *words) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


def test_what_the_pack_never_learned_is_said_of_the_question_and_of_the_hits(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    units = [replace(unit, modality="ct" if unit.study == "study0" else "xray") for unit in make_units(6, 32)]
    named = EmbeddingPack(pack.name, "1", pack_digest(pack), "t" * 64, "p" * 16)
    folder = write_store(tmp_path / "e", units, named, dim=32)
    assert run(folder, "a CT of the chest", "--level", "unit", "--model", pack) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("Not learned: 2 hits of CT: the model was trained on") for line in lines) == 1
    beyond = "Not learned: 4 hits of X-ray: the prompt speaks of CT, and the model was trained on"
    assert sum(line.startswith(beyond) for line in lines) == 1
    assert run(folder, "a CT of the chest", "--level", "unit", "--model", pack, "--json") == 0
    of_hits = {hit["modality"]: hit["caution"] for hit in json.loads(capsys.readouterr().out)["hits"]}
    assert of_hits["ct"].startswith("Not learned: the model was trained on ")
    assert of_hits["xray"].startswith("Not learned: the prompt speaks of CT")
    assert run(folder, "effusion", "--where", "modality=xray", "--model", pack) == 0
    assert "was trained on" not in capsys.readouterr().out
    assert run(folder, "--like", 4, "--model", pack) == 0  # no words, which it would have to know
    assert "was trained on" not in capsys.readouterr().out


def test_hits_for_words_that_nobody_measured_on_such_images_are_grey_and_say_why_as_a_score_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, figure = "chest_xray_findings", {"value": 0.86, "low": 0.78, "high": 0.92, "num_patients": 118}
    only = {"verdict": "within its source only", "sources": ["nih_cxr"], "figures": {"within nih_cxr": figure}}
    own = {"classes": ["pneumonia"], "sources": {"pneumonia": only}, "metrics": {"auroc": {"zero_shot": figure}}}
    tasks = {"modality": {"classes": ["xray", "mri"]}, task: own}
    pack = make_pack(tmp_path / "pack", tasks=tasks)
    units = [replace(unit, modality="mri" if unit.study == "study0" else "xray") for unit in make_units(6, 32)]
    folder = write_store(tmp_path / "e", units, EmbeddingPack("t", "1", pack_digest(pack), "t" * 64, "p" * 16), dim=32)
    within = "within its source only (nih_cxr)"
    elsewhere = "the model’s card has figures of this for X-ray images, not for MRI"
    table, page = tmp_path / "hits.csv", tmp_path / "hits.html"
    asked = ["signs of pneumonia", "--level", "unit", "--model", pack]
    assert run(folder, *asked, "--out", table, "--html", page) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Not learned: 2 hits of MRI: {elsewhere}." in printed
    assert f"holds {within}: AUROC 0.86 (0.78 to 0.92) within nih_cxr, 118 patients. Elsewhere" in printed
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert {(row["modality"], row["caution"]) for row in rows} == {
        ("mri", f"Not learned: {elsewhere}"),
        ("xray", within),
    }
    hits = page.read_text().split('<li id="hit-')[1:]
    assert all('" class="quiet">' in hit and "<dt>Why grey</dt>" in hit for hit in hits)
    shown = medclip.search(folder, "signs of pneumonia", level="unit", model=pack)._repr_html_()
    assert shown.count('<tr style="color: #80868b">') == shown.count('<figcaption style="color: #80868b">') == 6

    other = [replace(unit, modality="fundus" if unit.row == 2 else unit.modality) for unit in units]
    mixed = write_store(tmp_path / "m", other, EmbeddingPack("t", "1", pack_digest(pack), "t" * 64, "p" * 16), dim=32)
    (note,) = [note for note in medclip.search(mixed, asked[0], level="unit", model=pack).notes if "figures" in note]
    assert note in (
        f"Not learned: 3 hits of {of}: the model’s card has figures of this for X-ray images, not for these."
        for of in ("MRI and fundus", "fundus and MRI")
    )

    # words that the model cannot know, and an example, which asks nothing in words
    for words, caution in (("qwrtzplkjhgfdx", "the model does not know “qwrtzplkjhgfdx”"), ("", None)):
        result = medclip.search(folder, words or (), like=None if words else 1, level="unit", model=pack)
        assert {hit.caution for hit in result.hits} == {caution and f"Not learned: {caution}"}
        assert [note for note in result.notes if "Not learned" in note] == (
            [f"Not learned: {caution}."] if caution else []
        )
        assert ("color: #80868b" in result._repr_html_()) is bool(caution)


def test_words_that_were_measured_leave_the_hits_as_they_are(tmp_path: Path) -> None:
    figure = {"value": 0.86, "low": 0.78, "high": 0.92}
    own = {"classes": ["pneumonia"], "metrics": {"auroc": {"pneumonia": {"zero_shot": figure}}}}
    pack = make_pack(tmp_path / "pack", tasks={"modality": {"classes": ["xray"]}, "chest_xray_findings": own})
    folder = write_store(
        tmp_path / "e", make_units(6, 32), EmbeddingPack("t", "1", pack_digest(pack), "t" * 64, "p" * 16), dim=32
    )
    result = medclip.search(folder, "signs of pneumonia", level="unit", where="modality=xray", model=pack)
    assert {hit.caution for hit in result.hits} == {None}
    assert not [note for note in result.notes if "learned" in note or "source" in note]


def test_a_folder_that_is_half_written_or_none_at_all_is_refused(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = store_of(tmp_path / "half", pack, 32)
    begin_embeddings(half)
    assert run(half, "a", "--model", pack) == 2
    assert "not complete" in capsys.readouterr().err
    assert run(tmp_path, "a") == 2
    assert "medclip embed" in capsys.readouterr().err


def test_an_image_only_pack_is_searched_by_example_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = image_only_pack(tmp_path / "tiles")
    folder = store_of(tmp_path / "e", pack, 16)
    assert run(folder, "tumour", "--model", pack) == 2
    assert "--like FILE" in capsys.readouterr().err
    assert run(folder, "--like", 3) == 0


def test_a_loaded_model_and_opened_embeddings_are_taken_as_they_are(store: Path, pack: Path) -> None:
    model, opened = load_model(pack), open_embeddings(store)
    first = medclip.search(opened, WORDS, model=model, level="unit")
    assert first.hits == medclip.search(store, WORDS, model=pack, level="unit").hits
    with pytest.raises(MedclipError) as e:
        medclip.search(opened, WORDS, model=load_model("medclip-mini"))
    assert e.value.reason is Reason.WRONG_USE


def test_a_search_by_number_needs_no_torch(store: Path) -> None:
    import subprocess

    code = "import sys; from medclip.cli.main import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "search", str(store), "--like", "2", "--json"]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0


def test_captions_are_ranked_for_an_image_with_and_without_a_folder(
    store: Path, pack: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = tmp_path / "c.txt"
    captions.write_text("an X-ray image\na fundus photograph\n")
    asked = [captions, "--like", images[0], "--model", pack]

    def rank(*words: object) -> int:
        return main(["captions", "rank", *map(str, words)])

    assert rank(*asked, "--modality", "xray", "--json") == 0
    without = json.loads(capsys.readouterr().out)
    assert rank(*asked, "--embeddings", store, "--json") == 0
    within = json.loads(capsys.readouterr().out)
    assert [hit["caption"] for hit in within["hits"]] == [hit["caption"] for hit in without["hits"]]
    assert rank(*asked, "--embeddings", store, "--out", tmp_path / "hits.csv") == 0
    assert "a fundus photograph" in capsys.readouterr().out
    assert [row["caption"] for row in csv.DictReader((tmp_path / "hits.csv").read_text().splitlines())] == [
        hit["caption"] for hit in within["hits"]
    ]
    assert rank(*asked, "--embeddings", store, "--out", tmp_path / "hits.csv") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert rank(captions, "--model", pack) == 2
    assert "by nothing else" in capsys.readouterr().err
    assert rank(*asked, "--embeddings", tmp_path) == 2
    assert rank() == 2
    assert run() == 2
