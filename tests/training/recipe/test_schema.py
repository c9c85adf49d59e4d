"""Recipes are checked before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from medclip.errors import MedclipError, Reason
from medclip.training.recipe.schema import Recipe, load_recipe, package_folder
from tests.kits.training import masked_recipe, tiny_recipe

TEXT = "name: m\ndata: {shards: s}\ntrain:\n  lr: 1e-3\n"


def _write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_recipe_is_read_and_overridden(tmp_path: Path) -> None:
    changes = ["train.lr=5e-4", "model.image_weights=null", "objective.text_teacher={folder: x, weight: 2}", "name=n-2"]
    recipe = load_recipe(_write(tmp_path, TEXT.replace("1e-3", "0.001")), changes)
    assert (recipe.train.lr, recipe.model.image_weights, recipe.name) == (5e-4, None, "n-2")
    assert recipe.objective.text_teacher is not None
    assert recipe.objective.text_teacher.weight == 2


def test_a_quoted_value_of_an_override_stays_text(tmp_path: Path) -> None:
    assert load_recipe(_write(tmp_path, TEXT), ['version="1.2"', "train.lr=2e-3"]).version == "1.2"


def test_scientific_notation_without_a_point_is_a_number(tmp_path: Path) -> None:
    assert load_recipe(_write(tmp_path, TEXT)).train.lr == 1e-3  # YAML 1.1 says it is text


@pytest.mark.parametrize(
    ("change", "question"),
    [
        ("train.lrr=1", "Did you mean 'lr'?"),
        ("lr=1", "Did you mean 'train.lr'?"),
        ("trian.lr=1", "Did you mean 'train'?"),
        ("objective.masked={rato: 0.5}", "Did you mean 'ratio'?"),
    ],
)
def test_a_mistyped_key_is_asked_back(tmp_path: Path, change: str, question: str) -> None:
    with pytest.raises(MedclipError, match="is not a key of a recipe") as caught:
        load_recipe(_write(tmp_path, TEXT), [change])
    assert caught.value.hint == question


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("{summry: x}", "card: summry: is not a key of a card"),
        ("{citations: [{key: a, fields: {author: Lee}}]}", "an entry needs a title"),
        ("{citations: [{key: a, fields: {title: t, year: 2026}}]}", "citations.0.fields.year"),
    ],
)
def test_a_card_that_could_not_be_written_is_refused_before_anything_is_trained(
    tmp_path: Path, card: str, words: str
) -> None:
    with pytest.raises(MedclipError) as caught:
        load_recipe(_write(tmp_path, TEXT), [f"card={card}"])
    assert words in str(caught.value)


def test_a_recipe_that_is_not_there_or_is_a_folder_is_named_so(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "gone.yaml", Reason.MISSING_FILE), (tmp_path, Reason.WRONG_USE)):
        with pytest.raises(MedclipError) as caught:
            load_recipe(path)
        assert (caught.value.reason, caught.value.where) == (reason, str(path))


def test_a_run_lies_in_the_folder_of_its_name(tmp_path: Path) -> None:
    assert load_recipe(_write(tmp_path, TEXT), ["name=mine"]).folder == Path("runs/mine")
    assert load_recipe(_write(tmp_path, TEXT), ["out=here"]).folder == Path("here")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: m\ndata: {shards: s}\nepochs: 3\n", "epochs: is not a key"),
        ("name: m\ndata: {shards: s, shard: t}\n", r"data\.shard: is not a key"),
        ("name: m\n", "data: is missing"),
        ("name: m\ndata: {shards: s}\ntrain: {lr: fast}\n", r"train\.lr: is 'fast', and must be a number\.$"),
        ("name: m\ndata: {shards: s}\ntrain: {batch_size: 1}\n", r"train\.batch_size"),
        ("name: m\ndata: {shards: s}\naugment: {crop_scale: [1, 0.5]}\n", "crop_scale"),
        ("name: m\ndata: {shards: []}\n", r"data\.shards"),
        ("name: m\ndata: {shards: s}\nmodel: {start: ViT-B-32, text_layers: 2}\n", "text_layers cannot be set"),
        ("name: m\ndata: {shards: s}\nmodel: {lock_image: true, freeze_blocks: 2}\n", "freeze_blocks"),
        ("name: ../up\ndata: {shards: s}\n", "name"),
        ("- a\n- b\n", "mapping"),
        ("a: [\n", "not YAML"),
        ("", "mapping"),
    ],
)
def test_a_wrong_recipe_names_the_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(MedclipError, match=said) as caught:
        load_recipe(_write(tmp_path, text))
    assert caught.value.reason is Reason.RECIPE_INVALID
    assert "recipe.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        *((change, Reason.WRONG_USE) for change in ("train.lr=[1", "train.lr", "=3", "train.lr=")),
        *((change, Reason.RECIPE_INVALID) for change in ("train.zero_shot=[foo]", "train..lr=3", "name.x=3", "x=3")),
    ],
)
def test_a_wrong_override_is_refused(tmp_path: Path, change: str, reason: Reason) -> None:
    with pytest.raises(MedclipError) as caught:
        load_recipe(_write(tmp_path, TEXT), [change])
    assert caught.value.reason is reason


def test_a_missing_recipe_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MedclipError) as caught:
        load_recipe(tmp_path / "none.yaml")
    assert caught.value.reason is Reason.MISSING_FILE


def test_the_digest_follows_what_decides_the_weights() -> None:
    base = Recipe.model_validate({"name": "m", "data": {"shards": "s"}})
    same = load_recipe(base, ["out=elsewhere", "data.workers=7", "train.log_every=1", "data.cache_mb=0"])
    other = load_recipe(base, ["train.lr=1"])
    assert base.digest() == same.digest() != other.digest()


def test_a_recipe_of_before_heads_could_name_sources_goes_on_as_the_same_run() -> None:
    one, two = "skin_lesion", "body_region"
    for heads in ({"task": one}, [{"task": one}, {"task": two, "weight": 0.5}]):
        recipe = Recipe.model_validate({"name": "m", "data": {"shards": "s"}, "objective": {"supervised": heads}})
        assert not any(key.endswith(".sources") for key in recipe.decisive())
        named = load_recipe(recipe, [f"objective.supervised={{task: {one}, sources: [isic2017]}}"])
        assert named.decisive()["objective.supervised.sources"] == ["isic2017"]
        assert named.digest() != recipe.digest()


def test_folders_lie_beside_the_recipe_or_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s").mkdir()
    recipe = _write(tmp_path, TEXT)
    assert load_recipe(recipe).data.shards == (str(tmp_path / "s"),)
    monkeypatch.chdir(tmp_path)
    assert load_recipe(recipe).data.shards == ("s",)


def test_a_folder_inside_a_package_is_found_and_a_missing_package_is_named() -> None:
    assert package_folder("package:medclip/text/vocabulary").name == "vocabulary"
    with pytest.raises(MedclipError, match="pip install no-such-thing"):
        package_folder("package:no_such_thing/model")
    with pytest.raises(MedclipError, match="no such folder"):
        package_folder("/no/such/folder")


def test_compat_sets_what_the_reference_does_and_the_recipe_has_the_last_word(tmp_path: Path) -> None:
    recipe = load_recipe(_write(tmp_path, TEXT), ["compat=open_clip"])
    assert recipe.train.decay_embeddings
    assert recipe.augment.stretch == pytest.approx(4 / 3)
    assert recipe.train.lr == 1e-3
    own = load_recipe(_write(tmp_path, TEXT), ["compat=open_clip", "augment.stretch=1"])
    assert own.augment.stretch == 1
    plain = load_recipe(_write(tmp_path, TEXT))
    assert (plain.train.decay_embeddings, plain.augment.stretch) == (False, 1)
    again = load_recipe(recipe)
    assert again.digest() == recipe.digest() != plain.digest()


def test_a_stretched_crop_that_is_turned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="stretch goes with rotate_deg: 0"):
        load_recipe(_write(tmp_path, TEXT), ["augment.stretch=1.2"])


def test_views_whose_weights_are_all_0_are_refused(tmp_path: Path) -> None:
    nothing = "objective.views={image_text: 0, images: 0, texts: 0, joint: 0}"
    with pytest.raises(MedclipError, match="all weights of views are 0"):
        load_recipe(_write(tmp_path, TEXT), [nothing])


def test_two_views_need_the_loss_of_clip(tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="two_views goes with"):
        load_recipe(_write(tmp_path, TEXT), ["objective={loss: siglip, two_views: {}}"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("objective={same_label: stated, two_views: {}}", "one image and one caption"),
        ("data.source_power=0.2", "does nothing with policy: shard_mixed"),
        ("data.max_repeats=2", "does nothing with policy: shard_mixed"),
        ("data.together=8", "does nothing with policy: shard_mixed"),
        ("train.best_by=within_sources", r"needs train.zero_shot and train.export: best"),
    ],
)
def test_settings_of_several_sources_that_would_do_nothing_are_refused(tmp_path: Path, change: str, said: str) -> None:
    with pytest.raises(MedclipError, match=said):
        load_recipe(_write(tmp_path, TEXT), [change])


def test_the_word_masked_stands_for_the_medical_recipe_and_the_recipe_has_the_last_word(tmp_path: Path) -> None:
    recipe = load_recipe(_write(tmp_path, "name: m\nobjective: masked\ndata: {shards: s}\n"))
    masked = recipe.objective.masked
    assert masked is not None
    assert (masked.weight, masked.ratio, masked.decoder, masked.normalise) == (1, 0.9, "dec128d2", False)
    assert (recipe.objective.contrastive, recipe.needs_words) == (0, False)
    assert (recipe.augment.crop_scale, recipe.augment.flip, recipe.augment.rotate_deg) == ((0.5, 1), 0.5, 0)
    assert (recipe.model.image_tower, recipe.model.image_weights) == ("vit_small_patch16_224", None)
    assert (recipe.train.betas, recipe.train.weight_decay, recipe.train.image_lr_factor) == ((0.9, 0.95), 0.05, 1)
    assert recipe.train.lr == pytest.approx(1.5e-4 * 64 / 256)
    changes = ["objective.masked.ratio=0.8", "train.batch_size=512", "augment.flip=0", "objective=masked_natural"]
    own = load_recipe(_write(tmp_path, TEXT.replace("lr: 1e-3", "epochs: 3")), changes)
    assert own.objective.masked is not None
    assert (own.objective.masked.ratio, own.objective.masked.decoder, own.augment.flip) == (0.8, "dec512d8", 0)
    assert (own.train.lr, own.train.epochs, own.augment.crop_scale) == (pytest.approx(3e-4), 3, (0.2, 1))
    assert load_recipe(own).digest() == own.digest()
    assert load_recipe(_write(tmp_path, TEXT), ["objective=masked"]).train.lr == 1e-3


def test_a_masked_autoencoder_hides_nine_tenths_and_painted_patches_a_half(tmp_path: Path) -> None:
    recipe = _write(tmp_path, TEXT)
    for change, ratio, normalise in (("{decoder: dec512d2, weight: 0.5}", 0.9, False), ("{}", 0.5, True)):
        loaded = load_recipe(recipe, [f"objective.masked={change}"])
        assert loaded.objective.masked is not None
        assert (loaded.objective.masked.ratio, loaded.objective.masked.normalise) == (ratio, normalise)
        assert loaded.needs_words  # beside the contrastive loss


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["objective=maskd"], "objective is 'maskd'. Did you mean 'masked'"),
        (["objective=masked", "text.vocab_size=500", "model.lock_text=true"], "text.vocab_size and model.lock_text do"),
        (["objective=masked", "train.zero_shot=[chest_xray_findings]"], "train.zero_shot does nothing without words"),
        (["train.zero_shot=[breast_cancer_risk]"], "words do not ask"),
        (["objective.contrastive=0"], "nothing is learned"),
        (["objective=masked", "objective.masked.weight=0"], "nothing is learned"),
        (["objective=masked", "objective.loss=siglip"], "objective.loss does nothing without words"),
        (["objective.masked={decode_ratio: 0.5}"], "decode_ratio leaves tubes"),
        (["objective.masked={ratio: 1}"], "ratio"),
        (["data.num_repeats=2"], "num_repeats is for objectives without words"),
        (["objective=masked", "data.num_repeats=7", "train.batch_size=12"], "does not divide"),
        (["objective.masked={decoder: dec9}"], "decoder"),
    ],
)
def test_what_a_masked_recipe_cannot_ask_is_refused(tmp_path: Path, changes: list[str], said: str) -> None:
    with pytest.raises(MedclipError, match=said) as caught:
        load_recipe(_write(tmp_path, TEXT), changes)
    assert caught.value.reason is Reason.RECIPE_INVALID


def test_towers_that_a_start_brings_stay_as_they_are(tmp_path: Path) -> None:
    recipe = load_recipe(_write(tmp_path, TEXT), ["objective=masked", "model.start=a-pack"])
    assert "image_tower" not in recipe.model.model_fields_set
    recipe = load_recipe(_write(tmp_path, TEXT), ["objective=masked", "model.image_weights=a-pack"])
    assert "image_tower" not in recipe.model.model_fields_set


def test_a_training_that_was_begun_with_0_2_0_goes_on() -> None:
    # Computed at the commit of 0.2.0: a key that came later must not change them (`_CAME_LATER`).
    assert load_recipe(tiny_recipe(Path("/shards/some"))).digest() == load_recipe(tiny_recipe(Path("/some"))).digest()
    assert load_recipe(tiny_recipe(Path("/shards/nosuch"))).digest() == "a942e9bbd4e3fedb"
    assert load_recipe(masked_recipe(Path("/shards/nosuch"))).digest() == "0d4b8316e426c245"
