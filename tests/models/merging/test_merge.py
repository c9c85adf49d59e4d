"""Packs are merged where they can be, the card says what became of them, and all else is refused with its reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from medclip.api.merge_packs import merge_packs
from medclip.api.models import import_model
from medclip.errors import MedclipError, Reason
from medclip.models.merging.merge import UNMEASURED, united_licence
from medclip.models.packs.card import (
    ANCESTORS,
    MERGED_FROM,
    Card,
    licence_names,
    read_card,
    training_hashes,
    training_patients,
)
from medclip.models.packs.manifest import WEIGHTS_NAME, pack_digest, read_manifest, seal, weights_digest
from medclip.models.packs.pack import check_pack, load_model, update_pack
from medclip.training.loop import run_recipe
from tests.kits.layouts import BPE_TEXT, VIT, hub_folder, plain_state, random_model
from tests.kits.merging import Family, going_on, make_family
from tests.kits.training import tiny_recipe

CLIP = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": BPE_TEXT}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return make_family(tmp_path_factory.mktemp("family"))


def weights(pack: Path) -> dict[str, Tensor]:
    return load_file(pack / WEIGHTS_NAME)


def copied(pack: Path, to: Path, **changes: Any) -> Path:
    """A copy of a pack whose card says something else."""
    shutil.copytree(pack, to)
    update_pack(to, card=Card.model_validate(read_card(to).model_dump() | changes))
    return to


def test_a_soup_is_the_mean_of_the_weights_and_a_pack_that_loads(family: Family, tmp_path: Path) -> None:
    result = merge_packs(family.children, out=tmp_path / "soup")
    states, soup = [weights(pack) for pack in family.children], weights(result.path)
    for name, value in soup.items():
        mean = torch.stack([state[name].float() for state in states]).mean(0)
        torch.testing.assert_close(value.float(), mean, atol=2e-3 if value.dtype == torch.float16 else 1e-6, rtol=1e-3)
        assert value.dtype == states[0][name].dtype
    assert check_pack(result.path).name == "soup"
    assert load_model(result.path).encode_text(["pneumonia"]).shape == (1, 16)


def test_the_card_says_what_it_came_from_and_carries_no_figure_over(family: Family, tmp_path: Path) -> None:
    path = merge_packs(family.children, out=tmp_path / "m", name="merged").path
    card = read_card(path)
    assert (card.name, card.modalities, card.held_out) == ("merged", ("xray",), None)
    assert [part["manifest"] for part in card.created_from[MERGED_FROM]] == [pack_digest(p) for p in family.children]
    assert card.created_from[ANCESTORS] == [weights_digest(family.start)]
    task = card.tasks["chest_xray_findings"]
    assert (task.classes, task.metrics, task.note) == (("pneumonia",), {}, UNMEASURED)
    assert task.model_extra == {"title": "Findings"}
    assert card.licence == "licence-of-child0 AND licence-of-child1 AND licence-of-child2"
    assert UNMEASURED in card.limits[0]
    assert any("The terms of all packs hold together" in limit for limit in card.limits)
    for read in (training_hashes, training_patients):
        lists = [read(pack, read_card(pack)) or frozenset() for pack in family.children]
        assert read(path, card) == frozenset().union(*lists)
        assert lists[0]


def with_terms(pack: Path, to: Path, text: str, **changes: Any) -> Path:
    """A copy of a pack with the text of its terms."""
    update_pack(copied(pack, to, **changes), extra_files={"LICENSE.txt": text.encode()})
    return to


@pytest.mark.parametrize("method", ["soup", "opcm"])
def test_terms_that_are_passed_on_lie_in_the_merged_pack_the_same_text_once(
    family: Family, tmp_path: Path, method: str
) -> None:
    first, second, third = family.children
    packs = [with_terms(first, tmp_path / "a", "Pass it on."), with_terms(second, tmp_path / "b", "Pass it on."), third]
    base = with_terms(family.start, tmp_path / "s", "Pass it on." if method == "soup" else "Research only.")
    how: dict[str, Any] = {"method": method, **({"base": base} if method == "opcm" else {})}
    merged = merge_packs(packs, out=tmp_path / "merged", **how).path
    texts = {name: (merged / name).read_text() for name in licence_names(merged)}
    if method == "soup":
        assert texts == {"LICENSE.txt": "Pass it on."}
    else:
        assert texts == {"LICENSE.child0.txt": "Pass it on.", "LICENSE.start.txt": "Research only."}
    assert f"The terms of its packs lie in full in {' and '.join(texts)}." in read_card(merged).limits
    assert set(texts) <= set(read_manifest(merged).files)
    again = merge_packs([merged, third], out=tmp_path / "again").path if method == "soup" else merged
    assert {(again / name).read_text() for name in licence_names(again)} == set(texts.values())


def test_a_merged_pack_is_asked_of_the_kinds_and_modalities_that_one_of_its_packs_was_measured_on(
    family: Family, tmp_path: Path
) -> None:
    def task(**asked: Any) -> dict[str, Any]:
        return {"classes": ("one",), **asked}

    tasks: list[dict[str, Any]] = [
        {"ecg_sheet": task(kinds=("image",)), "body_region": task(modalities=("ct",)), "skin_lesion": task()},
        {"ecg_superclass": task(kinds=("signal",)), "body_region": task(modalities=("mri",))},
        {"ecg_sheet": task()},
    ]
    packs = [copied(p, tmp_path / str(n), tasks=tasks[n]) for n, p in enumerate(family.children)]
    merged = read_card(merge_packs(packs, out=tmp_path / "merged").path).tasks
    assert {name: (entry.kinds, entry.modalities) for name, entry in merged.items()} == {
        "ecg_sheet": (("image",), ()),
        "body_region": ((), ("ct", "mri")),
        "skin_lesion": ((), ()),
        "ecg_superclass": (("signal",), ()),
    }


def test_terms_go_into_a_pack_that_is_trained_on_from_another(family: Family, tmp_path: Path) -> None:
    start = with_terms(family.start, tmp_path / "start", "Research only.", licence="LicenseRef-research")
    recipe = going_on(tiny_recipe(family.shards), start, "later")
    del recipe["card"]["licence"]
    pack = run_recipe(recipe, out=tmp_path / "run").pack
    assert pack is not None
    assert (pack / "LICENSE.txt").read_text() == "Research only."
    assert read_card(pack).licence == "LicenseRef-research"
    check_pack(pack)


def test_manifests_name_the_preprocessing_of_all_packs(family: Family, tmp_path: Path) -> None:
    ct = dict(read_manifest(family.start).preprocessing)
    other = Path(shutil.copytree(family.children[1], tmp_path / "other"))
    from medclip.adapters.registry import preprocessing_of

    more = {"fundus": preprocessing_of("fundus")}
    seal(other, {**read_manifest(other).preprocessing, **more})
    path = merge_packs([family.children[0], other], out=tmp_path / "m").path
    assert read_manifest(path).preprocessing == ct | more


def test_half_way_between_old_and_new_lies_half_of_what_was_learned(family: Family, tmp_path: Path) -> None:
    path = merge_packs([family.children[0]], base=family.start, method="wise-ft", alpha=0.25, out=tmp_path / "m").path
    old, new, mixed = (weights(p) for p in (family.start, family.children[0], path))
    name = "visual.head.proj.weight"
    torch.testing.assert_close(
        mixed[name].float(), 0.75 * old[name].float() + 0.25 * new[name].float(), atol=1e-3, rtol=0
    )
    assert read_card(path).created_from["alpha"] == 0.25


def test_opcm_of_three_packs_equals_two_and_then_the_third_bit_for_bit(family: Family, tmp_path: Path) -> None:
    a, b, c = family.children
    how: dict[str, Any] = {"base": family.start, "method": "opcm"}
    at_once = merge_packs([a, b, c], out=tmp_path / "three", **how)
    two = merge_packs([a, b], out=tmp_path / "two", **how)
    in_turn = merge_packs([two.path, c], out=tmp_path / "then", **how)
    one, other = weights(at_once.path), weights(in_turn.path)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert {value.dtype for value in one.values() if value.is_floating_point()} == {torch.float32}
    cards = [read_card(result.path) for result in (at_once, in_turn)]
    assert cards[0].created_from["opcm"] == cards[1].created_from["opcm"]
    assert cards[0].created_from[MERGED_FROM] == cards[1].created_from[MERGED_FROM]
    assert len(cards[0].created_from["opcm"]["norms"]) == 3
    assert not torch.equal(one["visual.head.proj.weight"], weights(a)["visual.head.proj.weight"].float())
    assert torch.equal(one["logit_scale"], weights(family.start)["logit_scale"])


def test_terms_and_training_files_of_the_base_are_those_of_an_opcm_merge_too(family: Family, tmp_path: Path) -> None:
    facts = {k: v for k, v in read_card(family.children[0]).created_from.items() if k != ANCESTORS}
    child = copied(family.children[0], tmp_path / "silent", created_from=facts, train_hashes_file=None, data=())
    start = copied(family.start, tmp_path / "start", licence="licence-of-start")
    one = merge_packs([child], base=start, method="opcm", out=tmp_path / "one").path
    two = merge_packs([one, family.children[1]], base=start, method="opcm", out=tmp_path / "two").path
    assert read_card(one).licence == "licence-of-child0 AND licence-of-start"
    assert read_card(two).licence == "licence-of-child0 AND licence-of-start AND licence-of-child1"
    listed = training_hashes(start, read_card(start))
    assert listed
    for merged in (one, two):
        assert (training_hashes(merged, read_card(merged)) or frozenset()) >= listed
        assert {source.name for source in read_card(merged).data} >= {s.name for s in read_card(start).data}


def test_opcm_averages_running_statistics_and_never_makes_a_variance_negative(family: Family, tmp_path: Path) -> None:
    name = next(key for key in weights(family.start) if key.endswith("running_var"))
    packs = []
    for k, share in enumerate((0.1, 0.2, 0.3, 0.4)):
        pack = Path(shutil.copytree(family.children[k % 3], tmp_path / f"narrow{k}"))
        state = weights(pack)
        state[name] = weights(family.start)[name] * share
        state["visual.head.proj.weight"] = state["visual.head.proj.weight"] + k * 1e-3
        save_file(state, pack / WEIGHTS_NAME)
        seal(pack, read_manifest(pack).preprocessing)
        packs.append(pack)
    merged = merge_packs(packs, base=family.start, method="opcm", out=tmp_path / "m").path
    torch.testing.assert_close(weights(merged)[name], weights(family.start)[name] * 0.25)
    assert any("batch normalisation" in limit for limit in read_card(merged).limits)
    model = load_model(merged)
    images = np.zeros((1, model.preprocess.size_px, model.preprocess.size_px, 3), np.uint8)
    assert np.isfinite(model.encode_image(images)).all()


def test_opcm_does_not_go_on_with_another_base_or_share_nor_from_the_middle(family: Family, tmp_path: Path) -> None:
    a, b, c = family.children
    two = merge_packs([a, b], base=family.start, method="opcm", out=tmp_path / "two").path
    for packs, changes, named in (
        ([two, c], {"alpha": 0.3}, "alpha 0.5"),
        ([c, two], {}, "only as the first"),
        ([two], {}, "nothing to merge"),
    ):
        with pytest.raises(MedclipError, match=named) as told:
            merge_packs(packs, base=family.start, method="opcm", out=tmp_path / "no", **changes)  # type: ignore[arg-type]
        assert told.value.reason == Reason.WRONG_USE


def test_a_greedy_soup_is_chosen_on_one_split_and_measured_on_patients_of_another(
    family: Family, tmp_path: Path
) -> None:
    result = merge_packs(
        family.children, method="greedy-soup", shards=family.shards, out=tmp_path / "m", num_resamples=50
    )
    assert result.figure is not None
    assert result.figure >= max(tried.alone for tried in result.tried)
    assert len(result.tried) == 2
    assert len(result.packs) == 1 + sum(tried.accepted for tried in result.tried)
    card = read_card(result.path)
    assert card.held_out is not None
    assert (card.held_out.split, card.held_out.num_images) == ("test", 16)
    assert card.held_out.figures["chest_xray_findings"]["macro_auroc"]["chance"] == 0.5
    assert card.tasks["chest_xray_findings"].metrics == {}
    assert card.tasks["chest_xray_findings"].note == ""
    assert not any(UNMEASURED in limit for limit in card.limits)
    assert ("alone" in card.limits[0]) is (len(result.packs) == 1)
    assert [one["name"] for one in card.created_from["tried"]] == [tried.name for tried in result.tried]
    assert any("chosen on 8 images" in note for note in result.notes)


def test_held_out_figures_leave_out_what_a_pack_was_trained_on(family: Family, tmp_path: Path) -> None:
    with pytest.raises(MedclipError) as told:
        merge_packs(family.children[:2], shards=family.shards, test_split="train", out=tmp_path / "m")
    assert told.value.reason == Reason.NOTHING_TO_DO


def test_a_split_that_is_named_and_missing_is_refused_before_anything_is_merged(family: Family, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="no split 'tset'") as told:
        merge_packs(family.children[:2], shards=family.shards, test_split="tset", out=tmp_path / "m")
    assert told.value.reason == Reason.WRONG_USE
    assert not (tmp_path / "m").exists()
    assert merge_packs(family.children[:2], shards=family.shards, test_split=None, out=tmp_path / "m").held_out is None


def test_held_out_figures_leave_out_what_the_base_alone_was_trained_on(family: Family, tmp_path: Path) -> None:
    no_lists = {"train_hashes_file": None, "patient_hashes_file": None}
    child = copied(family.children[0], tmp_path / "child", **no_lists)
    for method in ("wise-ft", "opcm"):
        with pytest.raises(MedclipError) as told:
            merge_packs(
                [child],
                base=family.start,
                method=method,
                shards=family.shards,
                test_split="train",
                out=tmp_path / method,
            )
        assert told.value.reason == Reason.NOTHING_TO_DO


def test_a_greedy_soup_without_held_out_data_is_wrong_use(family: Family, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="held-out") as told:
        merge_packs(family.children, method="greedy-soup", out=tmp_path / "m")
    assert told.value.reason == Reason.WRONG_USE
    assert not (tmp_path / "m").exists()


def test_packs_of_different_ancestors_are_refused(family: Family, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="did not begin with the weights") as told:
        merge_packs([family.children[0], family.stranger], out=tmp_path / "m")
    assert told.value.reason == Reason.WRONG_USE
    with pytest.raises(MedclipError, match=r"did not begin with the weights of start"):
        merge_packs([family.stranger], base=family.start, method="opcm", out=tmp_path / "m")


def test_packs_that_went_on_from_an_imported_model_are_merged_with_it_as_their_base(
    family: Family, tmp_path: Path
) -> None:
    source = hub_folder(tmp_path / "m", CLIP, plain_state(random_model(CLIP)), "open_clip_model.safetensors")
    start = import_model(source, tmp_path / "imported", license="MIT")
    recipe = tiny_recipe(family.shards)
    packs = []
    for k in range(2):
        plan: dict[str, Any] = going_on(recipe, start, f"on{k}", max_steps=1)
        plan |= {"seed": k, "data": plan["data"] | {"test_split": None}}
        packs.append(run_recipe(plan, out=tmp_path / f"on{k}").pack)
    assert "text.text_projection" in weights(packs[0])  # the imported one has it outside of a text module
    assert "text_projection" in weights(start)
    path = merge_packs(packs, base=start, method="opcm", out=tmp_path / "merged").path  # type: ignore[arg-type]
    assert check_pack(path).has_text
    assert read_card(path).created_from[ANCESTORS] == [weights_digest(start)]


def test_a_pack_and_one_that_went_on_from_it_are_of_one_line(family: Family, tmp_path: Path) -> None:
    card = read_card(merge_packs([family.start, family.children[0]], out=tmp_path / "m").path)
    assert card.created_from[ANCESTORS] == [weights_digest(family.start)]


def test_that_a_pack_does_not_say_what_it_began_with_is_a_limit(family: Family, tmp_path: Path) -> None:
    facts = {k: v for k, v in read_card(family.children[0]).created_from.items() if k != ANCESTORS}
    silent = copied(family.children[0], tmp_path / "silent", name="silent", created_from=facts)
    result = merge_packs([silent, family.children[1]], out=tmp_path / "m")
    assert any("silent 0 does not say what it began with" in limit for limit in read_card(result.path).limits)
    assert result.notes[0] in read_card(result.path).limits


def test_the_first_tensor_that_differs_is_named(family: Family, tmp_path: Path) -> None:
    other = Path(shutil.copytree(family.children[1], tmp_path / "other"))
    state = weights(other)
    state["visual.head.proj.weight"] = state["visual.head.proj.weight"][:, :-1].contiguous()
    save_file(state, other / WEIGHTS_NAME)
    seal(other, read_manifest(other).preprocessing)
    with pytest.raises(
        MedclipError, match=r"visual\.head\.proj\.weight is \[16, \d+\] in child0 0 and \[16, \d+\]"
    ) as told:
        merge_packs([family.children[0], other], out=tmp_path / "m")
    assert told.value.reason == Reason.PACK_INVALID


@pytest.mark.parametrize(
    ("part", "key", "value", "named"),
    [
        ("model_cfg", "quick_gelu", True, "quick_gelu in open_clip_config.json"),
        ("preprocess_cfg", "mean", [0.1, 0.2, 0.3], "images are treated in another way"),
    ],
)
def test_another_architecture_or_other_pixels_are_refused(
    family: Family, tmp_path: Path, part: str, key: str, value: Any, named: str
) -> None:
    other = Path(shutil.copytree(family.children[1], tmp_path / "other"))
    config = json.loads((other / "open_clip_config.json").read_text())
    config[part][key] = value
    (other / "open_clip_config.json").write_text(json.dumps(config))
    seal(other, read_manifest(other).preprocessing)
    with pytest.raises(MedclipError, match=named) as told:
        merge_packs([family.children[0], other], out=tmp_path / "m")
    assert told.value.reason == Reason.PACK_INVALID


def test_other_words_are_refused(family: Family, tmp_path: Path) -> None:
    other = Path(shutil.copytree(family.children[1], tmp_path / "other"))
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + "\n")
    seal(other, read_manifest(other).preprocessing)
    with pytest.raises(MedclipError, match=r"tokenizer\.json is not that of child0 0"):
        merge_packs([family.children[0], other], out=tmp_path / "m")


def test_a_pack_with_a_head_of_its_own_is_refused(family: Family, tmp_path: Path) -> None:
    other = Path(shutil.copytree(family.children[1], tmp_path / "other"))
    save_file({"weight": torch.zeros(16, 1)}, other / "adapted.safetensors")
    seal(other, read_manifest(other).preprocessing)
    with pytest.raises(MedclipError, match="a head of its own"):
        merge_packs([family.children[0], other], out=tmp_path / "m")


@pytest.mark.parametrize(
    ("number", "changes", "named"),
    [
        (1, {}, "at least 2"),
        (2, {"method": "opcm"}, "needs --base"),
        (2, {"method": "wise-ft", "base": True}, "one pack beside"),
        (2, {"base": True}, "takes no --base"),
        (2, {"alpha": 0.5}, "--alpha does nothing"),
        (2, {"min_gain": 0.1}, "--min-gain does nothing"),
        (2, {"method": "opcm", "base": True, "alpha": 1.0}, "alpha is 1"),
        (2, {"method": "wise", "base": True}, "no method 'wise'"),
    ],
)
def test_what_does_not_go_together_is_wrong_use(
    family: Family, tmp_path: Path, number: int, changes: dict[str, Any], named: str
) -> None:
    if changes.get("base"):
        changes = changes | {"base": family.start}
    with pytest.raises(MedclipError, match=named) as told:
        merge_packs(family.children[:number], out=tmp_path / "m", **changes)
    assert told.value.reason == Reason.WRONG_USE
    assert not (tmp_path / "m").exists()


def test_the_same_pack_twice_is_wrong_use(family: Family, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="given twice"):
        merge_packs([family.children[0], family.children[0]], out=tmp_path / "m")


def test_a_pack_that_is_there_stays_unless_it_is_to_be_replaced_and_no_ingredient_is_overwritten(
    family: Family, tmp_path: Path
) -> None:
    first = merge_packs(family.children[:2], out=tmp_path / "m").path
    digest = pack_digest(first)
    with pytest.raises(MedclipError) as told:
        merge_packs(family.children[1:], out=first)
    assert told.value.reason == Reason.OUTPUT_IN_USE
    assert pack_digest(first) == digest
    merge_packs(family.children[1:], out=first, overwrite=True)
    assert pack_digest(first) != digest
    with pytest.raises(MedclipError) as told:
        merge_packs(family.children[:2], out=family.children[0], overwrite=True)
    assert told.value.reason == Reason.WRONG_USE


def test_equal_calls_give_equal_bytes(family: Family, tmp_path: Path) -> None:
    one, other = (merge_packs(family.children, out=tmp_path / place / "m").path for place in "ab")
    assert pack_digest(one) == pack_digest(other)


def test_statistics_that_were_averaged_are_a_limit(family: Family, tmp_path: Path) -> None:
    other = Path(shutil.copytree(family.children[1], tmp_path / "other"))
    state = weights(other)
    name = next(key for key in state if key.endswith("running_mean"))
    state[name] = state[name] + 1
    save_file(state, other / WEIGHTS_NAME)
    seal(other, read_manifest(other).preprocessing)
    with_other = read_card(merge_packs([family.children[0], other], out=tmp_path / "m").path)
    alike = read_card(merge_packs(family.children[:2], out=tmp_path / "n").path)
    assert any("batch normalisation" in limit for limit in with_other.limits)
    assert not any("batch normalisation" in limit for limit in alike.limits)


@pytest.mark.parametrize(
    ("licences", "united"),
    [
        (["MIT", "MIT"], "MIT"),
        (["", ""], ""),
        (["CC-BY-4.0", "CC-BY-NC-4.0"], "CC-BY-4.0 AND CC-BY-NC-4.0"),
        (["MIT AND CC0-1.0", "CC0-1.0"], "MIT AND CC0-1.0"),
        (["MIT", "research only"], "all of these: MIT; research only"),
        (["MIT", ""], "all of these: MIT; terms that were not stated"),
        (["all of these: MIT; research only", "CC0-1.0", "MIT"], "all of these: MIT; research only; CC0-1.0"),
        (["as in A; ask B", "MIT"], "all of these: as in A; ask B; MIT"),
    ],
)
def test_the_terms_of_all_packs_hold(licences: list[str], united: str) -> None:
    assert united_licence([Card(name="a", licence=licence) for licence in licences]) == united


def test_the_result_shows_itself(family: Family, tmp_path: Path) -> None:
    result = merge_packs(family.children[:2], shards=family.shards, out=tmp_path / "m", num_resamples=50)
    text = repr(result)
    assert "a uniform soup" in text
    assert "on 16 images" in text
    assert str(tmp_path) not in text
    frame = result.to_pandas()
    assert set(frame["task"]) >= {"chest_xray_findings"}
    assert np.isfinite(frame["value"]).all()
