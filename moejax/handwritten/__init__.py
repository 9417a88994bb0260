"""Gradients of a mixture of linear experts by hand, and a check of anybody's own gradients against autodiff.

For researchers who derive gradients on paper. Everything is NumPy in float64, plain enough to be read beside the
derivation, and independent of the rest of the package. JAX is imported by `compare` alone.

For rows x (n, d), targets y (n,) and K linear experts, params is the nested dict

    {"experts": {"weights": (K, d), "intercept": (K,)}, "gate": GATE}

in which GATE belongs to one of four gates:

    "fixed"     {"log_proportions": (K,)}                              given proportions, never trained
    "constant"  {"logits": (K,)}                                       softmax of logits that see no input
    "softmax"   {"weights": (K, d), "intercept": (K,), "temperature": ()}
    "top1"      the same as softmax; the expert of largest probability answers alone (straight-through)

The probabilities of the last two are softmax((x weights^T + intercept) / temperature); the temperature is not trained.

    eta_ik = x_i . w_k + b_k        prediction_i = sum over k of g_ik eta_ik        r_i = y_i - prediction_i
    loss   = mean over i of r_i^2 + l1_experts sum|w| + l1_gate sum|v| + l2_experts sum w^2 + l2_gate sum v^2

with w the experts' weights and v the gate's: intercepts and logits are never penalised, and a gate without weights has
no penalty. The mean is over rows, weighted on request: the loss has the unit of y squared.

The gradient, with s_i the share of row i in the mean (1 / n, unless weighted) and z the logits of the gate:

    dL/deta_ik = -2 s_i r_i g_ik
    dL/dg_ik   = -2 s_i r_i eta_ik
    dL/dz_ik   = g_ik (dL/dg_ik - sum over j of g_ij dL/dg_ij) = -2 s_i r_i g_ik (eta_ik - sum over j of g_ij eta_ij)

Straight-through top-1 puts the one-hot choice for g into the prediction and into dL/deta, and keeps the softmax's g in
dL/dz, as though the choice had been the softmax. |w| has the subgradient sign(w), which is 0 at 0.

Sources: the gated mean of experts is that of R. A. Jacobs, M. I. Jordan, S. J. Nowlan and G. E. Hinton, "Adaptive
mixtures of local experts", Neural Computation 3 (1991); the straight-through estimator is that of Y. Bengio,
N. Leonard and A. Courville, "Estimating or propagating gradients through stochastic neurons for conditional
computation", arXiv:1308.3432 (2013).
"""

from moejax.handwritten._compare import Comparison as Comparison
from moejax.handwritten._compare import Row as Row
from moejax.handwritten._compare import compare as compare
from moejax.handwritten._gradient import descend as descend
from moejax.handwritten._gradient import gradient as gradient
from moejax.handwritten._gradient import loss as loss

__all__ = ["Comparison", "Row", "compare", "descend", "gradient", "loss"]
