"""No model file gets to run anything: not when it is looked at, not when it is loaded, whatever it hides in."""

import pickle
import subprocess
import sys
from pathlib import Path

import hostile_files
import pytest

from corten import plugin
from corten.adapters.base import Source
from corten.adapters.unpickle import load_pickle
from corten.builder.inspecting import inspect
from corten.core.digest import Digest
from corten.core.model import ModelSpec
from corten.errors import CortenError, PolicyError

pytestmark = pytest.mark.examples

RAW, WRAPPED = hostile_files.kinds(hostile_files.raw), hostile_files.kinds(hostile_files.wrapped)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "fired"


@pytest.fixture
def hostile(marker, tmp_path):
    """A file of a kind, under a name that says nothing."""

    def make(kind):
        made = hostile_files.raw(marker) | (hostile_files.wrapped(marker) if kind in WRAPPED else {})
        (tmp_path / "model.bin").write_bytes(made[kind])
        return tmp_path / "model.bin"

    return make


BITES = """
import pathlib, pickle, sys
try:
    pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
except BaseException:
    pass
"""


def test_the_corpus_bites(marker, tmp_path):
    """A plain unpickler runs most of them; the others are for readers with other faults."""
    fired = set()
    for kind, data in hostile_files.raw(marker).items():
        if kind in ("pty.spawn", "importlib", "code.interact"):  # would take the terminal, or open a browser
            continue
        marker.unlink(missing_ok=True)
        (tmp_path / "model").write_bytes(data)
        command = [sys.executable, "-S", "-c", BITES, tmp_path / "model"]
        subprocess.run(command, timeout=20, check=False, stdin=subprocess.DEVNULL, capture_output=True)
        fired |= {kind} if marker.exists() else set()
    assert len(fired) >= 20, fired


@pytest.mark.parametrize("kind", [*RAW, *WRAPPED])
def test_a_hostile_file_is_refused_when_it_is_looked_at_and_runs_nothing(kind, hostile, marker, tmp_path):
    path = hostile(kind)
    with pytest.raises(CortenError) as caught:
        inspect(Source(path), cache=tmp_path / "cache")
    assert caught.value.code.startswith(("adapter.", "build.unknown_model"))
    assert caught.value.exit_code != 70
    assert not marker.exists()


@pytest.mark.parametrize("kind", [*RAW, *WRAPPED])
def test_a_hostile_file_is_refused_when_it_is_loaded_and_runs_nothing(kind, hostile, marker):
    path = hostile(kind)
    with pytest.raises(Exception) as caught:
        load_pickle(path)
    assert isinstance(
        caught.value,
        (
            PolicyError,
            pickle.UnpicklingError,
            EOFError,
            CortenError,
            ValueError,
            TypeError,
            AttributeError,
            ImportError,
        ),
    )
    assert not marker.exists()


@pytest.mark.parametrize(
    "kind", ["os.system by REDUCE", "joblib, object array", "dotted name", "gzip", "memo confusion"]
)
def test_the_error_names_what_was_named_and_the_way_out(kind, hostile, tmp_path):
    path = hostile(kind)
    with pytest.raises(PolicyError, match="system") as caught:
        inspect(Source(path), cache=tmp_path / "cache")
    assert caught.value.code == "adapter.refused_global"
    assert f"--trust {Digest.of_file(path)}" in caught.value.hint


@pytest.mark.parametrize("kind", hostile_files.kinds(hostile_files.stacked))
def test_of_stacked_pickles_only_the_first_counts_and_it_is_no_model(kind, marker, tmp_path):
    (tmp_path / "model").write_bytes(hostile_files.stacked(marker)[kind])
    with pytest.raises(CortenError):
        inspect(Source(tmp_path / "model"), cache=tmp_path / "cache")
    load_pickle(tmp_path / "model")
    assert not marker.exists()


# -- trust


class Distribution:
    """What `scipy.stats` makes: refused, since it compiles text when it is unpickled."""


@pytest.fixture
def search(tmp_path):
    """A randomised search with its distributions: harmless, and refused."""
    import joblib
    from scipy.stats import uniform
    from sklearn.datasets import load_iris
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import RandomizedSearchCV

    rows, labels = load_iris(return_X_y=True)
    model = RandomizedSearchCV(Ridge(), {"alpha": uniform(0.1, 2)}, n_iter=2, random_state=0).fit(rows, labels)
    path = tmp_path / "search.joblib"
    joblib.dump(model, path)
    return path, model, rows


def loaded(path, trusted):
    spec = ModelSpec("x", "sklearn", (path.name,), trusted=trusted)
    return plugin.find("adapters", "sklearn")().load(spec, path.parent, path.parent)


def test_a_file_is_trusted_by_its_digest_where_it_is_looked_at_and_where_it_is_loaded(search):
    path, model, rows = search
    with pytest.raises(PolicyError, match=r"scipy\.stats"):
        plugin.find("adapters", "sklearn")().inspect(Source(path))
    digest = str(Digest.of_file(path))
    inspection = plugin.find("adapters", "sklearn")().inspect(Source(path, trusted=(digest,)))
    assert inspection.trusted == (digest,)
    assert any("scipy.stats" in warning and "trusted" in warning for warning in inspection.warnings)
    answer = loaded(path, inspection.trusted).run({"inputs": rows})["outputs"]
    assert answer.tolist() == model.predict(rows).tolist()


def test_a_changed_file_is_refused_again(search):
    path, _, _ = search
    digest = str(Digest.of_file(path))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(PolicyError) as built:
        plugin.find("adapters", "sklearn")().inspect(Source(path, trusted=(digest,)))
    with pytest.raises(PolicyError) as served:
        loaded(path, (digest,))
    for caught in (built, served):
        assert digest in caught.value.why
        assert str(Digest.of_file(path)) in caught.value.why
        assert caught.value.where == str(path)


def test_trust_in_one_file_is_none_in_another(search, hostile, marker):
    digest = str(Digest.of_file(search[0]))
    with pytest.raises(PolicyError):
        load_pickle(hostile("os.system by REDUCE"), (digest,))
    assert not marker.exists()


def test_trust_in_what_needs_none_is_not_recorded(tmp_path):
    import joblib
    from sklearn.linear_model import Ridge

    path: Path = tmp_path / "ridge.joblib"
    joblib.dump(Ridge().fit([[1.0], [2.0]], [1, 2]), path)
    assert (
        plugin.find("adapters", "sklearn")().inspect(Source(path, trusted=(str(Digest.of_file(path)),))).trusted == ()
    )
