"""Which labels fit a text: the nearest ones by what they mean, without training on the labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from minilm import MiniLM

# Each label with a sentence or two of what such texts are about; a text is compared with these.
LABELS = {
    "delivery": "The parcel is late, lost or was delivered to the wrong address. Where is my shipment?",
    "billing": "A wrong charge on my card or invoice, a payment problem, I paid twice.",
    "refund": "I want to return the item and get my money back.",
    "account": "I cannot log in, forgot my password, or want to change or delete my account.",
    "defect": "The product arrived broken, is defective or stopped working.",
    "praise": "Thank you, great product and excellent service, I am very happy.",
}


@dataclass
class Label:
    """A label and how near it is: 1 is the same meaning, 0 none in common."""

    name: str
    score: float


@dataclass
class Call:
    """The arguments of one `predict`, as `predict_batch` gets them."""

    text: str
    top: int = 3


class Annotator:
    """Labels for texts of customers."""

    def __init__(self, models: Path = Path(__file__).parent / "model") -> None:
        self._network = MiniLM(models)
        self._names = list(LABELS)
        self._labels = self._network.embed(list(LABELS.values()))

    def predict(self, text: str, top: int = 3) -> list[Label]:
        """The `top` nearest labels, the nearest first."""
        return self.predict_batch([Call(text, top)])[0]

    def embed(self, texts: list[str]) -> list[list[float]]:
        """A vector of length one for each text: with this the model answers `/v1/embeddings` too."""
        return self._network.embed(texts).tolist()

    def predict_batch(self, calls: list[Call]) -> list[list[Label]]:
        """The same for requests that came together: the network runs once for all."""
        near = self._network.embed([call.text for call in calls]) @ self._labels.T
        return [
            [Label(self._names[at], float(scores[at])) for at in (-scores).argsort()[: max(call.top, 0)]]
            for call, scores in zip(calls, near, strict=True)
        ]
