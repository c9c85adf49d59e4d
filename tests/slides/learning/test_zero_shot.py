"""MI-Zero's pooling: the highest patches of each class, each class by itself."""

import numpy as np
import pytest

from medclip.errors import MedclipError
from medclip.models.prototypes.class_vectors import ClassVectors
from medclip.slides.learning.predict import patch_logits, top_pooled


def test_a_slide_is_the_mean_of_its_best_patches_of_each_class():
    logits = np.array([[1.0, 9.0], [5.0, 0.0], [3.0, 1.0], [4.0, 2.0]])
    assert top_pooled(logits, top=1).tolist() == [5.0, 9.0]
    assert top_pooled(logits, top=2).tolist() == [4.5, 5.5]
    assert top_pooled(logits, top=100).tolist() == logits.mean(axis=0).tolist()


def test_the_order_of_patches_does_not_matter():
    logits = np.random.default_rng(0).normal(size=(500, 3))
    assert np.array_equal(top_pooled(logits), top_pooled(logits[::-1]))


def test_a_small_lesion_is_found_by_the_top_patches_and_drowned_by_the_mean():
    rng = np.random.default_rng(0)
    normal, lesion = rng.normal(size=(1000, 1)), rng.normal(size=(1000, 1))
    lesion[:10] += 6
    assert top_pooled(lesion, top=10)[0] - top_pooled(normal, top=10)[0] > 2
    assert abs(top_pooled(lesion, top=1000)[0] - top_pooled(normal, top=1000)[0]) < 0.2


def test_patches_are_scored_as_images_are():
    unit = np.eye(3, dtype=np.float32)
    one_of = ClassVectors(("a", "b"), unit[:2], None)
    assert patch_logits(unit, one_of, "multiclass", 10.0).tolist() == [[10, 0], [0, 10], [0, 0]]
    each = ClassVectors(("a",), unit[:1], unit[1:2])
    assert patch_logits(unit, each, "multilabel", 10.0).tolist() == [[10], [-10], [0]]


def test_no_patch_and_no_number_are_refused():
    for logits, top in ((np.zeros((0, 2)), 5), (np.zeros((3, 2)), 0)):
        with pytest.raises(MedclipError):
            top_pooled(logits, top)
