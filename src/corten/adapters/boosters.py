"""Run boosters of XGBoost and LightGBM, from their own files or out of a pickle."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from corten.adapters.base import InputError
from corten.adapters.threads import threads
from corten.adapters.xgboost_facts import INPUT, OUTPUT
from corten.adapters.xgboost_file import XgboostFile
from corten.core.schema import Schema

if TYPE_CHECKING:
    import numpy as np


class XgboostModel:
    """A booster of XGBoost; answers as `Booster.predict` does, or as the scikit-learn wrapper whose file it is."""

    def __init__(self, booster: Any, file: XgboostFile, method: str, schema: Schema) -> None:
        import xgboost

        booster.set_param({"nthread": threads(os.environ), "device": "cpu"})
        self.schema = schema
        self._xgboost = xgboost
        self.booster = booster
        self.file = file
        self._method = method
        # The wrapper stops at the best iteration, the booster itself does not.
        stops = file.estimator and file.best_iteration is not None
        self.rounds = (0, file.best_iteration + 1) if stops and file.best_iteration is not None else (0, 0)
        # Trees are walked in place, as the wrapper does. A linear booster needs XGBoost's own matrix, and dropped trees
        # (DART) are summed in another order with it, which shows in the last digit.
        self._in_place = file.booster == "gbtree" or (file.booster == "dart" and bool(file.estimator))

    def run(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Rows in, the objective's value of each out, or labels or probabilities."""
        try:
            values = self._predicted(inputs[INPUT])
        except self._xgboost.core.XGBoostError as error:
            if "inf" in str(error):
                raise InputError("infinity is no feature's value", path="inputs") from error
            raise
        return {OUTPUT: self._answer(values)}

    def _predicted(self, rows: np.ndarray) -> np.ndarray:
        if self._in_place:
            return self._array(self.booster.inplace_predict, rows)
        return self._array(self.booster.predict, self._xgboost.DMatrix(rows))

    def _array(self, predict: Callable[..., Any], data: Any) -> np.ndarray:
        values: np.ndarray = predict(data, iteration_range=self.rounds, validate_features=False)
        return values

    def _answer(self, values: np.ndarray) -> np.ndarray:
        import numpy as np

        if not self.file.is_classifier:
            return values
        if self._method == "predict_proba":
            return values if values.ndim == 2 else np.stack([1 - values, values], axis=1)
        if values.ndim == 2 and self.file.n_targets == 1:
            best: np.ndarray = values.argmax(axis=1)
            return best
        if self.file.objective == "multi:softmax":
            return values.astype(np.int64)
        # The wrapper's threshold, for probabilities and margins ("binary:logitraw") alike.
        return (values > (0.0 if self.file.objective == "binary:logitraw" else 0.5)).astype(np.int64)


class LightgbmModel:
    """A booster of LightGBM; answers as `Booster.predict` does."""

    def __init__(self, booster: Any, schema: Schema) -> None:
        self.schema = schema
        self.booster = booster
        self._threads = threads(os.environ)

    def run(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Rows in, the objective's value of each out."""
        return {OUTPUT: self.booster.predict(inputs[INPUT], num_threads=self._threads)}
