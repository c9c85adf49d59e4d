"""A head that takes tokens, from this file: adapted with, scored with, kept and compared by the public verbs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

import medclip
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import HEADS, ArrayHead
from medclip.adaptation.data.token_heads import ShotTokens
from medclip.adaptation.methods import METHODS, Fitted, Method
from medclip.adaptation.pack.adapted_model import Adapted
from medclip.errors import MedclipError
from medclip.models.packs.pack import load_model
from medclip.models.towers.tokens import Tokens
from medclip.scoring.exam_scores import probability_on_grid
from tests.kits.adapt_tables import make_table, tiny
from tests.kits.embeddings import embed_files

__all__ = ["tiny"]
NAMES = ("clear", "hazy", "no finding")


def highest(tokens: Tokens[NDArray[Any]]) -> NDArray[np.float32]:
    """Return the highest value of each channel over the tokens that hold something, of unit norm; no attention."""
    values_VD = np.where(tokens.mask_BL[:, :, None], tokens.tokens_BLD, -np.inf).max(axis=1)
    return values_VD / np.linalg.norm(values_VD, axis=1, keepdims=True)


@dataclass(frozen=True, eq=False)
class HighestHead(ArrayHead):
    """The cosine of the highest values of tokens with the mean of those of each class."""

    means_CD: NDArray[np.float32]
    scale: float
    kind: ClassVar[str] = "highest"
    takes = "tokens"

    def logits(self, features_ND: Any, model: Any) -> NDArray[np.float32]:
        return np.float32(self.scale) * (highest(features_ND) @ self.means_CD.T)


def fit_highest(base: Any, text: Any, train: Examples, val: Any, *, seed: int, scale: float = 30.0) -> Fitted:
    rows = np.stack([highest(tokens).mean(axis=0) for tokens in ShotTokens(base, train)])
    means = np.stack([rows[train.targets == c].mean(axis=0) for c in range(len(text.names))])
    return Fitted(HighestHead(means.astype(np.float32), scale), means.size, {"scale": scale})


@pytest.fixture
def method(monkeypatch: pytest.MonkeyPatch) -> str:
    row = Method("highest", "Highest tokens", f"{__name__}:fit_highest", needs_words=False, takes="tokens")
    monkeypatch.setitem(METHODS, "highest", row)
    monkeypatch.setitem(HEADS, "highest", f"{__name__}:HighestHead")
    return "highest"


def test_a_head_of_tokens_is_adapted_scored_with_kept_and_compared(method: str, tiny: Path, tmp_path: Path):
    table = make_table(tmp_path / "in", NAMES, patients=6)
    options: dict[str, Any] = {"method": method, "shots": 2, "workers": 1, "test_share": 0.3, "overrides": ["scale=25"]}
    run = medclip.adapt(table, "finding", model=tiny, out=tmp_path / "pack", checkpoint=tmp_path / "small", **options)
    pixels = [np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3)).astype(np.uint8)]
    kept = Adapted.load(tmp_path / "small", load_model(tiny))
    np.testing.assert_array_equal(kept.predict_logits(pixels), run.adapted.predict_logits(pixels))
    tokens = kept.model.encode_tokens(pixels[0])
    expected = kept.fitted.head.logits(tokens, kept.model).mean(axis=0)  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(kept.predict_logits(pixels)[0], expected, rtol=1e-6)

    scored = medclip.score(
        tmp_path / "in", tmp_path / "out", model=run.folder, modality="xray", group_by="file", workers=1
    )
    shas = {f["study"]: f["sha256"] for f in scored.files.to_pylist()}
    wanted = dict(zip(run.test.sha256, run.test.probabilities_NC, strict=True))
    rows = [row for row in scored.scores.to_pylist() if row["task"] == "finding" and shas[row["study"]] in wanted]
    assert len(rows) == 3 * len(wanted)
    for row in rows:
        probability = wanted[shas[row["study"]]][["clear", "hazy", "no_finding"].index(row["class"])]
        assert row["probability"] == probability_on_grid(probability)
    assert "chest_xray_view" in {row["task"] for row in scored.scores.to_pylist()}  # prompts read the vectors alone
    medclip.compare(
        table,
        "finding",
        model=tiny,
        out=tmp_path / "compared",
        method=[method, "zero-shot"],
        shots=[1],
        num_seeds=2,
        workers=1,
        test_share=0.3,
    )


def test_vectors_alone_are_refused(method: str, tiny: Path, tmp_path: Path):
    table = make_table(tmp_path / "in", NAMES, patients=6)
    vectors = embed_files(tmp_path / "vectors", tiny, tmp_path / "in")
    with pytest.raises(MedclipError, match="Highest tokens learns of the tokens of images, and a folder of embeddings"):
        medclip.adapt(table, "finding", model=tiny, images=vectors, method=method, shots=2, workers=1)


def test_shots_are_kept_up_to_a_ceiling_and_encoded_anew_beyond(tiny: Path):
    base = load_model(tiny)
    rng = np.random.default_rng(0)
    pixels = tuple(rng.integers(0, 255, (v, 64, 64, 3)).astype(np.uint8) for v in (1, 2, 1))
    nothing = tuple(np.zeros((len(p), 1), np.float32) for p in pixels)
    examples = Examples(pixels, nothing, np.array([0, 1, 1]), ("a", "b", "c"))
    one = base.encode_tokens(pixels[0])
    tokens = ShotTokens(base, examples, most_bytes=one.tokens_BLD.nbytes * 2)
    assert [len(t.tokens_BLD) for t in tokens] == [1, 2, 1]
    assert tokens[0] is tokens[0]
    assert tokens[1] is not tokens[1]
    assert tokens[2] is tokens[2]
    np.testing.assert_array_equal(tokens[1].tokens_BLD, tokens[1].tokens_BLD)
