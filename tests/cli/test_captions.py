from __future__ import annotations

import json

import pytest

from medclip.cli.main import main

TABLE = """file,patient,modality,label:brain_mri_tumour
a.jpg,P1,mri,glioma
b.jpg,P2,mri,
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(TABLE)
    return tmp_path


def test_the_command_writes_the_table_and_says_what_it_did(folder, capsys):
    assert main(["pairs", "captions", "t.csv", "--from", "labels", "--out", "o.csv", "--num-captions", "3"]) == 0
    said = capsys.readouterr()
    assert "o.csv: 3 captions for 1 of 2 rows." in said.out
    assert "1 row without labels, left as they were." in said.out
    assert "glio" in (folder / "o.csv").read_text().lower()


def test_json_is_one_object_and_nothing_else(folder, capsys):
    assert main(["pairs", "captions", "t.csv", "--from", "labels", "--out", "o.csv", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["num_captions"] == 10
    assert said.err == ""


def test_an_output_that_exists_is_refused_unless_it_may_be_replaced(folder, capsys):
    (folder / "o.csv").write_text("precious")
    assert main(["pairs", "captions", "t.csv", "--from", "labels", "--out", "o.csv"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["pairs", "captions", "t.csv", "--from", "labels", "--out", "o.csv", "--overwrite"]) == 0


def test_a_writer_of_ones_own_is_loaded_checked_and_counted(folder, capsys):
    (folder / "scribe_of_a_test.py").write_text(
        "def write(facts, n):\n    return [f'{facts.image} with {facts.present[0]}.', 'A 4 cm mass on CT.']\n"
    )
    arguments = ["pairs", "captions", "t.csv", "--from", "labels", "--out", "o.csv", "--num-captions", "2"]
    assert main([*arguments, "--writer", "scribe_of_a_test:write"]) == 0
    said = capsys.readouterr().out
    assert "1 caption by the writer itself." in said
    assert "replaced: modality" in said
    assert "brain MRI with glioma." in (folder / "o.csv").read_text()
    assert main([*arguments, "--overwrite", "--writer", "nowhere:write"]) == 2


def test_a_writer_that_prints_leaves_json_alone(folder, capsys):
    (folder / "talker_of_a_test.py").write_text(
        "print('loading')\ndef write(facts, n):\n    print('asked')\n    return ['brain MRI with glioma.']\n"
    )
    arguments = [
        "pairs",
        "captions",
        "t.csv",
        "--from",
        "labels",
        "--out",
        "o.csv",
        "--json",
        "--writer",
        "talker_of_a_test:write",
    ]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["num_by_writer"] == 1
    assert said.err == "loading\nasked\n"


def test_a_writer_that_gives_one_text_is_wrong_use(folder, capsys):
    (folder / "stringer_of_a_test.py").write_text("def write(facts, n):\n    return 'brain MRI with glioma.'\n")
    arguments = [
        "pairs",
        "captions",
        "t.csv",
        "--from",
        "labels",
        "--out",
        "o.csv",
        "--writer",
        "stringer_of_a_test:write",
    ]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "stringer_of_a_test:write" in said
    assert "bug" not in said


def test_an_output_where_nothing_can_be_written_is_no_bug(folder, capsys):
    for out in ("t.csv/x.csv", "n" * 300 + ".csv", "/proc/x.csv"):
        assert main(["pairs", "captions", "t.csv", "--from", "labels", "--out", out]) == 2, out
        said = capsys.readouterr().err
        assert "bug" not in said
    assert sorted(p.name for p in folder.iterdir()) == ["t.csv"]


def test_a_table_in_another_folder_says_that_its_paths_are_rewritten(folder, capsys):
    assert main(["pairs", "captions", "t.csv", "--from", "labels", "--out", "other/o.csv"]) == 0
    assert "2 paths in `file` rewritten" in capsys.readouterr().out
    assert "../a.jpg" in (folder / "other" / "o.csv").read_text()


VINDR = """study_id,image_id,laterality,view_position,breast_birads,breast_density,finding_categories,split
e1,i1,L,CC,BI-RADS 4,DENSITY C,"['Mass']",training
e1,i1,L,CC,BI-RADS 4,DENSITY C,"['Skin Thickening']",training
e1,i2,R,CC,BI-RADS 1,DENSITY C,"['No Finding']",training
"""


def test_the_table_of_a_set_becomes_one_with_reports_and_the_command_says_what_it_took_it_for(folder, capsys):
    (folder / "v.csv").write_text(VINDR)
    assert main(["pairs", "captions", "v.csv", "--from", "mammography", "--out", "o.csv", "--num-captions", "3"]) == 0
    said = capsys.readouterr().out
    assert "vindr: 3 rows, 2 images." in said
    assert "names no patients" in said
    assert "o.csv: 6 captions for 2 of 2 rows." in said
    assert "mass" in (folder / "o.csv").read_text()
    assert main(["pairs", "captions", "v.csv", "--from", "mammography", "--out", "p.csv", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["dataset"], told["num_source_rows"], told["num_captions"]) == ("vindr", 3, 20)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--dataset", "vinder"], "no set named"),
        (["--file", "{image}.png"], "no column"),
        (["--findings", "nowhere.csv"], "nowhere.csv"),
        (["--dataset", "rsna"], "has a column"),
    ],
)
def test_what_cannot_be_read_as_a_set_is_refused(folder, capsys, more, said):
    (folder / "v.csv").write_text(VINDR)
    assert main(["pairs", "captions", "v.csv", "--from", "mammography", "--out", "o.csv", *more]) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "o.csv").exists()


PTBXL = """ecg_id,patient_id,age,sex,report,scp_codes,strat_fold,filename_lr,filename_hr
1,101.0,56.0,1,sinusrhythmus linkstyp,"{'IMI': 35.0, 'SR': 0.0}",3,a_lr,a_hr
2,102.0,61.0,0,trace only requested.,"{'AFIB': 0.0}",9,b_lr,b_hr
"""


def test_the_table_of_an_ecg_set_becomes_one_with_labels_and_reports(folder, capsys):
    (folder / "e.csv").write_text(PTBXL)
    assert main(["pairs", "captions", "e.csv", "--from", "ecg", "--out", "o.csv", "--num-captions", "2"]) == 0
    printed = capsys.readouterr().out
    assert "ptbxl: 2 records." in printed
    assert "1 report of the set stay, cleaned (de 1)." in printed
    assert "1 left out: no reading of the record" in printed
    assert (
        main(["pairs", "captions", "e.csv", "--from", "ecg", "--out", "p.csv", "--file", "{filename_lr}", "--json"])
        == 0
    )
    values = json.loads(capsys.readouterr().out)
    assert (values["dataset"], values["num_reports"], values["min_likelihood"]) == ("ptbxl", 1, 0.0)
    assert "a_lr.hea" in (folder / "p.csv").read_text()
    assert main(["pairs", "captions", "e.csv", "--from", "ecg", "--out", "q.csv", "--language", "fr"]) == 2
    assert "en and de" in capsys.readouterr().err
