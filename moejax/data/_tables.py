"""Tables from files of comma-separated values, and those that come with the package."""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


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
    folder = Path(__file__).parent
    there = sorted(path.name for path in folder.iterdir() if path.suffix in (".csv", ".json"))
    if name not in there:
        raise FileNotFoundError(f"name: {name!r} was given; want one of {_listed(there)}")
    return folder / name


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
