"""Figures of fits and sweeps: each takes arrays and a matplotlib Axes, and returns the Axes.

    ax = training_loss(history)             # a figure of its own: ax.figure.savefig("loss.png", dpi=120)
    ax = training_loss(history, ax=ax)      # into Axes that you made, with pyplot or without

An array is anything that `numpy.asarray` takes. In shapes, n counts samples, d features, K experts, M members of a
grid, T training steps, P penalties, R restarts. Experts are counted from 0 in arrays and from 1 in labels. Nothing is
shown or saved, matplotlib's settings are left alone, and pyplot is not imported. Legends stand in a row above the Axes,
where no data can be: let a title be the figure's (`ax.figure.suptitle`).
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
