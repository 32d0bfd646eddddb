"""Which devices are described."""

import json

import pytest

from corten.engine.cdi import CDI_FOLDERS, described, podmans_folders

# As `nvidia-ctk cdi generate` writes it.
YAML = """\
---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  hooks:
  - args: [nvidia-cdi-hook, update-ldcache]
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: "0"
- name: all
  containerEdits: {}
kind: nvidia.com/gpu
"""


def test_the_names_of_all_specifications_are_known(tmp_path):
    (tmp_path / "nvidia.yaml").write_text(YAML)
    (tmp_path / "own.json").write_text(json.dumps({"kind": "a.test/fpga", "devices": [{"name": "x"}, {"name": "y.1"}]}))
    (tmp_path / "README").write_text("no specification")
    found = described([tmp_path / "nowhere", tmp_path])
    assert found == {"nvidia.com/gpu=0", "nvidia.com/gpu=all", "a.test/fpga=x", "a.test/fpga=y.1"}
    assert described([tmp_path / "nowhere"]) == frozenset()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "{"),
        ("a.json", "[]"),
        ("a.json", '{"kind": "a/b", "devices": [1]}'),
        ("a.json", '{"devices": [{"name": "x"}]}'),
        ("a.yaml", "{kind: a/b, devices: [{name: x}]}"),
        ("a.yaml", ""),
        ("a.yaml", "\xff"),
    ],
)
def test_with_one_that_cannot_be_read_nobody_knows(tmp_path, name, text):
    (tmp_path / "own.json").write_text(json.dumps({"kind": "a.test/fpga", "devices": [{"name": "x"}]}))
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    assert described([tmp_path]) is None


def test_podman_looks_where_its_settings_say_too(tmp_path):
    assert podmans_folders({"HOME": str(tmp_path)}, tmp_path) == CDI_FOLDERS
    (tmp_path / "etc/containers/containers.conf.d").mkdir(parents=True)
    (tmp_path / ".config/containers").mkdir(parents=True)
    (tmp_path / "etc/containers/containers.conf").write_text('[engine]\ncdi_spec_dirs = ["/etc/cdi", "/opt/cdi"]\n')
    (tmp_path / "etc/containers/containers.conf.d/broken.conf").write_text("[engine")
    (tmp_path / ".config/containers/containers.conf").write_text("engine = 1")
    (tmp_path / "mine").write_text('[engine]\ncdi_spec_dirs = ["/srv/cdi"]\n')
    env = {"HOME": str(tmp_path), "CONTAINERS_CONF": str(tmp_path / "mine")}
    assert [str(path) for path in podmans_folders(env, tmp_path)] == [
        "/etc/cdi",
        "/var/run/cdi",
        "/opt/cdi",
        "/srv/cdi",
    ]
