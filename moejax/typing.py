"""Names of the contracts of parts, for annotations.

`Expert`, `Gate`, `Family`, `Penalty` and `Loss` are the base classes. `ExpertLike`, `GateLike`, `FamilyLike`, `PenaltyLike`
and `LossLike` are protocols of the required functions alone, which users' own records have.
"""

from moejax._contracts import Params as Params
from moejax.experts import Expert as Expert
from moejax.experts import ExpertLike as ExpertLike
from moejax.families import Family as Family
from moejax.families import FamilyLike as FamilyLike
from moejax.gates import Gate as Gate
from moejax.gates import GateLike as GateLike
from moejax.losses import Loss as Loss
from moejax.losses import LossLike as LossLike
from moejax.penalties import Penalty as Penalty
from moejax.penalties import PenaltyLike as PenaltyLike

__all__ = [
    "Expert",
    "ExpertLike",
    "Family",
    "FamilyLike",
    "Gate",
    "GateLike",
    "Loss",
    "LossLike",
    "Params",
    "Penalty",
    "PenaltyLike",
]
