"""Run a folder's network: by ONNX Runtime where its graph lies there, else by transformers and PyTorch on the CPU."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from corten.adapters.hf_folder import HfFolder, Task
from corten.adapters.hf_tokens import Tokens

if TYPE_CHECKING:
    import numpy as np

# What the graphs of optimum and sentence-transformers call it.
_HIDDEN = ("last_hidden_state", "token_embeddings")
_LOGITS = ("logits",)
_CLASSES = {
    Task.EMBED: "AutoModel",
    Task.FEATURES: "AutoModel",
    Task.CLASSIFY: "AutoModelForSequenceClassification",
    Task.TAG: "AutoModelForTokenClassification",
}


class Network(Protocol):
    """A loaded network."""

    def run(self, tokens: Tokens) -> np.ndarray:
        """Logits of a classifier; of others a vector a token, (texts, tokens, width)."""
        ...


def open_network(models: Path, folder: HfFolder) -> Network:
    """Load the weights; raises what the runtime raises."""
    return OnnxNetwork(models / folder.onnx, folder.task) if folder.onnx else TorchNetwork(models, folder)


class OnnxNetwork:
    """A graph in ONNX."""

    def __init__(self, path: Path, task: Task) -> None:
        from corten.adapters.onnx_session import open_session

        self._session = open_session(path)
        self._inputs = [given.name for given in self._session.get_inputs()]
        there = [answer.name for answer in self._session.get_outputs()]
        wanted = _LOGITS if task in (Task.CLASSIFY, Task.TAG) else _HIDDEN
        self._output = next((name for name in wanted if name in there), there[0])

    def run(self, tokens: Tokens) -> np.ndarray:
        """See Network."""
        arrays = {"input_ids": tokens.ids, "attention_mask": tokens.mask, "token_type_ids": tokens.kinds}
        (answer,) = self._session.run([self._output], {name: arrays[name] for name in self._inputs})
        found: np.ndarray = answer
        return found


class TorchNetwork:
    """A model of transformers, in float32."""

    def __init__(self, models: Path, folder: HfFolder) -> None:
        # Nothing is asked for over the network, should a file be missing.
        os.environ["HF_HUB_OFFLINE"] = "1"
        import torch
        import transformers

        from corten.adapters.threads import threads

        torch.set_num_threads(threads(os.environ))
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        loaded, told = getattr(transformers, _CLASSES[folder.task]).from_pretrained(
            models / folder.base,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
        # transformers only warns, and answers with random numbers. The pooler is of no use to either task without it.
        if missing := [name for name in told["missing_keys"] if "pooler." not in name]:
            raise ValueError(f"the weights lack {', '.join(sorted(missing)[:4])} of {folder.architecture}")
        self._torch = torch
        self._model = loaded.float().eval()
        takes = inspect.signature(self._model.forward).parameters
        self._has_kinds = "token_type_ids" in takes and getattr(loaded.config, "type_vocab_size", 0) > 1
        self._has_logits = folder.task in (Task.CLASSIFY, Task.TAG)

    def run(self, tokens: Tokens) -> np.ndarray:
        """See Network."""
        given: dict[str, Any] = {
            "input_ids": self._torch.from_numpy(tokens.ids),
            "attention_mask": self._torch.from_numpy(tokens.mask),
        }
        if self._has_kinds:
            given["token_type_ids"] = self._torch.from_numpy(tokens.kinds)
        with self._torch.inference_mode():
            answer = self._model(**given)
        found: np.ndarray = (answer.logits if self._has_logits else answer.last_hidden_state).numpy()
        return found
