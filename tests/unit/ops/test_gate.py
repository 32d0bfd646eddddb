"""Which packages the gate calls unused."""

import pytest

from corten.ops.unused import Unused, unused_packages


def install(root, name, files):
    folder = root / "usr/local/lib/python3.11/dist-packages"
    info = folder / f"{name}.dist-info"
    info.mkdir(parents=True)
    rows = [f"{path},sha256=x,{size}" for path, size in files.items()]
    (info / "INSTALLER").write_text("corten\n")
    (info / "RECORD").write_text("\n".join([*rows, f"{name}.dist-info/RECORD,,", ""]))


@pytest.fixture
def root(tmp_path):
    install(tmp_path, "used-1.0", {"used/__init__.py": 10, "used/data.bin": 900})
    install(tmp_path, "library_only-2.0", {"library_only.libs/libx.so.1": 5000})
    install(tmp_path, "idle-3.1", {"idle/__init__.py": 100, "idle/more.py": 23})
    install(tmp_path, "large_idle-4.0", {'"large_idle/a,b.py"': 4000})
    install(tmp_path, "of_the_base-1.0", {"of_the_base/__init__.py": 10})
    (tmp_path / "usr/local/lib/python3.11/dist-packages/of_the_base-1.0.dist-info/INSTALLER").write_text("pip\n")
    return tmp_path


def test_a_package_is_used_when_one_of_its_modules_or_libraries_was_loaded(root):
    loaded = [
        "/usr/lib/python3.11/json/__init__.py",
        "/usr/local/lib/python3.11/dist-packages/used/__init__.py",
        "/usr/local/lib/python3.11/dist-packages/library_only.libs/libx.so.1",
    ]
    assert unused_packages(root, loaded) == (Unused("large_idle", "4.0", 4000), Unused("idle", "3.1", 123))


def test_paths_of_a_process_without_a_sandbox_count_as_well(root):
    loaded = [f"{root}/usr/local/lib/python3.11/dist-packages/{name}/__init__.py" for name in ("used", "idle")]
    assert [one.name for one in unused_packages(root, loaded)] == ["library_only", "large_idle"]
