"""Data: mixtures of regressions whose best possible predictor is known, packaged samples, and tables read from files.

NumPy and the standard library only. Arrays are float64 with one row a sample: x (n, d) and y (n,), n samples,
d features, K experts. Every error of prediction here is a mean over samples, in squared units of y.

A bad argument is one `ValueError` that names the argument, what was given and what is wanted; a file that is not there
is a `FileNotFoundError`.
"""

from moejax.data._problem import Clusters as Clusters
from moejax.data._problem import Problem as Problem
from moejax.data._problem import SoftmaxGate as SoftmaxGate
from moejax.data._random import Seed as Seed
from moejax.data._simulated import inverse_sine as inverse_sine
from moejax.data._simulated import notebook as notebook
from moejax.data._simulated import softmax_regressions as softmax_regressions
from moejax.data._simulated import three_regressions as three_regressions
from moejax.data._simulated import tied as tied
from moejax.data._split import Split as Split
from moejax.data._split import split as split
from moejax.data._tables import Table as Table
from moejax.data._tables import data_path as data_path
from moejax.data._tables import diabetes as diabetes
from moejax.data._tables import read_csv as read_csv

__all__ = [
    "Clusters",
    "Problem",
    "Seed",
    "SoftmaxGate",
    "Split",
    "Table",
    "data_path",
    "diabetes",
    "inverse_sine",
    "notebook",
    "read_csv",
    "softmax_regressions",
    "split",
    "three_regressions",
    "tied",
]
