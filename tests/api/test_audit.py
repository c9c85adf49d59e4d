"""The verb `medclip.audit` takes the options of its command."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.files.stores import RemotePath, write_object
from tests.kits.audit_input import write_scored
from tests.kits.audit_tables import audit_table
from tests.kits.stores import memory_store, put

__all__ = ["memory_store"]


def test_every_option_of_the_command_is_an_argument_of_the_verb():
    table = audit_table(150, splits=True)
    named = medclip.audit(
        table,
        by=["sex"],
        where={"split": "test"},
        choose_where={"split": "val"},
        num_resamples=200,
        num_permutations=200,
    )
    assert named.rows("thresholds")
    assert named.tables()["metrics"].num_rows
    everybody = medclip.audit(table, by=["sex"], threshold=0.5, num_resamples=200, num_permutations=200)
    assert [row["n"] for row in named.metrics] != [row["n"] for row in everybody.metrics]


def test_an_option_that_is_none_is_no_argument():
    with pytest.raises(TypeError, match="num_resample"):
        medclip.audit(audit_table(40), by=["sex"], num_resample=200)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ({"seed": -1}, "seed is at least 0, not -1"),
        ({"uncertain": "maybe"}, "uncertain is one of ignore, zero and one"),
        ({"blank": "one"}, "blank is one of ignore and zero"),
        ({"level": "exams"}, "level is one of exam, breast and view, not 'exams'. Did you mean 'exam'"),
        ({"scores_are": "odds"}, "scores_are is one of probabilities, logits and any, not 'odds'"),
        ({"where": {"split": {"test": "yes"}}}, "where takes values, or a list of them"),
        ({"declared": {"who": "me"}}, r"declared has a date and a name \(by\), and no who"),
        ({"risk": ["cancer"], "scores_are": "logits"}, "a risk by year is a probability. Leave --scores-are out"),
        ({"threshold": 0.5, "thresholds": "t.json"}, "not from two of them"),
        ({"choose_labels": "l.csv"}, "needs other patients to choose on"),
        ({"study": "visit", "attacker": True}, "--study and --attacker: this is asked of embeddings"),
        ({"stress": True}, "a pack and a folder of images. Name both: --model PACK --images FOLDER"),
        ({"task": "t", "model": "m", "images": "i", "labels": "l.csv"}, "there is one table, of labels"),
    ],
)
def test_what_cannot_stand_together_is_refused_before_anything_is_read(named: dict[str, Any], sentence: str):
    with pytest.raises(MedclipError, match=sentence) as caught:
        medclip.audit("nowhere.csv", **named)
    assert caught.value.reason is Reason.WRONG_USE


def test_values_have_the_forms_of_python_of_a_recipe_and_of_the_command(tmp_path: Path):
    """Pairs are mappings or texts, one value is a list of one, edges are numbers or a text."""
    table = audit_table(150, splits=True)
    few: dict[str, Any] = {"num_resamples": 100, "num_permutations": 100}
    as_values = medclip.audit(
        table, by="age", age_bins=[0, 40, 60], where={"split": ["test", "train"]}, value={"sex": {"F": "W"}}, **few
    )
    as_texts = medclip.audit(
        table, by=["age"], age_bins="0,40,60", where=["split=test", "split=train"], value="sex:F=W", **few
    )
    assert as_values.tables() == as_texts.tables()
    other = {"second": table.assign(flu_score=0.5)}
    assert medclip.audit(table, compare=other, choose_on=(), **few).model_names == ("model", "second")


def test_embeddings_are_named_as_such_and_images_as_images(tmp_path: Path):
    (tmp_path / "embedded").mkdir()
    (tmp_path / "embedded" / "embeddings.json").write_text("{}")
    table, stored = audit_table(40), tmp_path / "embedded"
    with pytest.raises(MedclipError, match=r"this one holds embeddings\. Name it with --embeddings"):
        medclip.audit(table, images=stored, model="medclip-mini")
    with pytest.raises(MedclipError, match=r"none is named\. Name it with --model") as caught:
        medclip.audit(table, embeddings=stored)
    assert caught.value.where == str(stored)
    with pytest.raises(MedclipError, match=r"in the place of images\. Leave out --images, or --embeddings"):
        medclip.audit(table, embeddings=stored, images=tmp_path, model="medclip-mini")


def test_a_run_of_score_is_audited_as_its_folder_is(tmp_path: Path):
    table = audit_table(60)
    studies = {f"s{i}": [name] for i, name in enumerate(table.image)}
    scores = {f"s{i}": {"findings:flu": score} for i, score in enumerate(table.flu_score)}
    folder = write_scored(tmp_path / "mine", studies, scores, "multilabel")
    labels = table.drop(columns="flu_score")
    asked = {"by": ["sex"], "num_resamples": 100, "num_permutations": 100}
    run = medclip.ScoreRun(folder, {"files": 1, "scored": 1, "skipped": 0, "failed": 0, "studies": 1})
    audited = medclip.audit(run, labels, compare={"other": run}, out=tmp_path / "page", **asked)
    assert audited.model_names == ("mine", "other")
    of_folder = medclip.audit(folder, labels, compare={"other": folder}, **asked)
    assert audited.tables() == of_folder.tables()
    again = medclip.audit(folder, labels, compare={"other": folder}, out=tmp_path / "page", **asked)
    assert again.tables() == audited.tables()  # the same audit, by the note of the folder
    passing = replace(run, _keep=object())
    assert medclip.audit(passing, labels, **asked).model_names == ("model",)  # a temporary folder names nothing


@pytest.mark.parametrize("overwrite", [False, True])
def test_no_folder_of_anything_else_is_taken_for_an_audit(tmp_path: Path, overwrite: bool):
    table, out = audit_table(40), tmp_path / "out"
    out.mkdir()
    (out / "run.json").write_text('{"medclip": "0.1.0"}')
    (out / "report.html").write_text("of a scoring run")
    with pytest.raises(MedclipError, match="other results and no audit") as caught:
        medclip.audit(table, by=["sex"], out=out, overwrite=overwrite, num_resamples=100)
    assert caught.value.reason is Reason.OUTPUT_IN_USE
    assert (out / "report.html").read_text() == "of a scoring run"
    scores = tmp_path / "in" / "scores.csv"
    scores.parent.mkdir()
    table.to_csv(scores, index=False)
    (scores.parent / "run.json").write_text('{"holds": "audit"}')
    with pytest.raises(MedclipError, match="what is audited lies here"):
        medclip.audit(scores, by=["sex"], out=scores.parent, overwrite=overwrite, num_resamples=100)


def test_scores_that_are_not_there_are_named_before_a_folder_is_asked_for(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(MedclipError, match="there is no such file or folder of scores") as refused:
        medclip.audit("nowhere.csv")
    assert refused.value.reason is Reason.MISSING_FILE
    assert main(["audit", "nowhere.csv"]) == 2
    assert "nowhere.csv: there is no such file or folder of scores." in capsys.readouterr().err


@pytest.fixture
def of_store(memory_store: object, tmp_path: Path) -> tuple[Path, str]:
    """Scores and labels in a folder, and the URL of their copy in a store."""
    table = audit_table(60)
    (tmp_path / "in").mkdir()
    table[["image", "flu_score"]].to_csv(tmp_path / "in" / "net.csv", index=False)
    table.drop(columns="flu_score").to_csv(tmp_path / "in" / "labels.csv", index=False)
    return tmp_path / "in", put(tmp_path / "in", "memory://bucket/patient-77/in")


FEW = {"by": ["sex"], "num_resamples": 100, "num_permutations": 100, "audited_on": "2026-01-31"}


def test_tables_of_a_store_are_audited_as_those_of_a_disk(tmp_path: Path, of_store: tuple[Path, str]):
    folder, url = of_store
    of_disk = medclip.audit(
        folder / "net.csv", folder / "labels.csv", compare={"other": folder / "net.csv"}, out=tmp_path / "disk", **FEW
    )
    asked = {"labels": f"{url}/labels.csv", "compare": {"other": f"{url}/net.csv"}, "out": tmp_path / "store", **FEW}
    audited = medclip.audit(f"{url}/net.csv", **asked)
    assert audited.tables() == of_disk.tables()
    pages = {path.name: path.read_bytes() for path in (tmp_path / "disk").iterdir() if path.name != "run.json"}
    written = {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()}
    note = written.pop("run.json")
    assert written == pages
    assert b"memory://bucket/patient-77/in/net.csv" in note, "where inputs lie is known to the note alone"
    assert not [name for name, content in written.items() if b"patient-77" in content]
    assert medclip.audit(f"{url}/net.csv", **asked).tables() == of_disk.tables(), "it is the same audit again"


def test_an_audit_of_a_store_is_run_again_from_its_json_unless_an_input_changed(
    tmp_path: Path, of_store: tuple[Path, str], capsys: pytest.CaptureFixture[str]
):
    _, url = of_store
    few = ["--by", "sex", "--num-resamples", "100", "--num-permutations", "100"]
    command = ["audit", f"{url}/net.csv", "--labels", f"{url}/labels.csv", *few]
    assert main([*command, "--out", str(tmp_path / "first")]) == 0
    assert main(["audit", str(tmp_path / "first" / "audit.json"), "--out", str(tmp_path / "again")]) == 0
    for path in (tmp_path / "first").iterdir():
        if path.name != "run.json":
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    write_object(RemotePath(f"{url}/net.csv"), b"image,flu_score\n")
    capsys.readouterr()
    assert main(["audit", str(tmp_path / "first" / "audit.json"), "--out", str(tmp_path / "third")]) == 2
    shown = capsys.readouterr()
    assert f"{url}/net.csv: this input has changed" in " ".join((shown.out + shown.err).split())


def test_what_an_audit_reads_more_of_than_tables_has_to_lie_on_a_disk(of_store: tuple[Path, str]):
    _, url = of_store
    with pytest.raises(MedclipError, match="--training is read from a disk") as caught:
        medclip.audit(f"{url}/net.csv", f"{url}/labels.csv", by=["sex"], training=[f"{url}/shards"])
    assert (caught.value.reason, caught.value.where) == (Reason.WRONG_USE, f"{url}/shards")
    with pytest.raises(MedclipError, match="no such file or folder") as caught:
        medclip.audit(f"{url}/gone.csv", f"{url}/labels.csv", by=["sex"])
    assert caught.value.where == f"{url}/gone.csv"


def table_of(out: Path, name: str) -> list[dict[str, str]]:
    return [*csv.DictReader((out / f"{name}.csv").read_text().splitlines())]


def test_the_command_writes_the_worst_group_and_judges_ratios_by_its_tolerance(tmp_path: Path):
    audit_table(200, gap=0.8).to_csv(tmp_path / "t.csv", index=False)
    asked = ["audit", str(tmp_path / "t.csv"), "--by", "sex", "--num-resamples", "100", "--num-permutations", "100"]
    verdicts = []
    for tolerance in ("0.9", "0.01"):
        out = tmp_path / tolerance
        assert main([*asked, "--tolerance", tolerance, "--out", str(out)]) == 0
        verdicts.append({row["verdict"] for row in table_of(out, "ratios")})
    assert "outside" in verdicts[0]
    assert "outside" not in verdicts[1]
    rows = {row["measure"]: row for row in table_of(out, "equity")}
    areas = {row["group"]: float(row["value"]) for row in table_of(out, "metrics") if row["metric"] == "auroc"}
    assert rows["worst_group"]["group"] == "F"
    assert float(rows["worst_group"]["value"]) == pytest.approx(areas["F"])
    apart = abs(areas["F"] - areas["all"]) + abs(areas["M"] - areas["all"])
    assert float(rows["equity_scaled"]["value"]) == pytest.approx(areas["all"] / (1 + apart), abs=0.02)
