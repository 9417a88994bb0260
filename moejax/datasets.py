"""Data: mixtures of regressions whose best possible predictor is known, packaged samples, and tables read from files.

NumPy and the standard library only. Arrays are float64 with one row a sample: x (n, d) and y (n,), n samples,
d features, K experts. Every error of prediction here is a mean over samples, in squared units of y.

A bad argument is one `ValueError` that names the argument, what was given and what is wanted; a file that is not there
is a `FileNotFoundError`.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moejax import _check

__all__ = [
    "Problem",
    "Seed",
    "Split",
    "Table",
    "data_path",
    "diabetes",
    "notebook",
    "read_csv",
    "split",
    "three_regressions",
]

Seed = int | np.random.SeedSequence
"""What all randomness here comes from: a whole number of at least 0, or a seed sequence (which is left as it was)."""


class Split(NamedTuple):
    """Row numbers of three disjoint parts of a data set, each a 1-D array of int64."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclass(frozen=True, eq=False)
class Problem:
    """A sample of a mixture of K linear regressions without intercepts, together with the truth that it was drawn from.

    The expert k of a row is uniform over K, x ~ N(means[k], covariance) and y ~ N(x . weights[k], noise_sd^2).

    Attributes:
        x: inputs (n, d).
        y: targets (n,).
        expert: the expert that each row came from (n,), int64.
        means: the mean of x under each expert (K, d).
        weights: the coefficients of each expert (K, d).
        covariance: the covariance of x under every expert (d, d).
        noise_sd: the standard deviation of y given x and the expert.
    """

    x: np.ndarray
    y: np.ndarray
    expert: np.ndarray
    means: np.ndarray
    weights: np.ndarray
    covariance: np.ndarray
    noise_sd: float

    def draw(self, seed: Seed, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw n fresh rows of this problem: x (n, d), y (n,) and the experts (n,) that they came from.

        They are independent of the rows in the problem, also for the seed that the problem was made with.

        Raises:
            ValueError: the seed or n is not a whole number in range.
        """
        _check.count("n", n)
        x, expert, noise = _rows(_generator(seed, "draw"), n, self.means, self.covariance)
        return x, _own_mean(x, self.weights, expert) + self.noise_sd * noise, expert

    def posterior(self, x: np.ndarray) -> np.ndarray:
        """Return the probability (n, K) of each expert given x (n, d), by Bayes' rule; rows sum to 1.

        Raises:
            ValueError: x is not of shape (n, d) or not finite.
        """
        x = self._inputs(x)
        # The quadratic in x is the same for every expert and cancels; what is left is linear in x. With the centre of
        # the means as the origin, no digits are lost when the means lie close together but far from 0.
        centre = self.means.mean(axis=0)
        means = self.means - centre
        slopes = np.linalg.solve(self.covariance, means.T)
        log_joint = (x - centre) @ slopes - 0.5 * np.sum(means.T * slopes, axis=0)
        joint = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
        return joint / joint.sum(axis=1, keepdims=True)

    def bayes(self, x: np.ndarray) -> np.ndarray:
        """Return E[y | x] (n,) for x (n, d) under the true mixture: the predictor of least squared error.

        Raises:
            ValueError: x is not of shape (n, d) or not finite.
        """
        x = self._inputs(x)
        return np.sum(self.posterior(x) * (x @ self.weights.T), axis=1)

    def bayes_mse(self, seed: Seed = 0, n: int = 200_000) -> float:
        """Estimate the mean squared error of `bayes` in the long run, the least of any predictor, from n fresh rows.

        It is the variance of the noise plus the mean squared difference between `bayes` and the mean of the row's own
        expert. For each x that square is averaged over the posterior of the expert, rather than taken for one expert
        drawn from it, which keeps the mean and lowers the Monte-Carlo error (Rao-Blackwell).

        Raises:
            ValueError: the seed or n is not a whole number in range.
        """
        _check.count("n", n)
        x, _, _ = _rows(_generator(seed, "bayes_mse"), n, self.means, self.covariance)
        posterior, predictions = self.posterior(x), x @ self.weights.T
        bayes = np.sum(posterior * predictions, axis=1, keepdims=True)
        return float(self.noise_sd**2 + np.mean(np.sum(posterior * (predictions - bayes) ** 2, axis=1)))

    def _inputs(self, x: np.ndarray) -> np.ndarray:
        _check.shape("x", x, (None, self.means.shape[1]), "samples by the features of the problem")
        _check.finite("x", x)
        return np.asarray(x, dtype=np.float64)


def three_regressions(
    seed: Seed,
    n: int = 500,
    d: int = 10,
    n_experts: int = 3,
    *,
    n_active: int = 4,
    shared_active: bool = False,
    covariance: np.ndarray | None = None,
    noise_sd: float = 0.1,
    separation: float = 1.5,
) -> Problem:
    """Draw a sparse mixture of regressions whose experts live in different parts of the input space.

    Means (K, d) are `separation` times standard normals; weights (K, d) are standard normals on `n_active` features and
    0 elsewhere. Each row takes an expert k uniformly, x = means[k] + N(0, covariance) and
    y = x . weights[k] + noise_sd N(0, 1). The same seed gives the same means and weights, whatever n.

    Args:
        seed: where all randomness comes from.
        n: rows.
        d: features.
        n_experts: experts, K.
        n_active: features with a weight other than 0, for each expert; at most d.
        shared_active: whether all experts have the same active features; else each draws its own.
        covariance: of x around its expert's mean (d, d), symmetric and positive definite; None is the identity.
        noise_sd: standard deviation of the noise in y.
        separation: how far apart the experts' means are; at 0 the inputs say nothing about the expert.

    Raises:
        ValueError: an argument has the wrong shape or is out of range.

    Source: the three-regressions problem of `notebook`, generalised.
    """
    for name, value in (("n", n), ("d", d), ("n_experts", n_experts), ("n_active", n_active)):
        _check.count(name, value)
    if n_active > d:
        raise ValueError(f"n_active: {n_active} was given; want at most d, which is {d}")
    for name, scalar in (("noise_sd", noise_sd), ("separation", separation)):
        _check.shape(name, scalar, (), "one number")
        _check.not_negative(name, scalar)
    covariance = np.eye(d) if covariance is None else _covariance(covariance, d)

    rng = _generator(seed, "truth")
    means = separation * rng.standard_normal((n_experts, d))
    weights = rng.standard_normal((n_experts, d))
    # The features come last, so that `shared_active` and `n_active` leave the numbers before them alone.
    choices = 1 if shared_active else n_experts
    active = np.stack([np.isin(np.arange(d), rng.choice(d, n_active, replace=False)) for _ in range(choices)])
    weights = np.where(active, weights, 0.0)
    x, expert, noise = _rows(_generator(seed, "rows"), n, means, covariance)
    y = _own_mean(x, weights, expert) + noise_sd * noise
    return Problem(x, y, expert, means, weights, covariance, float(noise_sd))


def notebook() -> tuple[Problem, Split]:
    """Return the packaged three-regressions sample (1500, 10), three experts with four active features, and its split.

    Rows 0 to 499 are for training, 500 to 999 for validation, 1000 to 1499 for the test. The sample was drawn in
    float32; these are the very same numbers, as float64. On the test rows the Bayes predictor has mean squared error
    0.00996 and a predictor told the true expert 0.00932; in the long run 0.0217 and 0.0100.

    Source: `three_regressions.json` beside it: the truth, the sampling procedure and these figures in full.
    """
    truth = json.loads(data_path("three_regressions.json").read_text(encoding="utf-8"))
    table = read_csv(data_path("three_regressions.csv"), "y")
    # Nine digits name one float32 each, which lies a little off the float64 of the same digits.
    x, y = (a.astype(np.float32).astype(np.float64) for a in (table.x[:, :-1], table.y))
    means, weights = np.array(truth["means"]), np.array(truth["weights"])
    expert = table.x[:, -1].astype(np.int64)
    problem = Problem(x, y, expert, means, weights, np.eye(x.shape[1]), truth["noise_sd"])
    return problem, Split(*(np.arange(*truth["split"][part]) for part in Split._fields))


def split(n: int, seed: Seed, fractions: Sequence[float] = (0.6, 0.2, 0.2)) -> Split:
    """Divide rows 0 to n - 1 at random into training, validation and test rows; each row is in exactly one part.

    Args:
        n: rows.
        seed: where all randomness comes from.
        fractions: of the rows in each of the three parts, summing to 1; each part's size is n times its fraction to
            within one row. The first must be above 0; a part of fraction 0 is empty.

    Raises:
        ValueError: an argument is out of range, or a part with a fraction above 0 would have no row.
    """
    _check.count("n", n)
    _check.shape("fractions", fractions, (3,), "of training, validation and test rows")
    _check.not_negative("fractions", fractions)
    shares = np.asarray(fractions, dtype=np.float64)
    if abs(shares.sum() - 1) > 1e-9:
        raise ValueError(f"fractions: {tuple(fractions)} was given, which sums to {shares.sum():.12g}; want a sum of 1")
    if shares[0] == 0:
        raise ValueError(f"fractions: {tuple(fractions)} was given; want a training fraction above 0")
    # Rounding the running sums, rather than each size, makes the sizes add up to n.
    ends = np.rint(np.cumsum(shares) * n).astype(int)
    parts = Split(*np.split(_generator(seed, "split").permutation(n), ends[:2]))
    for name, share, part in zip(Split._fields, shares, parts, strict=True):
        if share > 0 and not part.size:
            raise ValueError(f"n: {n} rows leave none for {name} at a fraction of {share:g}; want more rows")
    return parts


@dataclass(frozen=True, eq=False)
class Table:
    """A table of numbers with one column to predict.

    Attributes:
        x: features (n, d).
        y: target (n,), not constant.
        feature_names: the names of the columns of x, d of them, all different.
        target_name: the name of y.
    """

    x: np.ndarray
    y: np.ndarray
    feature_names: tuple[str, ...]
    target_name: str


def read_csv(path: str | os.PathLike[str], target: str, *, indicators: bool = False) -> Table:
    """Read a table from a file of comma-separated values, whose first line names the columns.

    The file is UTF-8, with or without a byte-order mark; cells may be quoted, lines end in LF or CRLF, and blank lines
    at the end are passed over. A column is numeric if at least one of its cells is a finite number; then all of them
    must be. Names and levels are kept exactly as they stand, spaces and all.

    Args:
        path: the file.
        target: the name of the column that becomes y; it must be numeric.
        indicators: whether a column of text becomes columns of 0 and 1, named `column=level`, one for each of its
            levels but the first in sorted order; otherwise a column of text is an error.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such table. The message says where, what stands there and what is wanted.
    """
    names, rows, lines = _read(Path(path))
    _check_names(path, names, target)
    _check_rows(path, names, rows, lines)
    columns = [_Column(name, cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)]
    _check_text(path, columns, target, indicators)
    _check_cells(path, columns, lines)
    y = columns.pop(names.index(target)).values
    if y.min() == y.max():
        raise ValueError(
            f"{path}: target column {target!r} holds the same number, {y[0]:g}, in each of {y.size} rows; "
            "want at least two different numbers"
        )
    features = [feature for column in columns for feature in column.features()]
    feature_names = tuple(name for name, _ in features)
    if not features:
        raise ValueError(f"{path}: no feature is left beside target {target!r}; want at least one feature column")
    _check_unique(path, [*feature_names, target], "after text columns were turned into indicators")
    return Table(np.stack([values for _, values in features], axis=1), y, feature_names, target)


def diabetes() -> Table:
    """Return the diabetes data, x (442, 10): disease progression a year after ten measurements of each patient.

    They are age, sex (1 or 2), body mass index, mean blood pressure and six blood sera (`s1` to `s6`), all in the units
    of measurement, none of them standardised.

    Source: Efron, Hastie, Johnstone and Tibshirani, "Least Angle Regression", Annals of Statistics 32 (2004) 407-499.
    """
    return read_csv(data_path("diabetes.csv"), "progression")


def data_path(name: str) -> Path:
    """Return the path of a file that comes with the package, such as "diabetes.csv".

    Raises:
        FileNotFoundError: the package has no such file; the message lists those that it has.
    """
    folder = Path(__file__).parent / "data"
    there = sorted(path.name for path in folder.iterdir())
    if name not in there:
        raise FileNotFoundError(f"name: {name!r} was given; want one of {_listed(there)}")
    return folder / name


def _generator(seed: Seed, purpose: str) -> np.random.Generator:
    """Return the stream of random numbers that belongs to a seed and a purpose.

    Each purpose has its own, so that fresh rows drawn with the seed of a problem do not repeat that problem's noise.
    """
    if not isinstance(seed, np.random.SeedSequence):
        _check.count("seed", seed, least=0)
        seed = np.random.SeedSequence(int(seed))
    key = (*seed.spawn_key, *purpose.encode())
    return np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=key, pool_size=seed.pool_size))


def _rows(
    rng: np.random.Generator, n: int, means: np.ndarray, covariance: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw inputs (n, d), the experts (n,) they belong to, and standard normal noise (n,) for the targets."""
    expert = rng.integers(len(means), size=n)
    x = means[expert] + rng.standard_normal((n, means.shape[1])) @ np.linalg.cholesky(covariance).T
    return x, expert, rng.standard_normal(n)


def _own_mean(x: np.ndarray, weights: np.ndarray, expert: np.ndarray) -> np.ndarray:
    """Return x . weights[expert] (n,), the mean of y given x (n, d) and each row's expert (n,)."""
    return np.sum(x * weights[expert], axis=1)


def _covariance(covariance: Any, d: int) -> np.ndarray:
    _check.shape("covariance", covariance, (d, d), "features by features")
    _check.finite("covariance", covariance)
    matrix = np.asarray(covariance, dtype=np.float64)
    apart = np.abs(matrix - matrix.T).max()
    if apart > 1e-6 * np.abs(matrix).max():  # A matrix computed in float32 passes.
        raise ValueError(f"covariance: a matrix up to {apart:g} off its transpose was given; want a symmetric one")
    matrix = (matrix + matrix.T) / 2
    eigenvalues = np.linalg.eigvalsh(matrix)
    if eigenvalues[0] <= d * np.finfo(np.float64).eps * eigenvalues[-1]:
        raise ValueError(
            f"covariance: a matrix with an eigenvalue of {eigenvalues[0]:g} was given, the largest being "
            f"{eigenvalues[-1]:g}; want a positive definite matrix"
        )
    return matrix


def _listed(names: Iterable[str], most: int = 20) -> str:
    """Return names, quoted and separated by commas; a long list ends with how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def _number(text: str) -> float | None:
    """Return the number that a cell holds, NaN and infinities included, or None for text and for an empty cell."""
    if "_" in text:  # Python reads 1_000 as a number; in a table it is more likely to be a code.
        return None
    try:
        return float(text)
    except ValueError:
        return None


class _Column:
    """A column's name and cells as they stand in the file, its numbers if it is numeric, and its unusable rows."""

    def __init__(self, name: str, cells: Sequence[str]) -> None:
        self.name, self.cells = name, cells
        numbers = [_number(cell) for cell in cells]
        numeric = any(value is not None and math.isfinite(value) for value in numbers)
        texts = any(value is None and cell.strip() for value, cell in zip(numbers, cells, strict=True))
        # A column of nothing but gaps is not text: it has no levels, and its gaps are what to report.
        self.is_text = texts and not numeric
        self.bad = [row for row, value in enumerate(numbers) if self._is_bad(value, cells[row])]
        self.values = np.array([] if self.is_text or self.bad else numbers, dtype=np.float64)

    def _is_bad(self, value: float | None, cell: str) -> bool:
        if value is None:
            return not (self.is_text and cell.strip())
        # In text, cells such as 5 cannot be (the column would be numeric), and nan stands for a gap.
        return not math.isfinite(value)

    def features(self) -> list[tuple[str, np.ndarray]]:
        """Return the names and values (n,) of the features that this column gives."""
        if not self.is_text:
            return [(self.name, self.values)]
        cells = np.array(self.cells, dtype=object)
        levels = sorted(set(self.cells))[1:]
        return [(f"{self.name}={level}", (cells == level).astype(np.float64)) for level in levels]


def _read(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Return a file's header, its rows and the line that each row starts on (the header's is 1)."""
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "there is no such file"
        raise FileNotFoundError(f"path: {str(path)!r} was given, but {what}; want a file of comma-separated values")
    records: list[list[str]] = []
    lines: list[int] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        start = 1
        try:
            for record in reader:
                records.append(record)
                lines.append(start)
                start = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(f"{path}: line {start}: {error}; want comma-separated cells, quotes closed") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: {error}; want a text file in UTF-8") from error
    while records and not any(cell.strip() for cell in records[-1]) and len(records[-1]) < 2:
        records.pop()
    if not records:
        raise ValueError(f"{path}: the file is empty; want a line of column names and rows of numbers")
    return records[0], records[1:], lines[1 : len(records)]


def _check_names(path: Any, names: list[str], target: str) -> None:
    if not any(name.strip() for name in names):
        raise ValueError(f"{path}: the first line is blank; want a header of column names")
    if all(_number(name) is not None for name in names):
        raise ValueError(f"{path}: the first line holds only numbers ({_listed(names)}); want a header of column names")
    for number, name in enumerate(names, 1):
        if not name.strip():
            raise ValueError(
                f"{path}: column {number} of {len(names)} has an empty name; want a name for every column "
                "(a table written with its row numbers has such a column)"
            )
    _check_unique(path, names, "in the first line")
    if target not in names:
        raise ValueError(f"target: {target!r} was given; want a column of {path}, which has {_listed(names)}")
    if len(names) < 2:
        raise ValueError(f"{path}: target {target!r} is the only column; want at least one feature column beside it")


def _check_unique(path: Any, names: list[str], where: str) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ValueError(f"{path}: more than one column is named {_listed(twice)} {where}; want names that differ")


def _check_rows(path: Any, names: list[str], rows: list[list[str]], lines: list[int]) -> None:
    if not rows:
        raise ValueError(f"{path}: there are column names but no rows; want at least two rows of numbers")
    wrong = [row for row, cells in enumerate(rows) if len(cells) != len(names)]
    if wrong:
        first, more = wrong[0], _more(len(wrong) - 1, "line")
        raise ValueError(
            f"{path}: line {lines[first]} has {len(rows[first])} cells{more}; want {len(names)}, one for each column"
        )


def _check_text(path: Any, columns: list[_Column], target: str, indicators: bool) -> None:
    names = [column.name for column in columns]
    texts = [column.name for column in columns if column.is_text]
    if target in texts:
        example = next(cell for cell in columns[names.index(target)].cells if cell.strip())
        raise ValueError(f"{path}: target column {target!r} holds text, such as {example!r}; want a column of numbers")
    if texts and not indicators:
        raise ValueError(
            f"{path}: text, without a single number, in column {_listed(texts)}; want columns of numbers, or "
            "indicators=True to turn text into columns of 0 and 1"
        )


def _check_cells(path: Any, columns: list[_Column], lines: list[int]) -> None:
    bad = [(row, number) for number, column in enumerate(columns) for row in column.bad]
    if not bad:
        return
    row, number = min(bad)
    column = columns[number]
    cell = column.cells[row]
    what = repr(cell) if cell.strip() else "an empty cell"
    raise ValueError(
        f"{path}: line {lines[row]}, column {column.name!r}: {what} was given{_more(len(bad) - 1, 'cell')}; "
        f"want {'the name of a level' if column.is_text else 'a finite number'}"
    )


def _more(others: int, what: str) -> str:
    """Return how many others are wrong in the same way, or nothing if none are."""
    return f" (and {others} more such {what}{'s' if others > 1 else ''} in the file)" if others else ""
