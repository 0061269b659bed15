"""Makes the ONNX files of tests/onnx.rs, and what onnxruntime gives for them (expected.json).

    python -m venv venv && venv/bin/pip install scikit-learn skl2onnx onnx onnxruntime && venv/bin/python make.py

Made with the versions that expected.json names. The files are committed, so that the tests need none of this.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import skl2onnx
import sklearn
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor, IsolationForest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.mixture import GaussianMixture
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVR, OneClassSVM

HERE = Path(__file__).parent
P = 4
OPSET = {"": 17, "ai.onnx.ml": 3}

rng = np.random.default_rng(7)
shared = rng.normal(size=(300, 1))
X = (shared * [1.0, 2.0, -1.0, 0.5] + 0.5 * rng.normal(size=(300, P)) + [10.0, 0.0, 5.0, -3.0]).astype(np.float32)
failed = (X[:, 0] + X[:, 1] > 11.0).astype(np.int64)
life = (100.0 - 5.0 * X[:, 0] - 2.0 * np.abs(X[:, 1])).astype(np.float32)

# name: model, target, output, column, whether it is a classifier
MODELS = {
    "iforest": (make_pipeline(StandardScaler(), IsolationForest(n_estimators=12, max_samples=32, random_state=1)), None, "scores", None),
    "ocsvm": (make_pipeline(StandardScaler(), OneClassSVM(nu=0.1)), None, "scores", None),
    "logistic": (make_pipeline(StandardScaler(), LogisticRegression()), failed, "probabilities", 1),
    "forest": (RandomForestClassifier(n_estimators=5, max_depth=4, random_state=1), failed, "probabilities", 1),
    "boosted": (GradientBoostingClassifier(n_estimators=8, random_state=1), failed, "probabilities", 1),
    "mlp": (make_pipeline(StandardScaler(), MLPClassifier(hidden_layer_sizes=(6,), max_iter=400, random_state=1)), failed, "probabilities", 1),
    "tanh": (make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(5, 3), activation="tanh", max_iter=400, random_state=1)), life, "variable", None),
    "life": (GradientBoostingRegressor(n_estimators=8, random_state=1), life, "variable", None),
    "ridge": (make_pipeline(Normalizer(), PCA(2), Ridge()), life, "variable", None),
    "svr": (SVR(kernel="poly", degree=2, C=0.01), life, "variable", None),
    "mixture": (GaussianMixture(2, random_state=1), None, "probabilities", 1),
}


def save(name, model):
    for node in model.graph.node:
        node.doc_string = ""
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())


def run(model, output, x, rows=True):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([output], x)[0]


expected = {
    "versions": {m.__name__: m.__version__ for m in (sklearn, skl2onnx, onnx, onnxruntime)},
    "rows": [[float(v) for v in row] for row in X],
    "models": {},
}
for name, (model, target, output, column) in MODELS.items():
    model.fit(X, target)
    options = {}
    if column is not None and name != "mixture":
        last = model.steps[-1][1] if hasattr(model, "steps") else model
        options = {id(last): {"zipmap": False}}
    graph = to_onnx(model, X[:1], options=options or None, target_opset=OPSET)
    save(name, graph)
    values = run(graph, output, {"X": X[:40]})
    values = values[:, column] if column is not None else values.reshape(-1)
    expected["models"][name] = {"output": output, "column": column, "values": [float(v) for v in values]}

# Operators that no model above uses, one graph of all: an autoencoder's error with much in between.
w = rng.normal(size=(P, 3)).astype(np.float32)
nodes = [
    helper.make_node("Gemm", ["x", "w", "b"], ["hidden"], alpha=0.5, beta=2.0),
    helper.make_node("LeakyRelu", ["hidden"], ["leaky"], alpha=0.1),
    helper.make_node("Elu", ["leaky"], ["elu"]),
    helper.make_node("Softplus", ["elu"], ["soft"]),
    helper.make_node("Erf", ["soft"], ["erf"]),
    helper.make_node("Gemm", ["erf", "w"], ["back"], transB=1),
    helper.make_node("Sub", ["x", "back"], ["off"]),
    helper.make_node("Clip", ["off", "low", "high"], ["clipped"]),
    helper.make_node("Softmax", ["clipped"], ["softmax"]),
    helper.make_node("LogSoftmax", ["clipped"], ["logsoftmax"]),
    helper.make_node("Transpose", ["softmax"], ["turned"], perm=[1, 0]),
    helper.make_node("MatMul", ["logsoftmax", "turned"], ["cross"]),
    helper.make_node("Abs", ["off"], ["abs"]),
    helper.make_node("Sqrt", ["abs"], ["root"]),
    helper.make_node("Reciprocal", ["root"], ["reciprocal"]),
    helper.make_node("Greater", ["reciprocal", "one"], ["is"]),
    helper.make_node("Not", ["is"], ["is_not"]),
    helper.make_node("Where", ["is_not", "root", "reciprocal"], ["chosen"]),
    helper.make_node("Unsqueeze", ["chosen", "axis0"], ["deep"]),
    helper.make_node("ReduceMean", ["deep"], ["mean"], axes=[2], keepdims=1),
    helper.make_node("ReduceMax", ["deep"], ["most"], axes=[-1], keepdims=1),
    helper.make_node("ReduceL2", ["deep"], ["l2"], axes=[2], keepdims=1),
    helper.make_node("ReduceSum", ["deep", "axis2"], ["sum"], keepdims=1),
    helper.make_node("Concat", ["mean", "most", "l2", "sum"], ["all"], axis=2),
    helper.make_node("Squeeze", ["all", "axis0"], ["flat"]),
    helper.make_node("ArgMax", ["flat"], ["which"], axis=1, keepdims=1),
    helper.make_node("Cast", ["which"], ["which_float"], to=TensorProto.FLOAT),
    helper.make_node("Mean", ["cross", "which_float", "one"], ["centre"]),
    helper.make_node("Floor", ["most_flat"], ["floor"]),
    helper.make_node("Reshape", ["most", "shape"], ["most_flat"]),
    helper.make_node("ReduceLogSumExp", ["flat"], ["lse"], axes=[1], keepdims=1),
    helper.make_node("Sum", ["centre", "lse", "floor"], ["y"]),
]
order = {n.output[0]: i for i, n in enumerate(nodes)}
nodes.insert(order["floor"], nodes.pop(order["most_flat"]))
constants = [
    numpy_helper.from_array(w, "w"),
    numpy_helper.from_array(np.array([0.1, -0.2, 0.3], np.float32), "b"),
    numpy_helper.from_array(np.array(-8.0, np.float32), "low"),
    numpy_helper.from_array(np.array(8.0, np.float32), "high"),
    numpy_helper.from_array(np.array([1.0], np.float32), "one"),
    numpy_helper.from_array(np.array([0], np.int64), "axis0"),
    numpy_helper.from_array(np.array([2], np.int64), "axis2"),
    numpy_helper.from_array(np.array([-1, 1], np.int64), "shape"),
]


def graph_of(nodes, constants=(), outputs=("y",), columns=P, opset=17):
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", columns])]
    outputs = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
    graph = helper.make_graph(nodes, "made", inputs, outputs, list(constants))
    sets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=sets, ir_version=8)


many = graph_of(nodes, constants)
save("many", many)
values = [float(run(many, "y", {"x": X[i : i + 1]}).reshape(-1)[0]) for i in range(40)]
expected["models"]["many"] = {"output": "y", "column": None, "values": values}

# One input a feature, named as the features are.
names = [f"feature_{j}" for j in range(P)]
inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 1]) for n in reversed(names)]
each = helper.make_graph(
    [helper.make_node("Concat", names, ["x"], axis=1), helper.make_node("ReduceSumSquare", ["x"], ["y"], axes=[1])],
    "each", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
)
each = helper.make_model(each, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
save("each", each)
values = run(each, "y", {n: X[:40, j : j + 1] for j, n in enumerate(names)}).reshape(-1)
expected["models"]["each"] = {"output": "y", "column": None, "values": [float(v) for v in values]}

# What is refused.
like = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)
save("refused-random", graph_of([helper.make_node("RandomNormalLike", ["x"], ["noise"], name="jitter"), helper.make_node("Add", ["x", "noise"], ["y"])]))
save("refused-bernoulli", graph_of([helper.make_node("Bernoulli", ["x"], ["y"], name="coin")]))
save("refused-unknown", graph_of([helper.make_node("Det", ["x"], ["y"], name="det")]))
save("refused-attribute", graph_of([helper.make_node("ArgMax", ["x"], ["y"], name="last", select_last_index=1)]))
save("refused-columns", graph_of([like], columns=7))
save("refused-version", graph_of([like], opset=40))
save("refused-shapes", graph_of([helper.make_node("MatMul", ["x", "m"], ["y"], name="product")], [numpy_helper.from_array(np.ones((9, 2), np.float32), "m")]))
training = [numpy_helper.from_array(np.array(0.5, np.float32), "ratio"), numpy_helper.from_array(np.array(True), "train")]
save("refused-dropout", graph_of([helper.make_node("Dropout", ["x", "ratio", "train"], ["y"], name="drop")], training))
idle = [training[0], numpy_helper.from_array(np.array(False), "train")]
save("dropout", graph_of([helper.make_node("Dropout", ["x", "ratio", "train"], ["kept"], name="drop"), helper.make_node("ReduceSumSquare", ["kept"], ["y"], axes=[1])], idle))
values = (X[:40].astype(np.float64) ** 2).sum(axis=1)
expected["models"]["dropout"] = {"output": "y", "column": None, "values": [float(v) for v in values]}

(HERE / "expected.json").write_text(json.dumps(expected) + "\n")
