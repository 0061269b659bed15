"""The rows of tests/bench/detectors, and what river, scikit-learn and PyOD take to score them: JSON lines.

usage: detector_peers.py DIR --rows N      with the packages of tests/setup/install peers

Every peer runs as its documentation starts it; where ours has a size (trees, clusters, landmarks), theirs has the same.
"""

import argparse
import functools
import json
import pathlib
import time
import warnings

import numpy as np
import pyod
import river
import sklearn
from pyod.models.ecod import ECOD
from pyod.models.hbos import HBOS
from pyod.models.knn import KNN
from pyod.models.pca import PCA
from river import anomaly, drift
from skl2onnx import to_onnx
from sklearn.cluster import KMeans
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
from threadpoolctl import threadpool_limits

P, DEVICES, TRAINING = 5, 100, 20_000
AT_LEAST, REPEAT = 0.5, 3


def fleet(rng, rows):
    """Rows of a hundred devices in turn, two conditions, features that move together, faults in blocks of 25 rows a device."""
    steps = -(-rows // DEVICES)
    shape = (steps, DEVICES)
    condition = rng.random(shape) < 0.4
    shared = rng.normal(size=shape + (2,))
    mixing = np.array([[1.0, 0.8, -0.6, 0.0, 0.5], [0.0, 0.5, 0.7, 1.0, -0.4]])
    features = shared @ mixing + 0.3 * rng.normal(size=shape + (P,)) + np.where(condition[..., None], [4.0, -3.0, 2.0, 0.0, 1.0], 0.0)
    blocks = rng.random((-(-steps // 25), DEVICES)) < 0.02
    fault = np.repeat(blocks, 25, axis=0)[:steps]
    which = np.repeat(rng.integers(0, P, blocks.shape), 25, axis=0)[:steps]
    size = np.repeat(rng.uniform(2.0, 3.0, blocks.shape), 25, axis=0)[:steps]
    features[np.arange(P) == which[..., None]] += (fault * size).ravel()
    table = np.concatenate([features, fault[..., None]], axis=2).reshape(-1, P + 1)
    return table[:rows].astype("<f8")


def series(rng, rows):
    """One value every five minutes: a day's wave, noise, a spike in five hundred."""
    hour = np.arange(rows) % 288 / 12
    spike = rng.random(rows) < 0.002
    value = np.abs(hour - 12) + rng.normal(0, 0.4, rows) + spike * rng.choice([-1, 1], rows) * rng.uniform(4, 10, rows)
    return np.column_stack([value, spike]).astype("<f8")


def drawn(directory, rows):
    """The four files, made once."""
    rng = np.random.default_rng(7)
    made = {"train": fleet(rng, TRAINING), "judge": fleet(rng, rows), "series-train": series(rng, 4_000), "series": series(rng, rows)}
    directory.mkdir(parents=True, exist_ok=True)
    for name, table in made.items():
        table.tofile(directory / f"{name}.f64")
    read = {name: np.fromfile(directory / f"{name}.f64", "<f8").reshape(table.shape) for name, table in made.items()}
    return {name: (table[:, :-1].copy(), table[:, -1]) for name, table in read.items()}


def measured(score, fault):
    """The best of some measurements of a call that gives scores, each fresh; and what they are worth."""
    best = None
    for _ in range(REPEAT):
        rows, seconds = 0, 0.0
        while seconds < AT_LEAST:
            run = score()
            began = time.process_time()
            scores = run()
            seconds += time.process_time() - began
            rows += len(scores)
        if best is None or rows / seconds > best["rows"] / best["cpu_seconds"]:
            best = {"rows": rows, "cpu_seconds": seconds}
    scores = np.asarray(scores, dtype=float).reshape(len(scores), -1)[:, -1]
    said = fault[: len(scores)]
    known = np.isfinite(scores)
    return best | {"auc": roc_auc_score(said[known], scores[known]) if np.unique(scores[known]).size > 1 else None}


def one_by_one(make, judge, rows):
    """river: a fresh detector, trained, and then a function that judges the rows one by one."""

    def fresh():
        detector = make()
        return lambda: [judge(detector, row) for row in rows]

    return fresh


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--rows", type=int, required=True)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    data = drawn(asked.directory, asked.rows)
    (train, fault), (judged, truth) = data["train"], data["judge"]
    healthy = train[fault == 0]
    (values_train, _), (values, spikes) = data["series-train"], data["series"]

    def batch(function, rows=judged):
        return lambda: functools.partial(function, rows)

    forest = make_pipeline(StandardScaler(), IsolationForest(n_estimators=100, random_state=7)).fit(healthy)
    graph = to_onnx(forest, healthy[:1].astype(np.float32), target_opset={"": 17, "ai.onnx.ml": 3})
    (asked.directory / "forest.onnx").write_bytes(graph.SerializeToString())

    def named(rows):
        return [dict(zip("abcde", row)) for row in rows.tolist()]

    few = named(judged[:20_000])
    low, high = healthy.min(axis=0), healthy.max(axis=0)
    limits = dict(zip("abcde", zip(low.tolist(), high.tolist())))
    learnt = named(healthy[:5_000])

    def trees():
        detector = anomaly.HalfSpaceTrees(n_trees=25, height=6, window_size=250, limits=limits, seed=7)
        for row in learnt:
            detector.learn_one(row)
        return detector

    def judge_and_learn(detector, row):
        score = detector.score_one(row)
        detector.learn_one(row)
        return score

    def sgd():
        detector = anomaly.OneClassSVM(nu=0.1)
        for row in learnt:
            detector.learn_one(row)
        return detector

    def moves(detectors, row):
        """Page-Hinkley and ADWIN over each feature of each device, as our drift has them."""
        device, values = row
        found = False
        for value, pair in zip(values, detectors[device]):
            for detector in pair:
                detector.update(value)
                found |= detector.drift_detected
        return float(found)

    single = values[:, 0].tolist()[:50_000]

    def judge_value(detector, value):
        score = detector.score_one(None, value)
        detector.learn_one(None, value)
        return score

    gaussian = lambda: anomaly.GaussianScorer(window_size=288, grace_period=100)
    deviation = lambda: anomaly.StandardAbsoluteDeviation()
    watches = lambda: [[(drift.PageHinkley(), drift.ADWIN()) for _ in range(P)] for _ in range(DEVICES)]
    turns = [(i % DEVICES, row) for i, row in enumerate(judged[:50_000].tolist())]
    fit = lambda model, *more: model.fit(healthy, *more)
    envelope = fit(EllipticEnvelope(random_state=7))
    kernel = make_pipeline(StandardScaler(), Nystroem(n_components=200, random_state=7), Ridge()).fit(train, fault)
    charts = ["t2-q", "t2-q, a baseline a device"]
    at_once, each = "all at once", "row by row"
    peers = [
        (charts + ["mewma"], "scikit-learn EllipticEnvelope", at_once, batch(envelope.mahalanobis), truth),
        (charts, "PyOD PCA", at_once, batch(fit(PCA()).decision_function), truth),
        (charts, "PyOD ECOD", at_once, batch(fit(ECOD()).decision_function), truth),
        (charts, "PyOD HBOS", at_once, batch(fit(HBOS()).decision_function), truth),
        (["gaussian-mixture"], "scikit-learn GaussianMixture", at_once,
         batch(lambda x, m=fit(GaussianMixture(4, random_state=7)): -m.score_samples(x)), truth),
        (["k-means"], "scikit-learn KMeans", at_once,
         batch(lambda x, m=fit(KMeans(8, random_state=7)): m.transform(x).min(axis=1)), truth),
        (["one-class-svm"], "scikit-learn OneClassSVM", at_once,
         batch(lambda x, m=fit(make_pipeline(StandardScaler(), OneClassSVM(nu=0.1))): -m.score_samples(x), judged[:20_000]), truth),
        (["one-class-svm"], "river OneClassSVM, linear", each, one_by_one(sgd, judge_and_learn, few), truth),
        (["half-space-trees"], "river HalfSpaceTrees, not learning", each, one_by_one(trees, lambda d, row: d.score_one(row), few), truth),
        (["half-space-trees, online"], "river HalfSpaceTrees", each, one_by_one(trees, judge_and_learn, few), truth),
        (["half-space-trees", "random-cut-forest", "onnx, an isolation forest"], "scikit-learn IsolationForest", at_once,
         batch(lambda x: -forest.score_samples(x)), truth),
        (["nearest-neighbours"], "PyOD KNN", at_once, batch(fit(KNN(n_jobs=1)).decision_function, judged[:20_000]), truth),
        (["nearest-neighbours"], "scikit-learn LocalOutlierFactor", at_once,
         batch(lambda x, m=fit(LocalOutlierFactor(novelty=True)): -m.score_samples(x), judged[:20_000]), truth),
        (["gradient-boosting"], "scikit-learn HistGradientBoosting", at_once,
         batch(HistGradientBoostingClassifier(max_iter=100, max_depth=5, early_stopping=False, random_state=7).fit(train, fault).predict_proba), truth),
        (["kernel-ridge"], "scikit-learn Nystroem and Ridge", at_once, batch(kernel.predict), truth),
        (["linear"], "scikit-learn Ridge", at_once, batch(Ridge().fit(train, fault).predict), truth),
        (["linear"], "scikit-learn LogisticRegression", at_once, batch(LogisticRegression().fit(train, fault).predict_proba), truth),
        (["drift"], "river PageHinkley and ADWIN", each, one_by_one(watches, moves, turns), truth),
        (["univariate"], "river GaussianScorer", each, one_by_one(gaussian, judge_value, single), spikes),
        (["univariate"], "river StandardAbsoluteDeviation", each, one_by_one(deviation, judge_value, single), spikes),
        (["univariate"], "PyOD ECOD", at_once, batch(ECOD().fit(values_train).decision_function, values), spikes),
        (["univariate"], "PyOD HBOS", at_once, batch(HBOS().fit(values_train).decision_function, values), spikes),
    ]
    versions = f"river {river.__version__}, scikit-learn {sklearn.__version__}, PyOD {pyod.__version__}"
    with threadpool_limits(1):
        for beside, by, how, score, said in peers:
            line = {"name": beside[0], "beside": beside, "by": by, "how": how} | measured(score, said)
            print(json.dumps(line | {"versions": versions}), flush=True)


if __name__ == "__main__":
    main()
