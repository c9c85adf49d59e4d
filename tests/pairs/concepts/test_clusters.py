"""Images are grouped, groups are labelled, images have the labels of their group, and a sample says how rightly."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

import medclip
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.pairs.concepts.cluster_labels import precision_of
from medclip.pairs.concepts.image_clusters import draw_members, read_clusters
from medclip.settings import Settings
from tests.kits.articles import article, figure, image, write_folder

NUM = 3
HEAD = "cluster,panel_type,panel_subtype,primary,secondary\n"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clusters")
    for n in range(4):
        body = "".join(figure(i, f"f{i}", f"<p>Figure {i}.</p>") for i in range(3))
        images = {f"f{i}.jpg": image(10 * n + i, height=30 + 60 * i, width=200 - 80 * i) for i in range(3)}
        write_folder(folder / "in" / f"p{n}", article(body, pmc=str(n + 1)), images)
    settings = Settings(workers=1, home=folder / "home")
    splits = {"train": 0.5, "test": 0.5}
    return medclip.pairs.from_articles(folder / "in", folder / "shards", settings=settings, splits=splits).folder


@pytest.fixture(scope="module")
def clusters(shards: Path) -> Path:
    return medclip.pairs.cluster(shards, shards.parent / "clusters", num_clusters=NUM, num_components=5, seed=1).folder


def _write(path: Path, *rows: str) -> Path:
    path.write_text(HEAD + "\n".join(rows) + "\n")
    return path


def test_every_image_of_every_split_is_in_one_cluster(shards: Path, clusters: Path) -> None:
    table = pq.read_table(clusters / "assignments.parquet")
    assert sorted(table["key"].to_pylist()) == sorted(pq.read_table(shards / "samples.parquet")["key"].to_pylist())
    facts, _ = read_clusters(clusters)
    assert np.bincount(table["cluster"].to_numpy(), minlength=NUM).tolist() == list(facts.sizes)
    assert sum(facts.sizes) == facts.num_images == 12
    arrays = load_file(clusters / "clusters.safetensors")
    assert arrays["centres"].shape == (NUM, 5)


def test_the_same_seed_gives_the_same_bytes(shards: Path, clusters: Path) -> None:
    again = medclip.pairs.cluster(shards, shards.parent / "again", num_clusters=NUM, num_components=5, seed=1).folder
    for path in clusters.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_page_shows_each_cluster_and_loads_nothing(clusters: Path) -> None:
    page = (clusters / "clusters.html").read_text()
    assert page.count('class="sheet"') == NUM
    assert page.count("data:image/jpeg") == 12
    assert "http" not in page.replace("http-equiv", "")
    assert len((clusters / "labels.csv").read_text().splitlines()) == NUM + 1


def test_more_clusters_than_images_are_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(MedclipError) as refused:
        medclip.pairs.cluster(shards, tmp_path / "out", num_clusters=13)
    assert refused.value.reason is Reason.WRONG_USE
    assert "13 clusters cannot be made of 12 images" in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_arrays_that_were_changed_are_refused(shards: Path, tmp_path: Path) -> None:
    folder = medclip.pairs.cluster(shards, tmp_path / "out", num_clusters=2).folder
    (folder / "clusters.safetensors").write_bytes(b"other")
    with pytest.raises(MedclipError) as refused:
        read_clusters(folder)
    assert refused.value.reason is Reason.TABLE_INVALID


def test_every_image_has_the_labels_of_its_cluster(clusters: Path, tmp_path: Path) -> None:
    terms = "clinical imaging; Microscopy", "eye"
    labels = _write(tmp_path / "labels.csv", f"1,single,single panel,{terms[0]},{terms[1]}", "2,,,,")
    report = medclip.pairs.label(clusters, labels, tmp_path / "out.parquet")
    sizes = read_clusters(clusters)[0].sizes
    assert (report.num_labelled, report.num_unlabelled) == (sizes[1], 2)
    for row in pq.read_table(report.out).to_pylist():
        is_one = row["cluster"] == 1
        assert row["primary"] == (["Clinical Imaging", "Microscopy"] if is_one else [])
        assert row["secondary"] == (["eye"] if is_one else [])
        assert row["panel_type"] == ("single" if is_one else None)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("3,,,,", "there is no cluster '3'"),
        ("x,,,,", "there is no cluster 'x'"),
        ("0,,,Clinical Imagin,", "Did you mean 'Clinical Imaging'?"),
        ("0,singel,,,", "Did you mean 'single'?"),
        ("0,single;multiple,,,", "has one panel_type"),
        ("0,,,,\n0,,,,", "is there twice"),
    ],
)
def test_an_unknown_cluster_or_term_is_refused(clusters: Path, tmp_path: Path, row: str, words: str) -> None:
    with pytest.raises(MedclipError) as refused:
        medclip.pairs.label(clusters, _write(tmp_path / "labels.csv", row), tmp_path / "out.parquet")
    assert words in f"{refused.value} {refused.value.hint}"
    assert not (tmp_path / "out.parquet").exists()


def test_a_checked_sheet_gives_the_precision_of_each_label(clusters: Path, tmp_path: Path, capsys) -> None:
    labels = _write(tmp_path / "labels.csv", *(f"{n},,,Microscopy,eye" for n in range(NUM)))
    words = ["pairs", "label", str(clusters), "--labels", str(labels), "--out", str(tmp_path / "out.parquet")]
    assert main([*words, "--sample", "2"]) == 0
    path = tmp_path / "out_check.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    drawn = sum(min(2, size) for size in read_clusters(clusters)[0].sizes)
    assert len(rows) == 2 * drawn
    asked = [row for row in rows if row["kind"] == "primary"]
    answers = ["no", *["yes"] * (len(asked) - 1)]
    with path.open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "right": answer} for row, answer in zip(asked, answers, strict=True))
    capsys.readouterr()
    assert main([*words, "--checked", str(path), "--overwrite", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["precision"]
    sizes = np.array(read_clusters(clusters)[0].sizes)
    num_C = np.minimum(2, sizes)
    right_C = num_C - (np.arange(NUM) == int(asked[0]["cluster"]))
    share_C = sizes / sizes.sum()
    p, z = float(share_C @ (right_C / num_C)), 1.959964
    n = 1 / float(share_C**2 @ (1 / num_C))
    assert one["precision"] == pytest.approx(p)
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    expected = [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]
    assert (one["num_right"], one["num_checked"]) == (len(asked) - 1, len(asked))
    assert np.allclose([one["low"], one["high"]], expected, atol=1e-6)
    assert main([*words, "--checked", str(path), "--overwrite"]) == 0
    assert f"{len(asked) - 1} of {len(asked)}" in capsys.readouterr().out


def test_members_are_drawn_without_repetition_and_all_where_they_are_few() -> None:
    labels = np.array([0, 1, 0, 0, 1, 0, 0])
    first, second = draw_members(labels, 2, 3, seed=0)
    assert len(set(first.tolist())) == 3
    assert set(first.tolist()) <= {0, 2, 3, 5, 6}
    assert second.tolist() == [1, 4]


def test_the_interval_of_a_precision_covers_the_images_of_clusters_that_are_unlike_in_size_and_truth() -> None:
    rng, num, most = np.random.default_rng(0), 300, 5
    covered = 0
    for _ in range(num):
        sizes = (rng.pareto(1.2, 20) * 50 + most).astype(int)
        right = [rng.random(size) < rate for size, rate in zip(sizes, rng.beta(2, 0.4, 20), strict=True)]
        answers = {c: rng.choice(right[c], most, replace=False).tolist() for c in range(20)}
        one = precision_of("primary", "eye", answers, sizes.tolist())
        covered += one.low <= sum(r.sum() for r in right) / sizes.sum() <= one.high
    assert covered / num > 0.93, "0.61 where each image weighs alike"
