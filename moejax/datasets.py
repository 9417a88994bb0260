"""Simulated data with known parameters, tables from CSV files, and splits of rows.

All names are those of `moejax.data`.
"""

from moejax.data import Clusters as Clusters
from moejax.data import Problem as Problem
from moejax.data import Seed as Seed
from moejax.data import SoftmaxGate as SoftmaxGate
from moejax.data import Split as Split
from moejax.data import Table as Table
from moejax.data import data_path as data_path
from moejax.data import diabetes as diabetes
from moejax.data import inverse_sine as inverse_sine
from moejax.data import notebook as notebook
from moejax.data import read_csv as read_csv
from moejax.data import softmax_regressions as softmax_regressions
from moejax.data import split as split
from moejax.data import three_regressions as three_regressions
from moejax.data import tied as tied

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
