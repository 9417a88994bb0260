"""Sweeps: a fit over a product of named axes, as one compiled program that runs chunk by chunk.

Members, chunks, devices, threads, progress and checkpoints are known only here. The code on lower floors does not depend on
whether it runs in a sweep.
"""

from moejax.sweeps._axes import EVERY_ROW as EVERY_ROW
from moejax.sweeps._axes import NO_SAMPLE as NO_SAMPLE
from moejax.sweeps._axes import ROW_AXES as ROW_AXES
from moejax.sweeps._inputs import Inputs as Inputs
from moejax.sweeps._program import compile_for as compile_for
from moejax.sweeps._result import Run as Run
from moejax.sweeps._result import Sweep as Sweep
from moejax.sweeps._selection import Selection as Selection
from moejax.sweeps._selection import select as select
from moejax.sweeps._sweep import Sweeper as Sweeper
from moejax.sweeps._sweep import sweep as sweep

__all__ = [
    "EVERY_ROW",
    "NO_SAMPLE",
    "ROW_AXES",
    "Inputs",
    "Run",
    "Selection",
    "Sweep",
    "Sweeper",
    "compile_for",
    "select",
    "sweep",
]
