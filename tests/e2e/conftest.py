"""Stories through the console script, on real models, in a home of their own, with nothing left behind."""

import shutil

import pytest
from engines import InContainers, OnEmbedded, end_podmans_service
from ports import free_port
from registries import certificates_in
from stories import Corten, end, make_home


@pytest.fixture(scope="session")
def warm_home():
    """One home for the whole session, so that wheels and Debian packages are fetched once."""
    corten = Corten(make_home())
    yield corten
    end(corten)


@pytest.fixture
def corten(warm_home):
    """The shared home, with nothing deployed before and after."""
    yield warm_home
    warm_home.run("stop", "--all", code=None)


@pytest.fixture(
    params=[
        pytest.param("embedded", marks=pytest.mark.bwrap),
        pytest.param("podman", marks=pytest.mark.podman),
        pytest.param("docker", marks=pytest.mark.docker),
    ]
)
def engine(request):
    """Each of the three, and what it says of itself."""
    if request.param == "embedded":
        return OnEmbedded()
    return InContainers(request.param, request.getfixturevalue(request.param))


@pytest.fixture
def own(warm_home, engine):
    """A home of its own, for a home has one engine; what others have fetched already is there."""
    corten = Corten(make_home(), env=engine.env)
    (warm_home.home / "cache").mkdir(exist_ok=True)
    (corten.home / "cache").symlink_to(warm_home.home / "cache")
    yield corten
    corten.run("stop", "--all", code=None)
    if engine.name == "podman":
        end_podmans_service(engine.env)
    end(corten)


@pytest.fixture
def cold():
    """A home nobody has used."""
    corten = Corten(make_home())
    yield corten
    end(corten)


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def folder():
    """A scratch folder every user may pass."""
    path = make_home()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def digits_model():
    """Two random forests trained on the digits, differing in their seed, and rows they have not seen."""
    import joblib
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    folder = make_home()
    features, labels = load_digits(return_X_y=True)
    models = []
    for seed in (0, 1):
        model = RandomForestClassifier(20, random_state=seed, n_jobs=1).fit(features[:1500], labels[:1500])
        (folder / str(seed)).mkdir()
        joblib.dump(model, folder / str(seed) / "digits.joblib")
        models.append(model)
    yield {
        "paths": [folder / str(seed) / "digits.joblib" for seed in (0, 1)],
        "rows": features[1500:1520],
        "models": models,
    }
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """An authority of our own and a certificate for localhost: (ca, certificate, key)."""
    return certificates_in(tmp_path_factory.mktemp("tls"))
