"""Tables from CSV files, and the tables in this package."""

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

from moejax import _checks


@dataclass(frozen=True, eq=False)
class Table:
    """A table of numbers with one target column.

    Attributes
    ----------
    x : numpy.ndarray, shape (n, d)
        Features.
    y : numpy.ndarray, shape (n,)
        Target. It is not constant.
    feature_names : tuple of str
        Names of the d columns of x. They are all different.
    target_name : str
        Name of y.
    """

    x: np.ndarray
    y: np.ndarray
    feature_names: tuple[str, ...]
    target_name: str


def read_csv(path: str | os.PathLike[str], target: str, *, indicators: bool = False) -> Table:
    """Read a table from a CSV file (comma-separated values) whose first line names the columns.

    Parameters
    ----------
    path : str or os.PathLike
        File to read.
    target : str
        Name of the column that becomes y. The column must be numeric.
    indicators : bool, default False
        If True, a column of text becomes columns of 0 and 1, named `column=level`. There is one such column for each level
        except the first level in sorted order. If False, a column of text is an error.

    Returns
    -------
    Table
        The table, with rows and columns in the order of the file.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file does not hold such a table. The message names the place, what is found and what is wanted.

    Notes
    -----
    The file is UTF-8, with or without a byte-order mark. Cells may be quoted. Lines end in LF or CRLF. Blank lines at the
    end of the file are ignored. A column is numeric if at least one of its cells is a finite number. Then all its cells must
    be finite numbers. Names and levels are kept unchanged, including spaces.

    Examples
    --------
    >>> from moejax import datasets
    >>> table = datasets.read_csv(datasets.data_path("diabetes.csv"), target="progression")
    >>> table.x.shape
    (442, 10)
    """
    _checks.flag("indicators", indicators)
    path = _checks.path("path", path)
    _checks.text("target", target)
    names, rows, lines = _read(path)
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
    """Return the diabetes data: disease progression of 442 patients and ten measurements of each patient.

    Returns
    -------
    Table
        x has shape (442, 10): age, sex (1 or 2), body mass index, mean blood pressure and six blood serum measurements (`s1`
        to `s6`). The target is the disease progression one year later. No column is standardised.

    References
    ----------
    B. Efron, T. Hastie, I. Johnstone and R. Tibshirani, "Least Angle Regression", Annals of Statistics 32 (2004) 407-499.

    Examples
    --------
    >>> from moejax import datasets
    >>> table = datasets.diabetes()
    >>> table.x.shape, table.target_name
    ((442, 10), 'progression')
    """
    return read_csv(data_path("diabetes.csv"), "progression")


def data_path(name: str) -> Path:
    """Return the path of a data file in this package.

    Parameters
    ----------
    name : str
        File name, such as "diabetes.csv".

    Returns
    -------
    pathlib.Path
        Path of the file.

    Raises
    ------
    FileNotFoundError
        If the package has no such file. The message lists the files of the package.

    Examples
    --------
    >>> from moejax import datasets
    >>> datasets.data_path("diabetes.csv").name
    'diabetes.csv'
    """
    _checks.text("name", name)
    folder = Path(__file__).parent
    file_names = sorted(path.name for path in folder.iterdir() if path.suffix in (".csv", ".json"))
    if name not in file_names:
        raise FileNotFoundError(f"name: {name!r} was given; want one of {_listed(file_names)}")
    return folder / name


def _listed(names: Iterable[str], most: int = 20) -> str:
    """Return quoted names, separated by commas; after `most` names, only the number of further names is given."""
    names = list(names)
    suffix = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + suffix


def _number(text: str) -> float | None:
    """Return the number in a cell, which may be NaN or infinite; None for text and for an empty cell."""
    if "_" in text:  # Python reads 1_000 as a number. In a table it is more likely a code.
        return None
    try:
        return float(text)
    except ValueError:
        return None


class _Column:
    """One column of a file: its name, its cells as text, its values if all are numbers, and its unusable rows."""

    def __init__(self, name: str, cells: Sequence[str]) -> None:
        self.name, self.cells = name, cells
        numbers = [_number(cell) for cell in cells]
        is_numeric = any(value is not None and math.isfinite(value) for value in numbers)
        has_text = any(value is None and cell.strip() for value, cell in zip(numbers, cells, strict=True))
        # A column with only empty cells is not text: it has no levels. Its empty cells are reported as unusable.
        self.is_text = has_text and not is_numeric
        self.bad_rows = [row for row, value in enumerate(numbers) if self._is_bad(value, cells[row])]
        self.values = np.array([] if self.is_text or self.bad_rows else numbers, dtype=np.float64)

    def _is_bad(self, value: float | None, cell: str) -> bool:
        """Return whether a cell is empty, NaN, infinite, or text in a numeric column."""
        if value is None:
            return not (self.is_text and cell.strip())
        # A column of text has no finite number, or it would be numeric. A NaN in it is a missing value.
        return not math.isfinite(value)

    def features(self) -> list[tuple[str, np.ndarray]]:
        """Return the names and values (n,) of the features of this column."""
        if not self.is_text:
            return [(self.name, self.values)]
        cells = np.array(self.cells, dtype=object)
        levels = sorted(set(self.cells))[1:]
        return [(f"{self.name}={level}", (cells == level).astype(np.float64)) for level in levels]


def _read(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Return the header of a file, its rows, and the line number on which each row starts (the header is on line 1)."""
    if not path.is_file():
        reason = "it is a folder" if path.is_dir() else "there is no such file"
        raise FileNotFoundError(f"path: {str(path)!r} was given, but {reason}; want a file of comma-separated values")
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
    """Raise a ValueError unless the header names every column once and contains the target and a feature."""
    if not any(name.strip() for name in names):
        raise ValueError(f"{path}: the first line is blank; want a header of column names")
    if all(_number(name) is not None for name in names):
        raise ValueError(f"{path}: the first line holds only numbers ({_listed(names)}); want a header of column names")
    for number, name in enumerate(names, 1):
        if not name.strip():
            raise ValueError(
                f"{path}: column {number} of {len(names)} has an empty name; want a name for every column "
                "(a table that was written with row numbers has such a column)"
            )
    _check_unique(path, names, "in the first line")
    if target not in names:
        raise ValueError(f"target: {target!r} was given; want a column of {path}, which has {_listed(names)}")
    if len(names) < 2:
        raise ValueError(f"{path}: target {target!r} is the only column; want at least one feature column beside it")


def _check_unique(path: Any, names: list[str], where: str) -> None:
    """Raise a ValueError if two columns have the same name."""
    duplicates = [name for name, count in Counter(names).items() if count > 1]
    if duplicates:
        raise ValueError(f"{path}: more than one column is named {_listed(duplicates)} {where}; want names that differ")


def _check_rows(path: Any, names: list[str], rows: list[list[str]], lines: list[int]) -> None:
    """Raise a ValueError unless there are rows and every row has one cell per column."""
    if not rows:
        raise ValueError(f"{path}: there are column names but no rows; want at least two rows of numbers")
    bad_rows = [row for row, cells in enumerate(rows) if len(cells) != len(names)]
    if bad_rows:
        first, suffix = bad_rows[0], _more(len(bad_rows) - 1, "line")
        raise ValueError(
            f"{path}: line {lines[first]} has {len(rows[first])} cells{suffix}; want {len(names)}, one for each column"
        )


def _check_text(path: Any, columns: list[_Column], target: str, indicators: bool) -> None:
    """Raise a ValueError if the target is text, or if a feature is text and `indicators` is False."""
    names = [column.name for column in columns]
    texts = [column.name for column in columns if column.is_text]
    if target in texts:
        example = next(cell for cell in columns[names.index(target)].cells if cell.strip())
        raise ValueError(f"{path}: target column {target!r} holds text, such as {example!r}; want a column of numbers")
    if texts and not indicators:
        raise ValueError(
            f"{path}: there is text, and no number, in column {_listed(texts)}; want columns of numbers, or "
            "indicators=True to turn text into columns of 0 and 1"
        )


def _check_cells(path: Any, columns: list[_Column], lines: list[int]) -> None:
    """Raise a ValueError that names the first unusable cell, if there is one."""
    bad_cells = [(row, number) for number, column in enumerate(columns) for row in column.bad_rows]
    if not bad_cells:
        return
    row, number = min(bad_cells)
    column = columns[number]
    cell = column.cells[row]
    content = repr(cell) if cell.strip() else "an empty cell"
    raise ValueError(
        f"{path}: line {lines[row]}, column {column.name!r}: {content} was given{_more(len(bad_cells) - 1, 'cell')}; "
        f"want {'the name of a level' if column.is_text else 'a finite number'}"
    )


def _more(n_others: int, noun: str) -> str:
    """Return how many other lines or cells have the same fault; an empty string if none has."""
    return f" (and {n_others} more such {noun}{'s' if n_others > 1 else ''} in the file)" if n_others else ""
