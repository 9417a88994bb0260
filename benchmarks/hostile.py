"""Hostile arguments on the whole public surface: what is refused by name, what is taken, and what fails from inside.

    python benchmarks/hostile.py [--quick] [--only NAME] [--out DIR]

A call is a public function with one right argument replaced by a hostile value (see `hostile_doors` and `hostile_values`).
Its outcome is one of

    refused     a ValueError or TypeError of this library or of scikit-learn that names the argument (where something is
                looked up in a sweep or in a folder, a KeyError, an IndexError or a FileNotFoundError)
    finite      a result of finite numbers, of a value that may be taken
    flagged     a result that is not finite, and says so: a status, or an error that says that all fits diverged
    inner       another error, or one that does not name the argument
    silent NaN  a result that is not finite, and does not say so
    taken       a result of a value that has to be refused

The last three are faults: there shall be none. Prints their number by function and writes all of them to `hostile.json` in
DIR. --quick takes one of 40 of the calls that compile nothing. --only takes functions whose name contains NAME.
"""

from __future__ import annotations

import argparse
import re
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
from hostile_doors import Door, doors, missing
from hostile_values import Value, values
from lambda_grid import run_command, write_json

from moejax import Fit, Status
from moejax.sweeps import Sweep

GOOD, FAULTS = ("refused", "finite", "flagged"), ("inner", "silent NaN", "taken")
OWN, SKLEARN = "/moejax/", "site-packages/sklearn/"  # in the path of the file that refuses
FLAGS = Status.DIVERGED
QUICK = 40
LOOKUPS = (KeyError, IndexError, FileNotFoundError)  # of what is looked up by name or number, where documented


@dataclass(frozen=True)
class Call:
    """One call: a function, the argument that is replaced, and the value."""

    door: Door
    argument: str
    value: Value

    def __str__(self) -> str:
        return f"{self.door.name}({self.argument}={self.value.label})"


def calls(stages: Sequence[str] = ("free", "checked", "fitted"), only: str = "") -> Iterator[Call]:
    """All calls of some stages; of "checked" alone those which have to be refused, unless "fitted" is among them."""
    for door in doors():
        if door.stage in stages and only in door.name:
            for argument, (kind, right) in door.given.items():
                for value in values(kind, right):
                    if value.never or door.stage == "free" or "fitted" in stages:
                        yield Call(door, argument, value)


def without_compiling(every: int = 1, only: str = "") -> Iterator[Call]:
    """The calls that compile nothing, or one of `every` so many, of each function another part."""
    return islice(calls(("free", "checked"), only), None, None, every)


def outcome(call: Call) -> tuple[str, str]:
    """What becomes of a call, and its error in one line."""
    given = {name: right for name, (_, right) in call.door.given.items()}
    given |= {call.argument: call.value.value} if call.argument else {}
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            result = call.door.call(**given)
    except Exception as error:
        return of_error(call, error), f"{type(error).__name__}: {error}"[:300].replace("\n", " ")
    if call.value.never:
        return "taken", shown(result)
    status = flags_of(result)
    if status is not None and status & FLAGS:
        return "flagged", ""
    return ("finite" if is_finite(call.door.result(result)) else "silent NaN"), shown(result)


def shown(result: Any) -> str:
    """A result in one short line, which may hold what cannot be shown."""
    try:
        return f"{result!r}"[:300].replace("\n", " ")
    except Exception:
        return f"a {type(result).__name__}"


def faults(chosen: Iterable[Call]) -> list[str]:
    """The calls with another outcome than a refusal, a flag or finite numbers, in one line each."""
    found = ((call, *outcome(call)) for call in chosen)
    return [f"{call}: {kind} {text}" for call, kind, text in found if kind not in GOOD]


def wrong(door: Door) -> str | None:
    """What is wrong with a function of the table when it is called with right arguments; None for nothing."""
    kind, text = outcome(Call(door, "", Value("", None, False)))
    return None if kind in ("finite", "flagged") else f"{door.name}: {kind} {text}"


def of_error(call: Call, error: Exception) -> str:
    """Whether an error is a refusal by name, a flag that all fits diverged, or comes from inside."""
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    own = OWN in last
    if own and isinstance(error, FloatingPointError | RuntimeError) and "finite" in str(error):
        return "flagged"
    kinds = (ValueError, TypeError, *LOOKUPS)
    names = "|".join(filter(None, (re.escape(call.argument), call.door.also.get(call.argument))))
    if SKLEARN in last and isinstance(error, ValueError | TypeError):
        return "refused"  # in the words of scikit-learn, which users of its estimators know
    named = re.search(rf"(?<![\w.])({names})(?!\w)", str(error)) or _is_mismatch(call, str(error))
    return "refused" if own and named and isinstance(error, kinds) else "inner"


def _is_mismatch(call: Call, text: str) -> bool:
    """Whether an error names the other one of two arguments whose shapes do not go together."""
    name = re.match(r"\w+", text)
    return bool(name) and name[0] in call.door.given and bool(re.search(r"shape|\d+ names were given; want \d+", text))


def flags_of(result: Any) -> int | None:
    """The status of a result that has one."""
    if isinstance(result, Fit | Sweep):
        fit = result if isinstance(result, Fit) else result.fits
        return int(np.bitwise_or.reduce(np.ravel(fit.status)))
    return None


def is_finite(result: Any) -> bool:
    """Whether all numbers of a result are finite. Of a fit, params and objective count."""
    if isinstance(result, Sweep):
        result = result.fits
    if isinstance(result, Fit):
        result = (result.params, result.objective)
    if is_dataclass(result) and not isinstance(result, type):
        result = [getattr(result, field.name) for field in fields(result)]
    return all(_finite(leaf) for leaf in jax.tree.leaves(result))


def _finite(leaf: Any) -> bool:
    if is_dataclass(leaf) and not isinstance(leaf, type):
        return is_finite(leaf)
    if isinstance(leaf, float | np.ndarray | np.generic | jax.Array):
        numbers = np.asarray(leaf)
        return numbers.dtype.kind not in "fc" or bool(np.isfinite(numbers).all())
    return True


def counted(chosen: Iterable[Call]) -> dict[str, Any]:
    """The outcomes of calls: their number by outcome, and by function; and all faults."""
    total: Counter[str] = Counter()
    functions: dict[str, Counter[str]] = {}
    faults = []
    started = time.perf_counter()
    for call in chosen:
        kind, text = outcome(call)
        total[kind] += 1
        functions.setdefault(call.door.name, Counter())[kind] += 1
        if kind in FAULTS:
            faults.append({"call": str(call), "outcome": kind, "text": text})
    return {
        "calls": total.total(),
        "outcomes": {kind: total[kind] for kind in (*GOOD, *FAULTS)},
        "functions": {name: dict(counts) for name, counts in functions.items()},
        "faults": faults,
        "missing": missing(),
        "seconds": time.perf_counter() - started,
    }


def table(told: dict[str, Any]) -> str:
    """Outcomes of each function, and of all together."""
    kinds = (*GOOD, *FAULTS)
    lines = [f"{'':40}{'calls':>8}" + "".join(f"{kind:>12}" for kind in kinds)]
    for name, counts in {**told["functions"], "all": told["outcomes"]}.items():
        lines.append(f"{name:40}{sum(counts.values()):>8}" + "".join(f"{counts.get(kind, 0):>12}" for kind in kinds))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few of the calls that compile nothing")
    parser.add_argument("--only", default="", metavar="NAME", help="functions whose name contains NAME")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where hostile.json goes")
    options = parser.parse_args(argv)
    chosen = without_compiling(QUICK, options.only) if options.quick else calls(only=options.only)
    told = counted(chosen)
    print(table(told))
    for fault in told["faults"]:
        print(f"{fault['outcome']:>12}  {fault['call']}: {fault['text']}")
    print(f"{told['calls']} calls in {told['seconds']:.0f} s, {len(told['faults'])} faults")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(told, options.out / "hostile.json")
    return told


if __name__ == "__main__":
    run_command(main)
