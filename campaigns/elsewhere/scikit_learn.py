"""scikit-learn's estimators through skl2onnx: FOLDER/skl2onnx/NAME.onnx. Needs scikit-learn and skl2onnx, and nothing of this project.

    python campaigns/elsewhere/scikit_learn.py FOLDER
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn import (
    cluster,
    compose,
    cross_decomposition,
    decomposition,
    discriminant_analysis,
    ensemble,
    feature_selection,
    gaussian_process,
    impute,
    isotonic,
    kernel_approximation,
    linear_model,
    mixture,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    random_projection,
    svm,
    tree,
)

DRAW = np.random.default_rng(0)
X = DRAW.standard_normal((80, 6)).astype(np.float32)
SCORE = X @ np.arange(1, 7) * 0.4 + X[:, 0] * X[:, 1]
TWO, THREE = (SCORE > 0).astype(np.int64), np.digitize(SCORE, [-1, 1.2]).astype(np.int64)
MANY, LABELS = np.stack([SCORE, X[:, 2] ** 2], 1), np.stack([TWO, (X[:, 3] > 0).astype(np.int64)], 1)
POSITIVE = np.abs(X)
GAPS = np.where(DRAW.random(X.shape) < 0.1, np.nan, X).astype(np.float32)

CLASSIFIERS = {
    "LogisticRegression": linear_model.LogisticRegression(), "LogisticRegressionCV": linear_model.LogisticRegressionCV(cv=3),
    "RidgeClassifier": linear_model.RidgeClassifier(), "SGDClassifier": linear_model.SGDClassifier(loss="log_loss"),
    "SGDClassifier-hinge": linear_model.SGDClassifier(), "Perceptron": linear_model.Perceptron(),
    "LinearSVC": svm.LinearSVC(), "SVC": svm.SVC(), "SVC-probability": svm.SVC(probability=True), "SVC-linear": svm.SVC(kernel="linear"),
    "SVC-poly": svm.SVC(kernel="poly", degree=2, coef0=1.0), "NuSVC": svm.NuSVC(nu=0.3),
    "DecisionTreeClassifier": tree.DecisionTreeClassifier(max_depth=5), "ExtraTreeClassifier": tree.ExtraTreeClassifier(max_depth=5),
    "RandomForestClassifier": ensemble.RandomForestClassifier(8, max_depth=5),
    "ExtraTreesClassifier": ensemble.ExtraTreesClassifier(8, max_depth=5),
    "GradientBoostingClassifier": ensemble.GradientBoostingClassifier(n_estimators=8),
    "HistGradientBoostingClassifier": ensemble.HistGradientBoostingClassifier(max_iter=6),
    "AdaBoostClassifier": ensemble.AdaBoostClassifier(n_estimators=5),
    "BaggingClassifier": ensemble.BaggingClassifier(n_estimators=4),
    "VotingClassifier": ensemble.VotingClassifier([("a", linear_model.LogisticRegression()), ("b", naive_bayes.GaussianNB())]),
    "VotingClassifier-soft": ensemble.VotingClassifier([("a", linear_model.LogisticRegression()), ("b", naive_bayes.GaussianNB())],
                                                       voting="soft"),
    "StackingClassifier": ensemble.StackingClassifier([("a", linear_model.LogisticRegression()), ("b",
    tree.DecisionTreeClassifier(max_depth=3))]),
    "GaussianNB": naive_bayes.GaussianNB(), "BernoulliNB": naive_bayes.BernoulliNB(),
    "KNeighborsClassifier": neighbors.KNeighborsClassifier(),
    "KNeighborsClassifier-distance": neighbors.KNeighborsClassifier(weights="distance"),
    "RadiusNeighborsClassifier": neighbors.RadiusNeighborsClassifier(radius=6.0),
    "NearestCentroid": neighbors.NearestCentroid(), "MLPClassifier": neural_network.MLPClassifier((8, 4), max_iter=60),
    "LinearDiscriminantAnalysis": discriminant_analysis.LinearDiscriminantAnalysis(),
    "QuadraticDiscriminantAnalysis": discriminant_analysis.QuadraticDiscriminantAnalysis(),
    "OneVsRestClassifier": multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
    "OneVsOneClassifier": multiclass.OneVsOneClassifier(linear_model.LogisticRegression()),
    "GaussianProcessClassifier": gaussian_process.GaussianProcessClassifier(),
}
ONLY_TWO = {"NuSVC", "GaussianProcessClassifier", "SGDClassifier-hinge"}
REGRESSORS = {
    "LinearRegression": linear_model.LinearRegression(), "Ridge": linear_model.Ridge(), "Lasso": linear_model.Lasso(0.01),
    "ElasticNet": linear_model.ElasticNet(0.01), "BayesianRidge": linear_model.BayesianRidge(),
    "HuberRegressor": linear_model.HuberRegressor(),
    "TheilSenRegressor": linear_model.TheilSenRegressor(max_subpopulation=100), "RANSACRegressor": linear_model.RANSACRegressor(),
    "QuantileRegressor": linear_model.QuantileRegressor(), "Lars": linear_model.Lars(), "ARDRegression": linear_model.ARDRegression(),
    "SVR": svm.SVR(), "LinearSVR": svm.LinearSVR(), "NuSVR": svm.NuSVR(), "SVR-sigmoid": svm.SVR(kernel="sigmoid"),
    "DecisionTreeRegressor": tree.DecisionTreeRegressor(max_depth=6), "RandomForestRegressor": ensemble.RandomForestRegressor(8,
    max_depth=6),
    "ExtraTreesRegressor": ensemble.ExtraTreesRegressor(8, max_depth=6),
    "GradientBoostingRegressor": ensemble.GradientBoostingRegressor(n_estimators=8),
    "HistGradientBoostingRegressor": ensemble.HistGradientBoostingRegressor(max_iter=6),
    "AdaBoostRegressor": ensemble.AdaBoostRegressor(n_estimators=4), "BaggingRegressor": ensemble.BaggingRegressor(n_estimators=4),
    "VotingRegressor": ensemble.VotingRegressor([("a", linear_model.Ridge()), ("b", tree.DecisionTreeRegressor(max_depth=3))]),
    "StackingRegressor": ensemble.StackingRegressor([("a", linear_model.Ridge()), ("b", tree.DecisionTreeRegressor(max_depth=3))]),
    "KNeighborsRegressor": neighbors.KNeighborsRegressor(), "MLPRegressor": neural_network.MLPRegressor((8,), max_iter=60),
    "GaussianProcessRegressor": gaussian_process.GaussianProcessRegressor(alpha=0.1), "PLSRegression": cross_decomposition.PLSRegression(2),
    "GammaRegressor": linear_model.GammaRegressor(), "PoissonRegressor": linear_model.PoissonRegressor(),
    "TweedieRegressor": linear_model.TweedieRegressor(),
}
TRANSFORMERS = {
    "StandardScaler": preprocessing.StandardScaler(), "MinMaxScaler": preprocessing.MinMaxScaler(clip=True),
    "MaxAbsScaler": preprocessing.MaxAbsScaler(),
    "RobustScaler": preprocessing.RobustScaler(), "Normalizer": preprocessing.Normalizer(), "Normalizer-l1": preprocessing.Normalizer("l1"),
    "Binarizer": preprocessing.Binarizer(threshold=0.2), "PolynomialFeatures": preprocessing.PolynomialFeatures(2),
    "KBinsDiscretizer": preprocessing.KBinsDiscretizer(4, encode="onehot-dense", quantile_method="averaged_inverted_cdf"),
    "PowerTransformer": preprocessing.PowerTransformer(), "FunctionTransformer": preprocessing.FunctionTransformer(),
    "QuantileTransformer": preprocessing.QuantileTransformer(n_quantiles=20), "PCA": decomposition.PCA(3),
    "PCA-whiten": decomposition.PCA(3, whiten=True),
    "IncrementalPCA": decomposition.IncrementalPCA(3), "TruncatedSVD": decomposition.TruncatedSVD(3), "FastICA": decomposition.FastICA(3),
    "KernelPCA": decomposition.KernelPCA(3, kernel="rbf"), "FactorAnalysis": decomposition.FactorAnalysis(2),
    "KMeans": cluster.KMeans(3, n_init=2), "MiniBatchKMeans": cluster.MiniBatchKMeans(3, n_init=2),
    "GaussianMixture": mixture.GaussianMixture(2),
    "BayesianGaussianMixture": mixture.BayesianGaussianMixture(n_components=2), "SelectKBest": feature_selection.SelectKBest(k=3),
    "VarianceThreshold": feature_selection.VarianceThreshold(), "Nystroem": kernel_approximation.Nystroem(n_components=8),
    "GaussianRandomProjection": random_projection.GaussianRandomProjection(3), "IsolationForest": ensemble.IsolationForest(n_estimators=5),
    "OneClassSVM": svm.OneClassSVM(), "LocalOutlierFactor": neighbors.LocalOutlierFactor(novelty=True),
    "SGDOneClassSVM": linear_model.SGDOneClassSVM(),
    "KNNImputer": impute.KNNImputer(), "SimpleImputer": impute.SimpleImputer(),
    "SplineTransformer": preprocessing.SplineTransformer(n_knots=4),
    "KNeighborsTransformer": neighbors.KNeighborsTransformer(n_neighbors=3), "RandomTreesEmbedding": ensemble.RandomTreesEmbedding(3,
    max_depth=3),
}
PIPELINES = {
    "scaled-logistic": (pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression()), THREE),
    "scaled-pca-svc": (pipeline.make_pipeline(preprocessing.StandardScaler(), decomposition.PCA(3), svm.SVC()), THREE),
    "poly-ridge": (pipeline.make_pipeline(preprocessing.PolynomialFeatures(2), linear_model.Ridge()), SCORE),
    "columns-forest": (pipeline.make_pipeline(compose.ColumnTransformer([("a", preprocessing.StandardScaler(), [0, 1, 2]),
                                                                         ("b", preprocessing.MinMaxScaler(), [3, 4])],
                                                                         remainder="passthrough"),
                                              ensemble.RandomForestClassifier(5, max_depth=4)), TWO),
    "union": (pipeline.make_union(decomposition.PCA(2), preprocessing.StandardScaler()), TWO),
    "imputed-boosting": (pipeline.make_pipeline(impute.SimpleImputer(), ensemble.GradientBoostingRegressor(n_estimators=5)), SCORE),
    "multi-output": (multioutput.MultiOutputRegressor(linear_model.Ridge()), MANY),
    "multi-label": (multioutput.MultiOutputClassifier(linear_model.LogisticRegression()), LABELS),
    "chain": (multioutput.ClassifierChain(linear_model.LogisticRegression()), LABELS),
    "isotonic-like": (pipeline.make_pipeline(preprocessing.QuantileTransformer(n_quantiles=10), linear_model.LinearRegression()), SCORE),
}


def write(folder: Path, name: str, model: object, data: np.ndarray, target: object, **options: object) -> None:
    path = folder / f"{name}.onnx"
    if path.exists():
        return
    try:
        model.fit(data, target)
        told = {"options": {id(model): options}} if options else {}
        path.write_bytes(to_onnx(model, initial_types=[("X", FloatTensorType([None, data.shape[1]]))], target_opset=18,
        **told).SerializeToString())
        np.savez(folder / f"{name}@0.npz", X=data[:7])
        np.savez(folder / f"{name}@1.npz", X=data[20:33])
    except Exception as error:  # a tool's own
        print(f"{name}: not made: {type(error).__name__}: {' '.join(str(error).split())[:120]}")


def main(folder: Path) -> None:
    folder = folder / "skl2onnx"
    folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    for name, model in CLASSIFIERS.items():
        write(folder, f"{name}-zipmap" if name == "LogisticRegression" else name, model, X, TWO if name in ONLY_TWO else THREE)
    write(folder, "LogisticRegression", linear_model.LogisticRegression(), X, TWO, zipmap=False)
    write(folder, "LogisticRegression-texts", linear_model.LogisticRegression(), X, np.array(["no", "yes"])[TWO], zipmap=False)
    for name, model in REGRESSORS.items():
        write(folder, name, model, X, np.abs(SCORE) + 0.1 if name in ("GammaRegressor", "PoissonRegressor") else SCORE)
    for name, model in TRANSFORMERS.items():
        write(folder, name, model, GAPS if "Imputer" in name else X, TWO)
    write(folder, "MultinomialNB", naive_bayes.MultinomialNB(), POSITIVE, THREE)
    write(folder, "ComplementNB", naive_bayes.ComplementNB(), POSITIVE, THREE)
    write(folder, "CategoricalNB", naive_bayes.CategoricalNB(), (POSITIVE * 2).astype(np.int64).clip(0, 3).astype(np.float32), THREE)
    write(folder, "IsotonicRegression", isotonic.IsotonicRegression(out_of_bounds="clip"), X[:, :1], SCORE)
    for name, (model, target) in PIPELINES.items():
        write(folder, name, model, X, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
