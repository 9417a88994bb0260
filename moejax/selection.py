"""Selection: the choice of one model from a sweep; see `moejax.sweeps`."""

from moejax.sweeps._selection import CRITERIA as CRITERIA
from moejax.sweeps._selection import RULES as RULES
from moejax.sweeps._selection import ChoiceWarning as ChoiceWarning
from moejax.sweeps._selection import Criterion as Criterion
from moejax.sweeps._selection import Selection as Selection
from moejax.sweeps._selection import select as select

__all__ = [
    "CRITERIA",
    "RULES",
    "ChoiceWarning",
    "Criterion",
    "Selection",
    "select",
]
