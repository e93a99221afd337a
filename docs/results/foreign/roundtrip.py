#!/usr/bin/env python3
"""Certificates beside the ONNX files of their networks, run by onnxruntime.

  python3 roundtrip.py IMAGES EPS NAME=ONNX,CERTIFICATE ...

IMAGES is MNIST's idx file or a batch of CIFAR-10 in its binary format; a certificate is about the first of them, in their order.
For each network: the largest difference between the margin in the certificate and that of onnxruntime's logits, in f32, a mistake counting as 0; whether all classes are the
same; and the accuracy certified at EPS, from the certificate and computed anew as min_j (y_t - y_j) / (P ‖w_t - w_j‖) with the bounds P of the layers
before the last and the weight w of the last one, where the network is a sequence that ends in a dense layer.
"""
import json, sys
import numpy as np, onnx, onnxruntime
from onnx import numpy_helper

raw = np.fromfile(sys.argv[1], np.uint8)
images = raw[16:].reshape(-1, 1, 28, 28) if raw[:4].tolist() == [0, 0, 8, 3] else raw.reshape(-1, 3073)[:, 1:].reshape(-1, 3, 32, 32)
eps = float(sys.argv[2])
print("network            images  margins differ by  scale of logits  same class  certified  anew")
for entry in sys.argv[3:]:
    name, files = entry.split("=")
    path, certificate = files.split(",")
    certificate = json.load(open(certificate))
    samples = certificate["samples"]
    x = images[: len(samples)].astype(np.float32) / np.float32(255)
    options = onnxruntime.SessionOptions(); options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    title = session.get_inputs()[0].name
    y = np.concatenate([session.run(None, {title: x[i : i + 100]})[0] for i in range(0, len(x), 100)]).astype(np.float64)
    label = np.array([s["label"] for s in samples])
    same = (y.argmax(1) == [s["prediction"] for s in samples]).mean()
    true = y[np.arange(len(y)), label]
    others = y.copy(); others[np.arange(len(y)), label] = -np.inf
    margin = true - others.max(1)
    difference = np.abs(np.maximum(margin, 0) - np.maximum([s["margin"] for s in samples], 0)).max()
    model = onnx.load(path)
    last = [n for n in model.graph.node if n.op_type in ("Gemm", "MatMul", "Conv")][-1]
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    anew = float("nan")
    joins = [n for n in model.graph.node if n.op_type == "Add" and not weights.keys() & set(n.input)]
    if last.op_type != "Conv" and not joins:
        w = weights[last.input[1]].astype(np.float64)
        w = w if w.shape[0] == y.shape[1] else w.T
        before = np.prod([l["lipschitz"] for l in certificate["layers"][:-1]])
        apart = np.linalg.norm(w[:, None] - w[None], axis=2)
        with np.errstate(divide="ignore", invalid="ignore"):
            radius = np.where(np.arange(y.shape[1]) == label[:, None], np.inf, (true[:, None] - y) / (before * apart[label])).min(1)
        anew = 100 * (radius > eps).mean()
    certified = 100 * np.mean([s["real"] > eps for s in samples])
    print(f"{name:18s} {len(x):6d}  {difference:17.1e}  {np.abs(y).max():15.2f}  {100 * same:9.2f}%  {certified:9.2f}  {anew:5.2f}")
