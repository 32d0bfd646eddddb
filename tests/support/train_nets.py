"""Run by a Python that has PyTorch: train a small network on real digits and save it in the forms its weights come in.

python train_nets.py FOLDER       # with digits.npy (rows, 64 pixels and the digit) and net.py in it
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file


def main(folder):
    sys.path.insert(0, str(folder))
    from net import Net

    torch.manual_seed(7)
    torch.set_num_threads(1)
    data = torch.from_numpy(np.load(folder / "digits.npy")).float()
    rows, digits = data[:, :64] / 16, data[:, 64].long()
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for start in range(0, 40 * 64, 64):
        at = torch.arange(start, start + 64) % (len(rows) - 200)
        loss = torch.nn.functional.cross_entropy(net(rows[at]), digits[at])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        answers = net(rows[-200:])
    state = net.state_dict()
    save_file(state, folder / "net.safetensors")
    torch.save(state, folder / "net.pt")
    torch.save({"epoch": 1, "model_state_dict": {f"module.{name}": value for name, value in state.items()},
                "optimizer_state_dict": optimizer.state_dict()}, folder / "checkpoint.pt")  # fmt: skip
    torch.save(net, folder / "pickled.pt")
    torch.save({name: value for name, value in state.items() if name != "last.bias"}, folder / "short.pt")
    torch.save({**state, "last.weight": state["last.weight"][:, :3]}, folder / "narrow.pt")
    several = torch.export.Dim("rows", max=16)
    torch.export.save(torch.export.export(net, (rows[:3],), dynamic_shapes=[{0: several}]), folder / "program.pt2")
    torch.jit.save(torch.jit.trace(net, rows[:2]), folder / "script.pt")
    told = {
        "rows": rows[-200:].tolist(),
        "answers": answers.tolist(),
        "right": float((answers.argmax(1) == digits[-200:]).float().mean()),
    }
    (folder / "net.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
