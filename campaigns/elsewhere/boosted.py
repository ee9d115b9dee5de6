"""LightGBM's and XGBoost's models through onnxmltools: FOLDER/onnxmltools/NAME.onnx. Needs lightgbm, xgboost and onnxmltools.

    python campaigns/elsewhere/boosted.py FOLDER
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import lightgbm
import numpy as np
import onnxmltools
import xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

DRAW = np.random.default_rng(0)
X = DRAW.standard_normal((120, 6)).astype(np.float32)
SCORE = X @ np.arange(1, 7) * 0.4 + X[:, 0] * X[:, 1]
TWO, THREE = (SCORE > 0).astype(np.int64), np.digitize(SCORE, [-1, 1.2]).astype(np.int64)
SMALL = {"n_estimators": 6, "max_depth": 4}
LIGHT = {**SMALL, "min_child_samples": 3, "verbose": -1}
MODELS = {
    "lightgbm-regressor": (lightgbm.LGBMRegressor(**LIGHT), SCORE), "lightgbm-two": (lightgbm.LGBMClassifier(**LIGHT), TWO),
    "lightgbm-three": (lightgbm.LGBMClassifier(**LIGHT), THREE), "lightgbm-poisson": (lightgbm.LGBMRegressor(objective="poisson",
    **LIGHT), np.abs(SCORE)),
    "lightgbm-forest": (lightgbm.LGBMRegressor(boosting_type="rf", bagging_freq=1, bagging_fraction=0.7, **LIGHT), SCORE),
    "xgboost-regressor": (xgboost.XGBRegressor(**SMALL), SCORE), "xgboost-two": (xgboost.XGBClassifier(**SMALL), TWO),
    "xgboost-three": (xgboost.XGBClassifier(**SMALL), THREE), "xgboost-poisson": (xgboost.XGBRegressor(objective="count:poisson",
    **SMALL), np.abs(SCORE)),
    "xgboost-ranker": (xgboost.XGBRFRegressor(**SMALL), SCORE),
}


def main(folder: Path) -> None:
    folder = folder / "onnxmltools"
    folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    for name, (model, target) in MODELS.items():
        convert = onnxmltools.convert_lightgbm if name.startswith("lightgbm") else onnxmltools.convert_xgboost
        for zipmap in ((True, False) if "two" in name and convert is onnxmltools.convert_lightgbm else (True,)):
            path = folder / f"{name}{'' if zipmap else '-plain'}.onnx"
            try:
                model.fit(X, target)
                options = {} if zipmap else {"zipmap": False}
                proto = convert(model, initial_types=[("X", FloatTensorType([None, 6]))], target_opset=15, **options)
                path.write_bytes(proto.SerializeToString())
                np.savez(folder / f"{path.stem}@0.npz", X=X[:7])
                np.savez(folder / f"{path.stem}@1.npz", X=X[20:33])
            except Exception as error:  # a tool's own
                print(f"{name}: not made: {type(error).__name__}: {' '.join(str(error).split())[:120]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
