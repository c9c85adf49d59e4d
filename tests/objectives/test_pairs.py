"""Keys say which pairs of a batch belong together."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError, Reason
from medclip.objectives.block import make_block
from medclip.objectives.pairs import Pairs, keys_of, positives
from tests.kits.objectives import batches, part_of, relations


def test_equal_strings_have_equal_keys_and_an_empty_one_has_none() -> None:
    keys = keys_of(["a", "b", "a", ""], ["x", "x", "", ""])
    assert keys.shape == (4, 2)
    assert keys.dtype == torch.int64
    assert keys[0, 0] == keys[2, 0] != keys[1, 0]
    assert keys[3].tolist() == [-1, -1]
    assert bool((keys >= -1).all())


def test_keys_do_not_depend_on_the_process() -> None:
    code = "from medclip.objectives.pairs import keys_of; print(keys_of(['study é']).item())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == keys_of(["study é"]).item()


def test_a_batch_of_no_samples_has_keys_of_no_rows() -> None:
    assert keys_of([], []).shape == (0, 2)


def test_columns_of_different_lengths_and_none_at_all_are_refused() -> None:
    for columns in ((), (["a"], ["a", "b"])):
        with pytest.raises(MedclipError) as caught:
            keys_of(*columns)
        assert caught.value.reason is Reason.WRONG_USE


def test_a_key_in_another_column_is_another_key() -> None:
    keys = keys_of(["a", "b", "b"], ["b", "c", "c"])
    assert positives(keys, keys).int().tolist() == [[1, 0, 0], [0, 1, 1], [0, 1, 1]]


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.sampled_from(["", "x", "y"])), min_size=1, max_size=9))
def test_two_samples_are_positives_if_any_column_agrees(rows: list[tuple[str, str]]) -> None:
    keys = keys_of([r[0] for r in rows], [r[1] for r in rows])
    expected = [[any(x and x == y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]
    assert positives(keys, keys).tolist() == expected


@given(batch=batches(), ranks=st.integers(1, 3))
def test_chunks_of_ranks_put_together_are_the_whole_table(
    batch: tuple[int, int, Pairs | None, int], ranks: int
) -> None:
    size, _, pairs, chunk = batch
    size = max(size // ranks, 1) * ranks if size >= ranks else 0
    pairs = part_of(pairs, slice(0, size))
    positive, ignored, weights, valid = relations(pairs, size)
    rows_positive, rows_left_out, row_weights = [], [], []
    for rank in range(ranks):
        block = make_block(pairs, size, rank, ranks, torch.device("cpu"))
        row_weights.append(block.row_weights_b)
        for part in block.parts(chunk):
            yes, no = block.positive(part), block.left_out(part, block.positive(part))
            if yes is None:  # only the partner
                yes = block.own_b[part, None] == torch.arange(len(block.col_weights_N))
            rows_positive.append(yes)
            rows_left_out.append(torch.zeros_like(yes) if no is None else no)
    if not rows_positive:
        assert not size
        return
    both = valid[:, None] & valid
    assert torch.equal(torch.cat(rows_positive)[both], positive[both])
    assert torch.equal(torch.cat(rows_left_out), (ignored & both) | ~both)
    expected = weights * valid * ranks / max(float(weights[valid].sum()), 1e-30)
    torch.testing.assert_close(torch.cat(row_weights).double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("positive_BK", torch.zeros(3, dtype=torch.int64)),
        ("ignored_BK", torch.zeros(3, 1)),
        ("weights_B", torch.ones(3, dtype=torch.int64)),
        ("valid_B", torch.ones(3)),
        ("valid_B", torch.tensor(True)),
    ],
)
def test_tensors_of_another_shape_or_type_are_refused(field: str, value: torch.Tensor) -> None:
    with pytest.raises(MedclipError, match=field):
        Pairs(**{field: value})


def test_fields_of_different_lengths_and_pairs_of_another_batch_are_refused() -> None:
    with pytest.raises(MedclipError, match="different lengths"):
        Pairs(weights_B=torch.ones(3), valid_B=torch.ones(4, dtype=torch.bool))
    with pytest.raises(MedclipError, match="pairs of 3 samples"):
        make_block(Pairs(weights_B=torch.ones(3)), 4, 0, 1, torch.device("cpu"))
