"""A tiny pack with random weights over two small sets: what is measured, what is kept, what is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from medclip.errors import MedclipError, Reason
from medclip.evaluation.zero_shot import set_run
from medclip.imaging.geometry import TokenBudget
from medclip.models.packs.card import read_card
from medclip.models.packs.manifest import file_sha256
from medclip.models.packs.pack import load_model, pack_card, update_pack
from medclip.models.prototypes.class_vectors import ensemble
from tests.kits import adapt_tables
from tests.kits.embeddings import embed_files
from tests.kits.evaluation import SUITE, evaluate_suite, image, small_data
from tests.kits.image_only import image_only_pack
from tests.kits.progress import Recorded
from tests.kits.scoring import every_way, make_pack

QUICK = {"workers": 1, "num_resamples": 50}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny", adapters=every_way())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    small_data(folder)
    (folder / "suite.yaml").write_text(SUITE)
    return folder


def with_hashes(pack: Path, folder: Path, hashes: list[str]) -> Path:
    shutil.copytree(pack, folder)
    card = read_card(folder).model_copy(update={"train_hashes_file": "train_hashes.txt"})
    update_pack(folder, card=card, extra_files={"train_hashes.txt": "\n".join([*hashes, ""]).encode()})
    return folder


def test_the_scores_are_the_cosines_of_the_image_with_the_averaged_prompts(
    pack: Path, place: Path, tmp_path: Path
) -> None:
    from medclip.adapters.base import source_of
    from medclip.adapters.registry import read_unit
    from medclip.sample import Modality
    from medclip.settings import Settings

    evaluate_suite(pack, place / "suite.yaml", place, out=tmp_path / "out", dataset=["eyes"], **QUICK)
    rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    model = load_model(pack)
    vectors = ensemble(model.encode_text(["clear retina", "sharp vessels", "hazy retina"]), [0, 0, 1], 2)
    (view,) = read_unit(source_of(place / "eyes/clear/3.png", Settings()), Modality.FUNDUS, Settings()).views
    expected = model.encode_image(model.preprocess.to_array(view)[None]) @ vectors.T
    np.testing.assert_allclose(rows[1]["scores"], expected[0], atol=1e-6)
    assert rows[1]["sha256"] == file_sha256(place / "eyes/clear/3.png")
    assert rows[1]["predicted"] == ("clear", "hazy")[int(expected[0].argmax())]


def test_the_score_of_a_volume_is_the_mean_over_its_views(pack: Path, repository: Path, tmp_path: Path) -> None:
    from medclip.adapters.base import source_of
    from medclip.adapters.registry import read_unit
    from medclip.sample import Modality
    from medclip.settings import Settings

    suite = SUITE.replace("modality: fundus", "modality: mri")
    (tmp_path / "suite.yaml").write_text(suite)
    volume = tmp_path / "eyes" / "clear" / "volume.nii.gz"
    volume.parent.mkdir(parents=True)
    shutil.copy(repository / "examples" / "studies" / "volume.nii.gz", volume)
    evaluate_suite(pack, tmp_path / "suite.yaml", tmp_path, out=tmp_path / "out", **QUICK)
    (row,) = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    model = load_model(pack)
    vectors = ensemble(model.encode_text(["clear retina", "sharp vessels", "hazy retina"]), [0, 0, 1], 2)
    views = read_unit(source_of(volume, Settings()), Modality.MRI, Settings()).views
    assert len(views) > 1
    features = model.encode_image(np.stack([model.preprocess.to_array(view) for view in views]))
    np.testing.assert_allclose(row["scores"], (features @ vectors.T).mean(axis=0), atol=1e-5)


def test_figures_agree_with_the_predictions_and_groups_with_the_figures(
    pack: Path, place: Path, tmp_path: Path
) -> None:
    result = evaluate_suite(pack, place / "suite.yaml", place, out=tmp_path / "out", **QUICK)
    rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    for s in result.sets:
        of_set = [r for r in rows if r["set"] == s.id and r["predicted"]]
        right = sum(r["predicted"] == r["label"] for r in of_set)
        assert s.figures["accuracy"].value == pytest.approx(right / len(of_set), abs=1e-4)
        assert s.num_read == len(of_set)
    assert [g.mean for g in result.groups] == [s.value for s in result.sets]
    assert result.average == pytest.approx(sum(s.value for s in result.sets) / 2, abs=1e-4)


def test_a_bad_file_is_a_counted_row_with_its_reason(pack: Path, place: Path, tmp_path: Path) -> None:
    result = evaluate_suite(pack, place / "suite.yaml", place, out=tmp_path / "out", dataset=["eyes"], **QUICK)
    (eyes,) = result.sets
    assert (eyes.num_images, eyes.num_read, result.num_problems) == (7, 6, 1)
    rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    (bad,) = [r for r in rows if r["reason"]]
    assert (bad["row"], bad["scores"], bad["predicted"]) == (7, None, None)
    assert {bad["reason"]: 1} == eyes.problems
    assert any("not read:" in line for line in result.lines())


def test_a_set_of_which_nothing_can_be_read_has_no_figure_and_does_not_end_the_run(
    pack: Path, place: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(place / "eyes", data / "eyes")
    (data / "chests").mkdir()
    (data / "chests" / "labels.csv").write_text("file,label\ngone.png,P\n")
    result = evaluate_suite(pack, place / "suite.yaml", data, **QUICK)
    eyes, chests = result.sets
    assert chests.value is None
    assert chests.problems == {"missing_file": 1}
    assert result.average == eyes.value


def test_missing_sets_are_named_with_the_places_that_were_looked_at(pack: Path, place: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(place / "eyes", data / "eyes")
    result = evaluate_suite(pack, place / "suite.yaml", data, **QUICK)
    (missing,) = result.missing
    assert (missing.id, missing.looked_for) == ("chests", ("chests/labels.csv", "chests/{P,N}/"))
    text = "\n".join(result.lines())
    assert "Average over 1 of 2 sets" in text
    assert "Missing: 1 of 2 sets" in text
    assert "chests/labels.csv" in text


def test_an_unusable_set_is_named_without_a_path_and_the_others_are_measured(
    pack: Path, place: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(place / "eyes", data / "eyes")
    (data / "chests").mkdir()
    (data / "chests" / "labels.csv").write_text("file,label\na.png,Doe^John\n")
    result = evaluate_suite(pack, place / "suite.yaml", data, out=tmp_path / "out", **QUICK)
    (unusable,) = result.unusable
    assert (unusable.id, unusable.group, unusable.reason) == ("chests", "chests", "table_invalid")
    assert unusable.message.startswith("chests/labels.csv, row 1: `label` is (not shown)")
    assert [s.id for s in result.sets] == ["eyes"]
    written = (tmp_path / "out" / "evaluate.json").read_text()
    assert str(tmp_path) not in written
    assert "Doe" not in written
    with pytest.raises(MedclipError, match="row 1") as e:
        evaluate_suite(pack, place / "suite.yaml", data, dataset=["chests"], **QUICK)
    assert e.value.reason is Reason.TABLE_INVALID


def test_class_folders_of_a_set_with_a_split_are_noted(pack: Path, place: Path, tmp_path: Path) -> None:
    for n, name in enumerate(("healthy", "ill")):
        image(tmp_path / "chests" / name / "a.png", n, grey=True)
    (chests,) = evaluate_suite(pack, place / "suite.yaml", tmp_path, **QUICK).sets
    assert any("Class folders name no split: all images are measured, not only 'test'" in n for n in chests.notes)


THREE_SETS = (
    SUITE.replace("title: Two small sets", "title: Three small sets\naverage: groups")
    + """\
  - id: eyes_again
    group: eyes
    folder: eyes
    modality: fundus
    classes:
      - {name: clear, prompts: [hazy retina]}
      - {name: hazy, prompts: [clear retina, sharp vessels]}
"""
)


def test_where_groups_weigh_alike_the_average_is_over_their_means(pack: Path, place: Path, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(THREE_SETS)
    result = evaluate_suite(pack, tmp_path / "suite.yaml", place, compare=pack, **QUICK)
    value = {one.id: one.value for one in result.sets}
    # by hand: each image of the eyes is right with the one wording or with the other, so their mean is one half
    assert value["eyes"] + value["eyes_again"] == pytest.approx(1, abs=1e-4)
    assert value["chests"] != pytest.approx(0.5, abs=0.01)
    assert result.average == pytest.approx((0.5 + value["chests"]) / 2, abs=1e-4)
    assert result.compared.mean.own.value == pytest.approx(result.average, abs=1e-4)
    lines = list(result.lines())
    assert f"Average over the means of 2 of 2 groups, of 3 of 3 sets (accuracy): {100 * result.average:.2f} %." in lines
    (tmp_path / "suite.yaml").write_text(THREE_SETS.replace("average: groups\n", ""))
    by_sets = evaluate_suite(pack, tmp_path / "suite.yaml", place, **QUICK)
    assert by_sets.average == pytest.approx((1 + value["chests"]) / 3, abs=1e-4)


def test_a_group_of_which_nothing_is_here_weighs_nothing(pack: Path, place: Path, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(THREE_SETS)
    result = evaluate_suite(pack, tmp_path / "suite.yaml", place, dataset=["eyes", "eyes_again"], **QUICK)
    assert result.average == pytest.approx(0.5, abs=1e-4)
    assert any("1 of 2 groups, of 2 of 3 sets" in line for line in result.lines())


def test_an_incomplete_average_is_said_to_be_no_match_for_the_published_one(pack: Path, tmp_path: Path) -> None:
    for n, name in enumerate(("benign", "malignant")):
        image(tmp_path / "breast_us" / name / "a.png", n)
    result = evaluate_suite(pack, "unimed", tmp_path, **QUICK)
    text = " ".join(result.notes)
    assert "Average over 1 of 21 sets" in text
    assert "61.63 % over all 21 sets" in text
    assert "must not be compared" in text
    assert len(result.missing) == 20


def test_no_set_at_all_is_an_error_that_says_what_was_looked_for(pack: Path, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match=r"none of the 21 sets .*PCAM/labels.csv") as error:
        evaluate_suite(pack, "unimed", tmp_path, **QUICK)
    assert error.value.reason is Reason.NOTHING_TO_DO
    with pytest.raises(MedclipError, match="no such data folder"):
        evaluate_suite(pack, "unimed", tmp_path / "gone", **QUICK)
    with pytest.raises(MedclipError, match="no set 'pcam'"):
        evaluate_suite(pack, "unimed", tmp_path, dataset=["pcam"], **QUICK)


def test_training_images_are_counted_and_left_out_with_all_images_of_their_patients(
    pack: Path, place: Path, tmp_path: Path
) -> None:
    seen = [file_sha256(place / "chests" / "images" / "0.png"), "0" * 64]
    trained = with_hashes(pack, tmp_path / "pack", seen)
    (chests,) = evaluate_suite(trained, place / "suite.yaml", place, dataset=["chests"], **QUICK).sets
    assert chests.num_in_training == 1
    assert chests.num_unseen == 4  # of 7 images, 3 are of the patient whose image was trained on
    assert set(chests.unseen) == set(chests.figures)
    result = evaluate_suite(trained, place / "suite.yaml", place, **QUICK)
    (warning,) = [s for s in result.notes if s.startswith("WARNING")]
    assert "1 of 13 images" in warning
    assert result.num_in_training == 1


def test_a_pack_says_whether_its_training_files_are_known(pack: Path, place: Path, tmp_path: Path) -> None:
    unknown = evaluate_suite(pack, place / "suite.yaml", place, **QUICK)
    assert unknown.num_in_training is None
    assert any("does not list its training files" in s for s in unknown.notes)
    clean = evaluate_suite(with_hashes(pack, tmp_path / "pack", ["0" * 64]), place / "suite.yaml", place, **QUICK)
    assert clean.num_in_training == 0
    assert any("None of the images" in s for s in clean.notes)


def test_intervals_over_images_are_said_to_be_so(pack: Path, place: Path) -> None:
    result = evaluate_suite(pack, place / "suite.yaml", place, **QUICK)
    eyes, chests = result.sets
    assert eyes.num_patients is None
    assert chests.num_patients == 3
    (said,) = [s for s in result.notes if s.startswith("Intervals resample images")]
    assert "eyes" in said
    assert "chests" not in said


def test_another_identity_key_changes_the_hashes_and_no_figure(pack: Path, place: Path, tmp_path: Path) -> None:
    hashes, figures = [], []
    for n in range(3):
        (tmp_path / f"key{n}").write_bytes(bytes([n]) * 32)
        out = tmp_path / f"out{n}"
        result = evaluate_suite(
            pack, place / "suite.yaml", place, dataset=["chests"], out=out, key_file=tmp_path / f"key{n}", **QUICK
        )
        hashes.append({r["patient"] for r in pq.read_table(out / "predictions.parquet").to_pylist()})
        figures.append(result.sets[0].figures)
    assert hashes[0].isdisjoint(hashes[1])
    assert figures[0] == figures[1] == figures[2]


def test_classes_without_an_image_and_leftovers_are_noted(pack: Path, place: Path) -> None:
    _, chests = evaluate_suite(pack, place / "suite.yaml", place, **QUICK).sets
    assert chests.images_per_class == (4, 3, 0)
    assert chests.num_left_out == 5
    assert any("No image of: other" in note for note in chests.notes)


def test_a_pack_that_was_never_trained_on_the_modality_is_noted(place: Path, tmp_path: Path) -> None:
    result = evaluate_suite(make_pack(tmp_path / "plain"), place / "suite.yaml", place, **QUICK)
    known = set(load_model(tmp_path / "plain").preprocess.adapters)
    for s in result.sets:
        assert (s.modality not in known) == any("does not say that it was trained on" in note for note in s.notes)


def test_a_second_run_computes_nothing_and_gives_the_same_bytes(
    pack: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("evaluate.json", "predictions.parquet")
    evaluate_suite(pack, place / "suite.yaml", place, out=tmp_path / "a", **QUICK)
    evaluate_suite(pack, place / "suite.yaml", place, out=tmp_path / "b", **QUICK)
    first = [(tmp_path / "a" / name).read_bytes() for name in names]
    assert [(tmp_path / "b" / name).read_bytes() for name in names] == first
    monkeypatch.setattr(set_run, "_measure", None)
    evaluate_suite(pack, place / "suite.yaml", place, out=tmp_path / "a", **QUICK)
    assert [(tmp_path / "a" / name).read_bytes() for name in names] == first


def test_a_run_that_was_stopped_keeps_the_sets_that_were_done(
    pack: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate_suite(pack, place / "suite.yaml", place, out=tmp_path / "whole", **QUICK)
    measured = []
    real = set_run._measure

    def stops(run, labelled):
        measured.append(labelled.part.id)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return real(run, labelled)

    monkeypatch.setattr(set_run, "_measure", stops)
    with pytest.raises(KeyboardInterrupt):
        evaluate_suite(pack, place / "suite.yaml", place, out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out" / "evaluate.json").exists()
    evaluate_suite(pack, place / "suite.yaml", place, out=tmp_path / "out", **QUICK)
    assert measured == ["eyes", "chests", "chests"]
    for name in ("evaluate.json", "predictions.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_set_whose_data_changed_is_measured_again(
    pack: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    shutil.copytree(place, data)
    evaluate_suite(pack, data / "suite.yaml", data, out=tmp_path / "out", **QUICK)
    image(data / "eyes" / "clear" / "new.png", 77)
    measured = []
    real = set_run._measure
    monkeypatch.setattr(set_run, "_measure", lambda run, ls: (measured.append(ls.part.id), real(run, ls))[1])
    result = evaluate_suite(pack, data / "suite.yaml", data, out=tmp_path / "out", **QUICK)
    assert measured == ["eyes"]
    assert result.sets[0].num_images == 8


def test_a_folder_of_something_else_is_never_written_into(pack: Path, place: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(MedclipError, match="1 other file and no evaluation"):
        evaluate_suite(pack, place / "suite.yaml", place, out=tmp_path / "mine", **QUICK)
    evaluate_suite(pack, place / "suite.yaml", place, out=tmp_path / "out", dataset=["eyes"], **QUICK)
    other = with_hashes(pack, tmp_path / "pack", [])
    with pytest.raises(MedclipError, match="the model digest differs") as error:
        evaluate_suite(other, place / "suite.yaml", place, out=tmp_path / "out", dataset=["eyes"], **QUICK)
    assert error.value.reason is Reason.OUTPUT_IN_USE


def test_what_is_written_names_no_patient_and_no_path(pack: Path, place: Path, tmp_path: Path) -> None:
    result = evaluate_suite(pack, place / "suite.yaml", place, out=tmp_path / "out", **QUICK)
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    said = written.decode("latin-1") + str(rows) + "\n".join(result.lines()) + result.to_json()
    assert "MRN" not in said
    assert str(place) not in said
    assert ".png" not in said
    assert len({r["patient"] for r in rows if r["set"] == "chests"}) == 3
    assert json.loads((tmp_path / "out" / "evaluate.json").read_text())["num_sets"] == 2


def test_progress_counts_every_image(pack: Path, place: Path) -> None:
    shown = Recorded()
    evaluate_suite(pack, place / "suite.yaml", place, progress=shown, **QUICK)
    assert sum(count for count, _ in shown.steps) == 14
    assert shown.stages == [("eyes", 7, 0), ("chests", 7, 0)]


@pytest.mark.shared
def test_the_shared_suite_finds_all_its_sets_and_says_that_the_built_in_pack_was_trained_on_them(
    shared: Path, repository: Path
) -> None:
    suite = repository / "pipelines" / "unimed" / "suite_shared.yaml"
    result = evaluate_suite("medclip-mini", suite, shared / "data", dataset=["csdi_cataract"], num_resamples=100)
    (cataract,) = result.sets
    assert cataract.num_in_training > 50
    assert any(s.startswith("WARNING") for s in result.notes)
    listed = pack_card("medclip-mini").tasks["fundus_cataract"].metrics["auroc"]["cataract"]["zero_shot"]
    assert cataract.unseen["auroc"].low > listed["chance"]
    assert cataract.unseen["auroc"].value > listed["low"]


def test_a_set_from_embeddings_has_the_bytes_of_one_from_files(
    pack: Path, place: Path, tmp_path: Path, monkeypatch
) -> None:
    store = embed_files(tmp_path / "e", pack, place / "eyes", "fundus")
    with pytest.raises(MedclipError, match="another pack"):
        evaluate_suite(adapt_tables.make_pack(tmp_path / "other"), place / "suite.yaml", place, images=store, **QUICK)
    eyes = shutil.copytree(place / "eyes", tmp_path / "data" / "eyes", copy_function=shutil.copy2).parent
    store = embed_files(tmp_path / "all", pack, eyes, "fundus")
    outs = {name: tmp_path / name for name in ("files", "stored")}
    asked = {"dataset": ["eyes"], "prompt_sensitivity": True, **QUICK}
    evaluate_suite(pack, place / "suite.yaml", eyes, out=outs["files"], **asked)
    monkeypatch.setattr(
        "medclip.models.encoding.unit_reader.UnitReader.read", lambda *_, **__: pytest.fail("an image was read")
    )
    evaluate_suite(pack, place / "suite.yaml", eyes, out=outs["stored"], images=store, **asked)
    for path in outs["files"].rglob("*.*"):
        assert (outs["stored"] / path.relative_to(outs["files"])).read_bytes() == path.read_bytes()
    image(eyes / "eyes/clear/1.png", 99, grey=True)
    with pytest.raises(MedclipError, match=r"1\.png: this file is not the one that was embedded"):
        evaluate_suite(pack, place / "suite.yaml", eyes, dataset=["eyes"], images=store, **QUICK)


def test_images_may_lie_elsewhere_than_the_tables(pack: Path, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "eyes" / "clear", tmp_path / "images" / "eyes")
    files = sorted(path.name for path in (tmp_path / "images" / "eyes").iterdir())
    table = "\n".join(["file,label", *(f"{name},clear" for name in files), ""])
    (tmp_path / "labels/eyes").mkdir(parents=True)
    (tmp_path / "labels/eyes/labels.csv").write_text(table)
    asked = {"dataset": ["eyes"], **QUICK}
    (eyes,) = evaluate_suite(pack, place / "suite.yaml", tmp_path / "labels", images=tmp_path / "images", **asked).sets
    assert eyes.num_read == eyes.num_images > 0
    with pytest.raises(MedclipError, match="folder of images"):
        evaluate_suite(pack, place / "suite.yaml", tmp_path / "labels", images=tmp_path / "nowhere", **asked)


def test_prompt_sensitivity_is_measured_of_each_set_kept_and_printed(
    pack: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {**QUICK, "out": tmp_path / "out", "prompt_sensitivity": True}
    result = evaluate_suite(pack, place / "suite.yaml", place, **asked)
    eyes, chests = (s.sensitivity for s in result.sets)
    assert eyes is not None
    assert chests is not None
    assert (eyes.num_wordings, chests.num_wordings) == (2, 1)  # "hazy retina" goes with both sentences of the other
    assert eyes.figures["accuracy"].ensemble == result.sets[0].figures["accuracy"]
    assert eyes.separation is not None
    assert chests.separation is None
    assert result.negation is not None
    values = json.loads((tmp_path / "out" / "evaluate.json").read_text())
    assert values["sets"][0]["sensitivity"]["figures"]["accuracy"]["sd"] == eyes.figures["accuracy"].sd
    assert values["negation"]["num_findings"] == result.negation.num_findings
    printed = "\n".join(result.lines())
    assert "2 single wordings" in printed
    assert "Denials:" in printed
    monkeypatch.setattr(set_run, "_measure", None)
    assert evaluate_suite(pack, place / "suite.yaml", place, **asked).sets == result.sets


def test_two_packs_are_compared_on_the_same_images_each_with_its_own_pixels(
    pack: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_pack(tmp_path / "other", every_way(), TokenBudget(16, 20), name="other")
    asked = {**QUICK, "out": tmp_path / "out", "compare": other}
    result = evaluate_suite(pack, place / "suite.yaml", place, **asked)
    alone = [evaluate_suite(one, place / "suite.yaml", place, **QUICK) for one in (pack, other)]
    assert result.compared is not None
    assert result.compared.model == "other"
    assert [row.id for row in result.compared.sets] == ["eyes", "chests"]
    for row, own, rival in zip(result.compared.sets, alone[0].sets, alone[1].sets, strict=True):
        assert (row.own.value, row.other.value) == (own.value, rival.value)
        assert row.difference.value == pytest.approx(own.value - rival.value, abs=2e-4)  # type: ignore[operator]
    assert result.compared.mean is not None
    assert result.sets == alone[0].sets
    assert "tiny 1 less other 1, on the same images and patients" in list(result.lines())
    assert "less other" in repr(result)
    monkeypatch.setattr(set_run, "_measure", None)  # both are kept
    again = evaluate_suite(pack, place / "suite.yaml", place, **asked)
    assert again.to_json() == result.to_json()
    assert json.loads((tmp_path / "out" / "evaluate.json").read_text())["compared"]["model"] == "other"


def test_a_pack_to_compare_with_answers_from_embeddings_of_its_own_or_of_its_tower(
    pack: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rival = adapt_tables.make_pack(tmp_path / "rival")
    again = Path(shutil.copytree(pack, tmp_path / "again"))
    update_pack(again, card=read_card(again).model_copy(update={"name": "again"}))
    eyes = shutil.copytree(place / "eyes", tmp_path / "data" / "eyes").parent
    own, of_rival = (embed_files(tmp_path / f"of_{p.name}", p, eyes, "fundus") for p in (pack, rival))
    suite, asked = place / "suite.yaml", {"dataset": ["eyes"], **QUICK}
    of_files = evaluate_suite(pack, suite, eyes, compare=rival, **asked)
    recorded = Recorded()
    assert evaluate_suite(pack, suite, eyes, compare=rival, images=own, progress=recorded, **asked) == of_files
    assert any("reads the images" in note for note in recorded.notes)
    monkeypatch.setattr(
        "medclip.models.encoding.unit_reader.UnitReader.read", lambda *_, **__: pytest.fail("an image was read")
    )
    stored = evaluate_suite(pack, suite, eyes, compare=rival, images=own, compare_images=of_rival, **asked)
    assert stored == of_files
    same = evaluate_suite(pack, suite, eyes, compare=again, images=own, **asked)
    assert same.compared is not None
    with pytest.raises(MedclipError, match="no such pack is named"):
        evaluate_suite(pack, suite, eyes, compare_images=of_rival, **asked)
    with pytest.raises(MedclipError, match="of another pack"):
        evaluate_suite(pack, suite, eyes, compare=rival, compare_images=own, **asked)


@pytest.mark.parametrize("side", ["model", "compare"])
def test_an_image_only_pack_is_refused_in_a_sentence(pack: Path, place: Path, tmp_path: Path, side: str) -> None:
    without_words = image_only_pack(tmp_path / "images")
    asked = {"model": pack, "compare": pack} | {side: without_words}
    with pytest.raises(MedclipError, match="the pack tiles is image only") as e:
        evaluate_suite(asked["model"], place / "suite.yaml", place, compare=asked["compare"], **QUICK)
    assert e.value.reason is Reason.WRONG_USE


def test_an_empty_batch_is_refused_before_anything_is_looked_at(tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="batch_size is at least 1, not 0"):
        evaluate_suite("no-such-pack", "no-such-suite", tmp_path / "gone", batch_size=0)
