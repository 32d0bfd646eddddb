"""The annotator's network in plain numpy: vectors of length one, near for near meanings, the same alone or in a batch."""

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "annotator"
KNOWN = [-0.034477, 0.031023, 0.006735, 0.026109]
pytestmark = pytest.mark.examples
pytest.importorskip("tokenizers", reason="tokenizers is not installed (tests/e2e runs it in an image)")
pytest.importorskip("safetensors", reason="safetensors is not installed (tests/e2e runs it in an image)")


@pytest.fixture(scope="module")
def network():
    if not (FOLDER / "model" / "model.safetensors").exists():
        pytest.skip("run examples/annotator/make.py first")
    sys.path.insert(0, str(FOLDER))
    try:
        from minilm import MiniLM
    finally:
        sys.path.remove(str(FOLDER))
    return MiniLM(FOLDER / "model")


def test_vectors_have_length_one_whatever_the_text(network):
    import numpy as np

    vectors = network.embed(["hello", "", "word " * 1000, "日本語 😀"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_padding_in_a_batch_changes_nothing(network):
    import numpy as np

    texts = ["A man is eating food.", "word " * 100, "x"]
    alone = np.concatenate([network.embed([text]) for text in texts])
    assert np.abs(network.embed(texts) - alone).max() < 1e-5


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("A man is eating food.", "A man eats a piece of bread.", "A woman plays the violin."),
        ("How do I reset my password?", "I forgot my login credentials.", "The parcel arrived broken."),
        ("The stock market fell sharply.", "Shares dropped today.", "The cat sleeps on the sofa."),
    ],
)
def test_what_means_the_same_is_nearer_than_what_does_not(text, near, far, network):
    first, close, distant = network.embed([text, near, far])
    assert first @ close > first @ distant + 0.2


def test_known_vectors_are_reproduced(network):
    # The first numbers that torch and transformers give for this text with the same weights (checked to 1e-6).
    import numpy as np

    assert np.allclose(network.embed(["Hello world"])[0][:4], KNOWN, atol=1e-4)
