"""The model: experts, a gate and a family composed into one mixture.

    p(y | x) = sum over k of  g_k(x) f(y; eta_k(x), phi_k)        E[y | x] = sum over k of  g_k(x) mean(eta_k(x))

(Jacobs, Jordan, Nowlan and Hinton 1991). Params are a plain dictionary of three pytrees, "experts", "gate" and "family".

At its face, rows lead: x (n, d), y (n,) or (n, m), probabilities (n, K). Inside, experts lead and rows are last, (K, n):
losses and solvers hand prepared inputs (`prepare`) to `means`, `log_gate` and `gate_weights`, and see that layout alone.
"""

from moejax._contracts import Params as Params
from moejax.model._arguments import check_model as check_model
from moejax.model._arguments import checked as checked
from moejax.model._columns import Columns as Columns
from moejax.model._data import PARTS as PARTS
from moejax.model._data import Data as Data
from moejax.model._data import Inputs as Inputs
from moejax.model._data import floating as floating
from moejax.model._data import group_numbers as group_numbers
from moejax.model._data import is_table as is_table
from moejax.model._data import leaders as leaders
from moejax.model._data import native as native
from moejax.model._data import on_device as on_device
from moejax.model._data import widened as widened
from moejax.model._data import without_absent as without_absent
from moejax.model._model import Model as Model
from moejax.model._model import moe as moe

__all__ = [
    "PARTS",
    "Columns",
    "Data",
    "Inputs",
    "Model",
    "Params",
    "check_model",
    "checked",
    "floating",
    "group_numbers",
    "is_table",
    "leaders",
    "moe",
    "native",
    "on_device",
    "widened",
    "without_absent",
]
