"""The texts of terms are found in packs, and those of several lie side by side, each once."""

from __future__ import annotations

from pathlib import Path

from medclip.models.packs.card import Card, licence_files, licence_names


def pack(folder: Path, name: str, **texts: str) -> Path:
    """A folder with a card and texts."""
    folder.mkdir()
    (folder / "card.json").write_text(Card(name=name).to_json())
    for file, text in texts.items():
        (folder / f"{file}.txt").write_text(text)
    return folder


def test_packs_without_terms_have_no_file(tmp_path: Path) -> None:
    assert licence_files([pack(tmp_path / "a", "a", train_hashes="0" * 64)]) == {}
    assert licence_files([]) == {}


def test_one_text_keeps_its_name_and_several_are_named_by_their_packs(tmp_path: Path) -> None:
    first = pack(tmp_path / "a", "lungs", LICENSE="A")
    same = pack(tmp_path / "b", "hearts", LICENSE="A")
    other = pack(tmp_path / "c", "../eyes of 2024", LICENSE="B")
    assert licence_files([first, same, first]) == {"LICENSE.txt": b"A"}
    assert licence_files([same, first, other]) == {"LICENSE.hearts.txt": b"A", "LICENSE.eyes-of-2024.txt": b"B"}


def test_two_packs_of_one_name_do_not_overwrite_each_other_and_merged_ones_keep_all(tmp_path: Path) -> None:
    packs = [pack(tmp_path / text, "lungs", LICENSE=text) for text in "AB"]
    files = licence_files(packs)
    assert files == {"LICENSE.lungs.txt": b"A", "LICENSE.lungs-2.txt": b"B"}
    merged = pack(
        tmp_path / "m", "merged", **{name.removesuffix(".txt"): text.decode() for name, text in files.items()}
    )
    assert licence_names(merged) == tuple(sorted(files))
    third = pack(tmp_path / "t", "third", LICENSE="C")
    assert licence_files([merged, third]).keys() == {*files, "LICENSE.third.txt"}
    assert licence_files([merged, third, packs[0]]).keys() == {*files, "LICENSE.third.txt"}
