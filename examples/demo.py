"""`make demo`: the main job on a really trained model, told step by step.

Trains the breast-cancer diagnosis model (seeded; real data bundled with scikit-learn), builds an image, starts two
replicas behind the gateway, asks about patients the model has not seen, compares with the training process, and shows
where everything is. The service goes on running; the last line says how to stop it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORTEN = Path(sys.executable).with_name("corten")
NAME = "diagnosis"
PATIENTS = 50


def main() -> int:
    began_s = time.monotonic()
    title("1. Train (seeded, real data)")
    run(sys.executable, HERE / "diagnosis" / "train.py")

    title("2. Look at this machine")
    run(CORTEN, "doctor", check=False)

    title("3. Build an image and run it: `corten up examples/diagnosis`")
    up = corten("up", HERE / "diagnosis", "--replicas", "2", *port_options())

    title("4. Ask it about patients it has not seen")
    rows, expected = unseen_patients()
    answers, seconds = ask(up["url"], rows)
    agree = sum(ours == theirs for ours, theirs in zip(answers, expected, strict=True))
    print(f"  asked {len(rows)} times, {len(rows) / seconds:.0f} requests/s one after the other")
    print(f"  first answers: {answers[:8]} (0 = malignant, 1 = benign)")
    print(f"  {agree} of {len(rows)} equal to the training process")

    title("5. Where things are")
    run(CORTEN, "status")
    built = up["build"]
    print(f"\n  image    {built['reference']}")
    print(f"  size     {built['size_bytes'] / 1e6:.1f} MB in {len(built['layers'])} layers")
    for layer in built["layers"]:
        print(f"           {layer['size_bytes'] / 1e6:7.2f} MB  {layer['kind']:8} {layer['title']}")
    print(f"  timing   build {built['seconds']:.2f} s, first replica ready {up['seconds']:.2f} s after the command")
    print(f"  URL      {up['url']}")
    print(f"\n  {up['curl']}\n")
    print(f"demo done in {time.monotonic() - began_s:.1f} s. It goes on running; to end it: {CORTEN} stop --all")
    return 0 if agree == len(rows) else 1


def unseen_patients() -> tuple[list[list[float]], list[int]]:
    """Held-out rows and what the model answers to them in this process."""
    sys.path.insert(0, str(HERE / "diagnosis"))
    import joblib
    from train import split

    _, rows, _, _ = split()
    rows = rows[:PATIENTS]
    model = joblib.load(HERE / "diagnosis" / "model.joblib")
    return rows.tolist(), model.predict(rows).tolist()


def ask(url: str, rows: list[list[float]]) -> tuple[list[int], float]:
    """One request a row, through the gateway."""
    answers = []
    began_s = time.monotonic()
    for row in rows:
        request = urllib.request.Request(  # noqa: S310
            url + "predict", json.dumps({"inputs": [row]}).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            answers += json.load(answer)["outputs"]
    return answers, time.monotonic() - began_s


def port_options() -> list[str]:
    """A free port for the first start, should 8080 be somebody else's; a running gateway keeps its own."""
    deployed = subprocess.run([CORTEN, "status", "--json"], capture_output=True, text=True, check=False)
    if deployed.returncode == 0 and json.loads(deployed.stdout)["deployments"]:
        return []
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8080))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return ["--port", str(probe.getsockname()[1])]


def title(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def run(*command: object, check: bool = True) -> None:
    subprocess.run([str(part) for part in command], check=check, env={**os.environ, "PYTHONUNBUFFERED": "1"})


def corten(*words: object) -> dict:
    """Run a verb with --json and give its document; progress is shown as it comes."""
    command = [str(CORTEN), *(str(word) for word in words), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        event = json.loads(line)["event"] if line.startswith("{") else {"phase": "warning", "step": "", "message": line}
        if event["phase"] in ("done", "warning"):
            took = f"  {event['seconds']:.2f} s" if "seconds" in event else ""
            print(f"  {event['step']:9} {event['message']}{took}", flush=True)
    document = json.load(process.stdout)
    if process.wait() != 0:
        error = document["error"]
        raise SystemExit("\n".join(f"{key}: {text}" for key, text in error.items()))
    return document


if __name__ == "__main__":
    raise SystemExit(main())
