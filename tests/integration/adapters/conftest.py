"""Model files made in this session, and sources around them."""

import pickle
import warnings

import pytest

from corten.adapters.base import Source


@pytest.fixture(scope="session")
def trained():
    """Estimators by name, fitted on data bundled with scikit-learn."""
    from sklearn.cluster import KMeans
    from sklearn.datasets import load_breast_cancer, load_iris
    from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    flowers = load_iris()
    rows, kinds = flowers.data, flowers.target
    names = flowers.target_names[kinds]
    patients = load_breast_cancer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "pipeline": make_pipeline(StandardScaler(), LogisticRegression()).fit(patients.data, patients.target),
            "forest": RandomForestClassifier(5, random_state=0).fit(rows, names),
            "boosting": HistGradientBoostingClassifier(max_iter=3, random_state=0).fit(rows, kinds),
            "linear": LinearRegression().fit(rows[:, :3], rows[:, 3]),
            "several targets": LinearRegression().fit(rows[:, :2], rows[:, 2:]),
            "clusters": KMeans(3, random_state=0, n_init=1).fit(rows),
            "outliers": IsolationForest(n_estimators=5, random_state=0).fit(rows),
            "neighbours": KNeighborsClassifier().fit(rows, kinds),
            "search": GridSearchCV(SVC(random_state=0), {"C": [0.1, 1.0]}, cv=2).fit(rows, names),
            "scaler": StandardScaler().fit(rows),
            "fortran": LinearRegression().fit(rows[:, :3].copy(order="F"), rows[:, 3]),
        }


@pytest.fixture
def saved(tmp_path):
    """Write an object to a file and give the source: pickled, or by the function given."""

    def save(value, name="model", *, dump=None, **options):
        path = tmp_path / name
        if dump is None:
            path.write_bytes(pickle.dumps(value, **options))
        else:
            dump(value, path, **options)
        return Source(path)

    return save
