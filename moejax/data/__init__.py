"""Simulated mixtures of regressions, packaged data sets, tables from CSV files, and splits of rows.

The best possible predictor of each simulated mixture is known (`Problem`).

Notes
-----
This package needs only NumPy and the standard library. Arrays are float64 with one row per sample: x has shape (n, d)
and y has shape (n,), for n samples and d features. K is the number of experts. Every prediction error is a mean over
samples, in squared units of y.

A wrong argument raises a `ValueError`. Its message names the argument, the value that was given and the value that is
wanted. A missing file raises a `FileNotFoundError`.
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
