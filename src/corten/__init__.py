"""Corten: from a trained model to a running, scalable, observable, secure service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The public names and where they live; imported when first used, so that the server inside an image, which shares this
# package, never loads the builder (PEP 562).
_PUBLIC = {
    "build": "corten.ops.build",
    "copy": "corten.ops.copy",
    "diff": "corten.ops.diff",
    "images": "corten.ops.images",
    "inspect": "corten.ops.inspect",
    "package": "corten.ops.package",
    "up": "corten.ops.up",
    "verify": "corten.ops.verify",
    "deploy": "corten.ops.deploy",
    "status": "corten.ops.status",
    "predict": "corten.ops.predict",
    "pull": "corten.ops.pull",
    "push": "corten.ops.push",
    "rebuild": "corten.ops.rebuild",
    "promote": "corten.ops.change",
    "restart": "corten.ops.change",
    "rollback": "corten.ops.change",
    "sign": "corten.ops.sign",
    "stop": "corten.ops.stop",
    "CortenError": "corten.errors",
    "InputError": "corten.adapters.base",
}

__all__ = [
    "CortenError",
    "InputError",
    "__version__",
    "build",
    "copy",
    "deploy",
    "diff",
    "images",
    "inspect",
    "package",
    "predict",
    "promote",
    "pull",
    "push",
    "rebuild",
    "restart",
    "rollback",
    "sign",
    "status",
    "stop",
    "up",
    "verify",
]

if TYPE_CHECKING:
    from corten.adapters.base import InputError
    from corten.errors import CortenError
    from corten.ops.build import build
    from corten.ops.change import promote, restart, rollback
    from corten.ops.copy import copy
    from corten.ops.deploy import deploy
    from corten.ops.diff import diff
    from corten.ops.images import images
    from corten.ops.inspect import inspect
    from corten.ops.package import package
    from corten.ops.predict import predict
    from corten.ops.pull import pull
    from corten.ops.push import push
    from corten.ops.rebuild import rebuild
    from corten.ops.sign import sign
    from corten.ops.status import status
    from corten.ops.stop import stop
    from corten.ops.up import up
    from corten.ops.verify import verify


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        import importlib

        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'corten' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
