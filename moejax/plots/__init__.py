"""Figures of fits and sweeps.

Each function draws arrays into a matplotlib Axes and returns the Axes::

    ax = training_loss(history)             # a new figure: ax.figure.savefig("loss.png", dpi=120)
    ax = training_loss(history, ax=ax)      # into existing Axes, made with or without pyplot

Notes
-----
An array is any argument that `numpy.asarray` accepts. In shapes, n is the number of samples, d of features, K of experts,
M of members of a grid, T of training steps, P of penalties and R of restarts. Experts are counted from 0 in arrays and
from 1 in labels.

The functions do not show or save a figure, do not change matplotlib's settings and do not import pyplot. The legend is
above the Axes, so that it covers no data. Add a title by `title` or `ax.figure.suptitle`: a title by `ax.set_title` can
overlap the legend.

A function raises a `ValueError` if an array, an option or the Axes is wrong. The message names the argument, the value that
was given and the value that is wanted.
"""

from moejax.plots._gates import gate_tree as gate_tree
from moejax.plots._predictions import calibration as calibration
from moejax.plots._predictions import conditional_density as conditional_density
from moejax.plots._predictions import sample_3d as sample_3d
from moejax.plots._predictions import true_vs_predicted as true_vs_predicted
from moejax.plots._style import PALETTE as PALETTE
from moejax.plots._style import title as title
from moejax.plots._sweeps import validation_error as validation_error
from moejax.plots._training import training_loss as training_loss
from moejax.plots._weights import coefficient_path as coefficient_path
from moejax.plots._weights import expert_weights as expert_weights
from moejax.plots._weights import tied_groups as tied_groups

__all__ = [
    "PALETTE",
    "calibration",
    "coefficient_path",
    "conditional_density",
    "expert_weights",
    "gate_tree",
    "sample_3d",
    "tied_groups",
    "title",
    "training_loss",
    "true_vs_predicted",
    "validation_error",
]
