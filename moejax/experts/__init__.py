"""Experts: what each of the K experts says of a row, before any gate weighs it.

`Expert` is the contract: required methods, defaults, capabilities. An expert is a part from here, or a user's own record
with two pure functions, for all K experts at once:

    init(key, n_experts, x) -> params            params: a pytree, experts on its leading axis
    apply(params, x) -> eta                      eta: (K, n), or (K, n, m) for m outputs

`stack` makes such a part of the two functions of a single expert, and `neural` of a network.
"""

from moejax.experts._base import Expert as Expert
from moejax.experts._base import ExpertLike as ExpertLike
from moejax.experts._base import completed as completed
from moejax.experts._columns import Choices as Choices
from moejax.experts._columns import Zeroed as Zeroed
from moejax.experts._columns import by_columns as by_columns
from moejax.experts._columns import check_division as check_division
from moejax.experts._functions import Functions as Functions
from moejax.experts._functions import functions as functions
from moejax.experts._linear import Linear as Linear
from moejax.experts._linear import linear as linear
from moejax.experts._neural import NeuralExpert as NeuralExpert
from moejax.experts._neural import neural as neural
from moejax.experts._predictions import Predictions as Predictions
from moejax.experts._predictions import predictions as predictions
from moejax.experts._stack import Stack as Stack
from moejax.experts._stack import stack as stack
from moejax.experts._tied import Tied as Tied
from moejax.experts._tied import tied as tied

__all__ = [
    "Choices",
    "Expert",
    "ExpertLike",
    "Functions",
    "Linear",
    "NeuralExpert",
    "Predictions",
    "Stack",
    "Tied",
    "Zeroed",
    "by_columns",
    "check_division",
    "completed",
    "functions",
    "linear",
    "neural",
    "predictions",
    "stack",
    "tied",
]
