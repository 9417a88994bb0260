"""Gates: how much each of the K experts counts for a row.

A gate is any record with two pure functions:

    init(key, n_experts, x) -> params
    log_probs(params, x) -> (K, n)       soft and finite: exp of it sums to 1 over the experts

and, where it helps,

    weights(params, x) -> (K, n)         what multiplies the experts' means in a prediction, up to a factor for each row;
                                         without it, the probabilities
    kept                                 to how many experts it routes a row, whose share it alone multiplies; without it,
                                         or with None, to all
    routed(probs) -> (K, n)              of a gate that has it: soft probabilities (K, n) of the experts that take part made
                                         into what multiplies their means
    noisy_log_probs(params, x, key)      of a gate that is noisy in training: `log_probs` with noise drawn from the key
    active(params) -> (K,)               which experts take part at all
    log_probs_among(params, x, active)   `log_probs` where only those experts take part, NEVER for the others; without it,
                                         the probabilities of those that do are divided by their sum
    prepare(x), takes_any_array          as for experts
    trainable(params), penalized(params) trees of booleans, see `moejax.model`
    degrees_of_freedom(params, active)   the free numbers of the experts that take part, for criteria
    log_joint(params, x) -> (K, n)       log p(expert, x), of a gate that models its inputs too; EM then ascends the joint
                                         likelihood; with log_proportions(params) -> (K,)
    log_prior(params)                    of such a gate, added to the mean joint log-likelihood
    rows(x)                              as for experts
    null(params)                         where EM begins from given responsibilities
    statistics(rows, params, probs, responsibilities, weights) -> statistics
                                         sums over rows for EM; all (K, n) but for weights (n,)
    m_step(params, gradient, statistics, penalties) -> params
                                         as for experts; without it, EM makes gradient steps
    exact                                whether an M-step leads to the very optimum, so that EM need not search
    hyper                                names of numbers that a fit may set, each an untrained leaf of params, with their
                                         defaults; and check_hyper(name, value), which refuses what they cannot be
    settled(params) -> params            params as they are once these numbers are set, before a fit begins
"""

from moejax.gates._confidence import Confidence as Confidence
from moejax.gates._confidence import confidence as confidence
from moejax.gates._constant import Constant as Constant
from moejax.gates._constant import constant as constant
from moejax.gates._custom import Custom as Custom
from moejax.gates._custom import custom as custom
from moejax.gates._fixed import Fixed as Fixed
from moejax.gates._fixed import fixed as fixed
from moejax.gates._gaussian import Gaussian as Gaussian
from moejax.gates._gaussian import gaussian as gaussian
from moejax.gates._hierarchical import Branch as Branch
from moejax.gates._hierarchical import Hierarchical as Hierarchical
from moejax.gates._hierarchical import hierarchical as hierarchical
from moejax.gates._neural import NeuralGate as NeuralGate
from moejax.gates._neural import neural as neural
from moejax.gates._routing import NoisyTopK as NoisyTopK
from moejax.gates._routing import Top1 as Top1
from moejax.gates._routing import TopK as TopK
from moejax.gates._routing import largest as largest
from moejax.gates._routing import straight_through as straight_through
from moejax.gates._routing import top1 as top1
from moejax.gates._routing import top_k as top_k
from moejax.gates._softmax import Softmax as Softmax
from moejax.gates._softmax import softmax as softmax

__all__ = [
    "Branch",
    "Confidence",
    "Constant",
    "Custom",
    "Fixed",
    "Gaussian",
    "Hierarchical",
    "NeuralGate",
    "NoisyTopK",
    "Softmax",
    "Top1",
    "TopK",
    "confidence",
    "constant",
    "custom",
    "fixed",
    "gaussian",
    "hierarchical",
    "largest",
    "neural",
    "softmax",
    "straight_through",
    "top1",
    "top_k",
]
