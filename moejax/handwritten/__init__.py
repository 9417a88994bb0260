"""Handwritten gradients of a mixture of linear experts, and a comparison of any gradient with automatic differentiation.

This package is for researchers who derive gradients on paper. It uses NumPy in float64. Its code follows the derivation
below and does not use the experts, gates and solvers of moejax. Only `compare` imports JAX.

Notes
-----
For rows x (n, d), targets y (n,) and K linear experts, the parameters are the nested dict::

    {"experts": {"weights": (K, d), "intercept": (K,)}, "gate": GATE}

GATE is the dict of one of four gates::

    "fixed"     {"log_proportions": (K,)}                                  given proportions, which are not trained
    "constant"  {"logits": (K,)}                                           softmax of logits that do not depend on x
    "softmax"   {"weights": (K, d), "intercept": (K,), "temperature": ()}  softmax of logits that are linear in x
    "top1"      {"weights": (K, d), "intercept": (K,), "temperature": ()}  only the most probable expert predicts

The gates "softmax" and "top1" have the probabilities softmax((x weights^T + intercept) / temperature). The temperature is
not trained. The expert k predicts eta_ik for row i, g_ik is its weight in the prediction, and the loss is::

    eta_ik = x_i . w_k + b_k        prediction_i = sum over k of g_ik eta_ik        r_i = y_i - prediction_i
    loss   = mean over i of r_i^2 + l1_experts sum|w| + l1_gate sum|v| + l2_experts sum w^2 + l2_gate sum v^2

Here w are the experts' weights and v are the gate's weights. Intercepts and logits are not penalised, and a gate without
weights has no penalty. The mean is over rows and may be weighted. The loss is in squared units of y.

Let s_i be the weight of row i in the mean (1 / n without row weights) and z_ik the logits of the gate, divided by the
temperature if there is one. Without the penalties, the gradient is::

    dL/deta_ik = -2 s_i r_i g_ik
    dL/dg_ik   = -2 s_i r_i eta_ik
    dL/dz_ik   = g_ik (dL/dg_ik - sum over j of g_ij dL/dg_ij) = -2 s_i r_i g_ik (eta_ik - sum over j of g_ij eta_ij)

The gate "top1" uses the straight-through estimator. In the prediction and in dL/deta, g is one-hot: 1 for the most
probable expert and 0 for the others. In dL/dz, g is the softmax, as if the gate were "softmax". The subgradient of |w| is
sign(w), which is 0 at w = 0.

References
----------
R. A. Jacobs, M. I. Jordan, S. J. Nowlan and G. E. Hinton, "Adaptive mixtures of local experts", Neural Computation 3 (1991),
for the mean of the experts, weighted by the gate.

Y. Bengio, N. Leonard and A. Courville, "Estimating or propagating gradients through stochastic neurons for conditional
computation", arXiv:1308.3432 (2013), for the straight-through estimator.

Examples
--------
>>> import numpy as np
>>> from moejax import handwritten
>>> x, y = np.array([[0.0], [1.0], [2.0]]), np.array([0.0, 1.0, 4.0])
>>> params = {
...     "experts": {"weights": np.array([[1.0], [2.0]]), "intercept": np.zeros(2)},
...     "gate": {"logits": np.zeros(2)},
... }
>>> round(handwritten.loss(params, x, y, "constant"), 4)
0.4167
>>> handwritten.gradient(params, x, y, "constant")["gate"]["logits"].round(4).tolist()
[0.25, -0.25]
"""

from moejax.handwritten._compare import Comparison as Comparison
from moejax.handwritten._compare import Row as Row
from moejax.handwritten._compare import compare as compare
from moejax.handwritten._gradient import descend as descend
from moejax.handwritten._gradient import gradient as gradient
from moejax.handwritten._gradient import loss as loss

__all__ = ["Comparison", "Row", "compare", "descend", "gradient", "loss"]
