"""Gates: how much each of the K experts counts for a row.

`Gate` is the contract: required methods, defaults, capabilities. A gate is a part from here, or a user's own record with two
pure functions:

    init(key, n_experts, x) -> params
    log_probs(params, x) -> (K, n)       soft and finite: exp of it sums to 1 over the experts

`custom` makes such a part of logits, and `neural` of a network.
"""

from moejax.gates._base import NEVER as NEVER
from moejax.gates._base import Gate as Gate
from moejax.gates._base import GateLike as GateLike
from moejax.gates._base import among as among
from moejax.gates._base import completed as completed
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
    "NEVER",
    "Branch",
    "Confidence",
    "Constant",
    "Custom",
    "Fixed",
    "Gate",
    "GateLike",
    "Gaussian",
    "Hierarchical",
    "NeuralGate",
    "NoisyTopK",
    "Softmax",
    "Top1",
    "TopK",
    "among",
    "completed",
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
