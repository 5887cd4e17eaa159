"""PyOD's detectors on the vectors of `novelty_quality`, in a Python that has PyOD: `python novelty_peers.py FOLDER` reads in.npz, writes out.npz."""

import sys

import numpy as np
from pyod.models.ecod import ECOD
from pyod.models.iforest import IForest
from pyod.models.knn import KNN
from pyod.models.lof import LOF

if __name__ == "__main__":
    folder = sys.argv[1]
    data = np.load(f"{folder}/in.npz")
    found = {}
    for name, detector in {
        "PyOD kNN": KNN(),  # k = 5, the largest distance, Euclidean: on unit vectors the same order as cosine
        "PyOD kNN mean": KNN(method="mean"),
        "PyOD LOF": LOF(novelty=True),
        "PyOD ECOD": ECOD(),
        "PyOD IForest": IForest(random_state=7),
    }.items():
        detector.fit(data["references"])
        found[name] = detector.decision_function(data["asked"])
    np.savez(f"{folder}/out.npz", **found)
