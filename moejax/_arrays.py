"""Names of arrays with their shapes, for annotations; nothing checks them while a program runs.

Dimensions: n rows, d features, m outputs, C classes, K experts, A rows of a stack of predictors or logits, p = d + 1 columns
with that of the intercept, G members of a sweep, T records of a fit. Inside the library experts lead and rows are last,
(K, n); at its face rows lead.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Num, PRNGKeyArray, PyTree, Shaped

RandomKey: TypeAlias = PRNGKeyArray
Scalar: TypeAlias = Float[Array, ""]
Floats: TypeAlias = Float[Array, "..."]  # of any shape
Tree: TypeAlias = PyTree[Shaped[ArrayLike, "..."]]  # any pytree of arrays; to a type checker it is Any, as all pytrees are
Marks: TypeAlias = PyTree[bool]  # a tree like others, which says of each array yes or no
Masks: TypeAlias = PyTree[Bool[Array, "..."]]  # the same of each number

# ---- inside: experts lead, rows are last ----------------------------------------------------------------------------

Eta: TypeAlias = Float[Array, "K n"] | Float[Array, "K n m"]  # of m outputs, or of m numbers of one output
PerOutput: TypeAlias = Scalar | Float[Array, " m"]  # a number, or one of each output
Counts: TypeAlias = Int[Array, ""] | Int[Array, " K"]  # whole numbers, of all experts together or of each
Outputs: TypeAlias = Float[Array, " n"] | Float[Array, "n m"]  # targets and predictions, at the face too
Coefficients: TypeAlias = list[Float[Array, "K ..."]]  # (K, d) or (K, d, m); of a user's own part other shapes too

# ---- fits, of which G members may lead; those of a sweep are NumPy's -------------------------------------------------

PerFit: TypeAlias = Float[Array | np.ndarray | np.floating, "*G"]
WholePerFit: TypeAlias = Int[Array | np.ndarray | np.integer, "*G"]
FlagPerFit: TypeAlias = Bool[Array | np.ndarray | np.bool_, "*G"]
HistoryPerFit: TypeAlias = Float[Array | np.ndarray, "*G T"]
SharesPerFit: TypeAlias = Float[Array | np.ndarray, "*G K"]

# ---- the face: rows lead --------------------------------------------------------------------------------------------

Features: TypeAlias = PyTree[Shaped[ArrayLike, "n ..."]]  # a table (n, d), or any pytree of arrays with n leading
Rowwise: TypeAlias = Float[Array, "n K"] | Float[Array, "n K m"]  # what each expert says of each row
OutputsLike: TypeAlias = Num[npt.ArrayLike, " n"] | Num[npt.ArrayLike, "n m"]  # what becomes an array of `Outputs`
OffsetLike: TypeAlias = Num[ArrayLike, " n"] | Num[ArrayLike, "n m"]  # what is added to a predictor as it is
Labels: TypeAlias = Shaped[npt.ArrayLike, " n"]  # of groups of rows
Numbers: TypeAlias = Num[npt.ArrayLike, "..."]  # a number, or several
