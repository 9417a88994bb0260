"""Names of the contracts of parts, and of arrays with their shapes, for annotations.

`Expert`, `Gate`, `Family`, `Penalty` and `Loss` are the base classes. `ExpertLike`, `GateLike`, `FamilyLike`, `PenaltyLike`
and `LossLike` are protocols of the required functions alone, which users' own records have.

The other names are of arrays with their shapes, by jaxtyping: `Float[Array, "K n"]` is an array of floating-point numbers,
of K experts by n rows. Nothing checks them while a program runs.
"""

from moejax._arrays import Coefficients as Coefficients
from moejax._arrays import Counts as Counts
from moejax._arrays import Eta as Eta
from moejax._arrays import Features as Features
from moejax._arrays import FlagPerFit as FlagPerFit
from moejax._arrays import Floats as Floats
from moejax._arrays import HistoryPerFit as HistoryPerFit
from moejax._arrays import Labels as Labels
from moejax._arrays import Marks as Marks
from moejax._arrays import Masks as Masks
from moejax._arrays import Numbers as Numbers
from moejax._arrays import OffsetLike as OffsetLike
from moejax._arrays import Outputs as Outputs
from moejax._arrays import OutputsLike as OutputsLike
from moejax._arrays import PerFit as PerFit
from moejax._arrays import PerOutput as PerOutput
from moejax._arrays import RandomKey as RandomKey
from moejax._arrays import Rowwise as Rowwise
from moejax._arrays import Scalar as Scalar
from moejax._arrays import SharesPerFit as SharesPerFit
from moejax._arrays import Tree as Tree
from moejax._arrays import WholePerFit as WholePerFit
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
    "Coefficients",
    "Counts",
    "Eta",
    "Expert",
    "ExpertLike",
    "Family",
    "FamilyLike",
    "Features",
    "FlagPerFit",
    "Floats",
    "Gate",
    "GateLike",
    "HistoryPerFit",
    "Labels",
    "Loss",
    "LossLike",
    "Marks",
    "Masks",
    "Numbers",
    "OffsetLike",
    "Outputs",
    "OutputsLike",
    "Params",
    "Penalty",
    "PenaltyLike",
    "PerFit",
    "PerOutput",
    "RandomKey",
    "Rowwise",
    "Scalar",
    "SharesPerFit",
    "Tree",
    "WholePerFit",
]
