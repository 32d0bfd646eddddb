"""A session of ONNX Runtime on the CPU, as the server wants it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from corten.adapters.threads import threads


def open_session(model: Path | bytes) -> Any:
    """An InferenceSession on a file or its bytes, with as many threads as a call may take.

    Raises what the runtime raises.
    """
    runtime = _import_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads(os.environ)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning workers would take the processor from the server's loop between requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _import_runtime() -> Any:
    # At import the Linux wheels write a device id below the home folder and report to Microsoft. 1.32 obeys the first
    # switch; the second is its name in other releases (microsoft/onnxruntime#27379, #29843).
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("ORT_TELEMETRY_DISABLED", "1")
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    return onnxruntime
