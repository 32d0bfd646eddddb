"""What a LitServe API imports, for images without LitServe: `import litserve` finds this module there.

The names and their meaning are those of LitServe's reference (lightning.ai/docs/litserve); written from that, not from
its code.
"""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["LitAPI", "LitServer"]

_log = logging.getLogger(__name__)


class LitAPI:
    """What an API inherits from: requests pass through its methods in order, by default unchanged."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.device: Any = None

    def setup(self, device: Any) -> None:
        """Load the model. Nothing by default."""

    def decode_request(self, request: Any) -> Any:
        """A request's JSON object as the model's input."""
        return request

    def predict(self, x: Any) -> Any:
        """The model's answer to an input."""
        raise NotImplementedError

    def encode_response(self, output: Any) -> Any:
        """A model's answer as JSON."""
        return output

    def log(self, key: str, value: Any) -> None:
        """Note a figure in the replica's log."""
        _log.info("logged by the model", extra={"key": key, "value": str(value)})


class LitServer:
    """Stands for the server, which in an image is Corten's."""

    def __init__(self, lit_api: Any, **settings: Any) -> None:
        self.lit_api = lit_api
        self.settings = settings

    def run(self, **settings: Any) -> None:
        """Do nothing: the image has a server already."""
        del settings
        _log.info("LitServer.run does nothing here: the image has a server")
