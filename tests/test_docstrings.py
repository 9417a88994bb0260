"""Public docstrings follow numpydoc and match the signatures, and their examples run."""

import dataclasses
import doctest
import enum
import importlib
import inspect
import re

import pytest

PACKAGES = [
    "moejax.data",
    "moejax.datasets",
    "moejax.experts",
    "moejax.families",
    "moejax.gates",
    "moejax.handwritten",
    "moejax.losses",
    "moejax.model",
    "moejax.penalties",
    "moejax.plots",
    "moejax.predict",
    "moejax.sklearn",
    "moejax.solvers",
    "moejax.sweeps",
]
WITHOUT_EXAMPLES = ("moejax.sklearn",)  # each example fits an estimator, and compiles a program for it

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
WITHOUT_RESULT = ("None", None, type(None), "NoReturn", "Never")


def sections(text):
    """Return the lines of each section of a docstring by its title; "" is the part before the first section."""
    lines = inspect.cleandoc(text).split("\n")
    parts, title = {"": []}, ""
    for i, line in enumerate(lines):
        if re.fullmatch("-{3,}", line) and title:
            continue
        if re.fullmatch("[A-Z][A-Za-z ]*", line) and i + 1 < len(lines) and re.fullmatch("-{3,}", lines[i + 1]):
            assert line not in parts, f"section {line} occurs twice"
            title = line
            parts[title] = []
        else:
            parts[title].append(line)
    return parts


def entries(lines):
    """Return the names that a section such as Parameters documents, in order; `x, y : float` documents two."""
    heads = [line.split(" : ")[0] for line in lines if line and not line.startswith(" ")]
    return [name.strip() for head in heads for name in head.split(",")]


def parameters(function, *, bound):
    """Return the names in a signature, without `self` or `cls` if `bound`, with the stars of *args and **kwargs."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    signature = inspect.signature(function)
    return [stars.get(each.kind, "") + name for name, each in signature.parameters.items()][1 if bound else 0 :]


def fields(kind):
    """Return the names of the fields of a dataclass or a NamedTuple, None for other classes."""
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind) if not field.name.startswith("_")]
    return list(kind._fields) if issubclass(kind, tuple) and hasattr(kind, "_fields") else None


def constructor_parameters(kind):
    """Return the parameters of the constructor of a class; none for enumerations and protocols."""
    if issubclass(kind, enum.Enum) or getattr(kind, "_is_protocol", False):
        return []
    has_constructor = kind.__init__ is not object.__init__ or kind.__new__ is not object.__new__
    return parameters(kind, bound=False) if has_constructor else []


def summary_faults(text):
    """Return the faults of the first line of a docstring."""
    lines = inspect.cleandoc(text or "").split("\n")
    if not lines[0]:
        return ["has no docstring"]
    faults = [] if lines[0].endswith(".") else ["the summary does not end with a full stop on the first line"]
    return faults if len(lines) == 1 or not lines[1] else [*faults, "the summary is longer than one line"]


def mismatch(title, documented, expected):
    """Return the fault of a section whose names differ from the expected names."""
    return [] if documented == expected else [f"{title} documents {documented}; the code has {expected}"]


def function_faults(function, *, bound=False):
    """Return the faults of the docstring of a function or a method."""
    faults = summary_faults(function.__doc__)
    parts = sections(function.__doc__ or "")
    documented = entries(parts.get("Parameters", [])) + entries(parts.get("Other Parameters", []))
    faults += mismatch("Parameters", documented, parameters(function, bound=bound))
    result = inspect.signature(function).return_annotation
    if result not in WITHOUT_RESULT and not {"Returns", "Yields"} & parts.keys():
        faults.append("has no section Returns or Yields")
    return faults


def class_faults(kind):
    """Return the faults of the docstring of a class.

    A class documents the arguments of its constructor as Parameters. A dataclass or a NamedTuple may instead document its
    fields as Attributes.
    """
    faults = summary_faults(kind.__doc__)
    parts = sections(kind.__doc__ or "")
    if "Parameters" not in parts and fields(kind) is not None:
        return faults + mismatch("Attributes", entries(parts.get("Attributes", [])), fields(kind))
    return faults + mismatch("Parameters", entries(parts.get("Parameters", [])), constructor_parameters(kind))


def has_contract(kind, bases, name):
    """Return whether a base class documents a method that the class overrides; the methods of a protocol count as well.

    Arguments and results are then documented once, by the base class. A protocol names the functions of a user's own record,
    which the base class of the same contract documents.
    """
    own = next(base for base in bases if name in vars(base))
    others = bases[bases.index(own) + 1 :]
    return getattr(kind, "_is_protocol", False) or any(getattr(vars(base).get(name), "__doc__", None) for base in others)


def members(kind):
    """Yield the name and the faults of each public method and property of a class, inherited ones of moejax included."""
    names = {}
    bases = [base for base in kind.__mro__ if base.__module__.startswith(("moejax", __name__))]
    for base in bases:
        names = {**vars(base), **names}
    for name, value in names.items():
        if name.startswith("_"):
            continue
        is_method = isinstance(value, staticmethod | classmethod) or inspect.isfunction(value)
        if isinstance(value, property) or (is_method and has_contract(kind, bases, name)):
            yield name, summary_faults(value.__doc__)
        elif isinstance(value, staticmethod):
            yield name, function_faults(inspect.unwrap(value.__func__))
        elif isinstance(value, classmethod):
            yield name, function_faults(inspect.unwrap(value.__func__), bound=True)
        elif inspect.isfunction(inspect.unwrap(value) if callable(value) else value):
            yield name, function_faults(inspect.unwrap(value), bound=True)


def public(package):
    """Yield the name and the value of each public function and class of a package."""
    module = importlib.import_module(package)
    for name in getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")]):
        value = getattr(module, name)
        target = inspect.unwrap(value) if callable(value) else value
        if (inspect.isfunction(target) or inspect.isclass(target)) and target.__module__.startswith("moejax"):
            yield name, target


def faults_of(value):
    """Return all faults of a function, or of a class and its members."""
    if inspect.isfunction(value):
        return function_faults(value)
    return class_faults(value) + [f"{name}: {fault}" for name, faults in members(value) for fault in faults]


OBJECTS = [pytest.param(value, id=f"{package}.{name}") for package in PACKAGES for name, value in public(package)]


@pytest.mark.parametrize("value", OBJECTS)
def test_docstring_matches_the_signature(value):
    assert faults_of(value) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_module_has_a_summary(package):
    assert summary_faults(importlib.import_module(package).__doc__) == []


RUN = [package for package in PACKAGES if package not in WITHOUT_EXAMPLES]
EXAMPLES = [pytest.param(importlib.import_module(package), id=package) for package in RUN]
EXAMPLES += [pytest.param(value, id=f"{package}.{name}") for package in RUN for name, value in public(package)]


@pytest.mark.parametrize("value", EXAMPLES)
def test_examples_run(value):
    finder, report = doctest.DocTestFinder(recurse=not inspect.ismodule(value)), []
    for test in finder.find(value, value.__name__, globs={}):
        doctest.DocTestRunner(verbose=False, optionflags=OPTIONS).run(test, out=report.append)
    assert not report, "".join(report)


# The checks themselves: each faulty docstring is found.


def right(x, *rows, **options) -> int:
    """Add.

    Parameters
    ----------
    x : int
        A number. Note : a colon in the description is no entry.
    *rows : int
        More numbers.
    **options : int
        Options.

    Returns
    -------
    int
        The sum.
    """


def two_names(x, y) -> None:
    """Do nothing.

    Parameters
    ----------
    x, y : int
        Numbers.
    """


def missing(x, y) -> None:
    """Do nothing.

    Parameters
    ----------
    x : int
        A number.
    """


def swapped(x, y) -> None:
    """Do nothing.

    Parameters
    ----------
    y : int
        A number.
    x : int
        A number.
    """


def without_stars(*rows) -> None:
    """Do nothing.

    Parameters
    ----------
    rows : int
        Numbers.
    """


def without_returns() -> int:
    """Return 1."""


def long_summary() -> None:
    """Do nothing, and say so
    in two lines.
    """


def undocumented() -> None: ...


@dataclasses.dataclass
class Pair:
    """Two numbers.

    Attributes
    ----------
    x : int
        The first number.
    """

    x: int
    y: int

    def scaled(self, factor) -> int:
        """Return a multiple."""

    @property
    def size(self) -> int:
        """The number of numbers"""


class Base:
    """Documents the arguments."""

    def scaled(self, factor) -> int:
        """Return a multiple.

        Parameters
        ----------
        factor : int
            A number.

        Returns
        -------
        int
            The multiple.
        """

    def shifted(self, by) -> int:
        """Return a sum."""


class Derived(Base):
    """Overrides a method that is documented."""

    def scaled(self, factor) -> int:
        """Return twice the multiple."""


class Undocumented(Base):
    """Overrides a method without saying what it does."""

    def scaled(self, factor) -> int: ...


@pytest.mark.parametrize("function", [right, two_names])
def test_a_right_docstring_passes(function):
    assert faults_of(function) == []


def test_a_method_that_overrides_a_documented_one_needs_a_summary_alone():
    inherited = ["shifted: Parameters documents []; the code has ['by']", "shifted: has no section Returns or Yields"]
    assert faults_of(Derived) == inherited
    assert sorted(faults_of(Undocumented)) == sorted(["scaled: has no docstring", *inherited])


@pytest.mark.parametrize(
    ("value", "faults"),
    [
        (missing, ["Parameters documents ['x']; the code has ['x', 'y']"]),
        (swapped, ["Parameters documents ['y', 'x']; the code has ['x', 'y']"]),
        (without_stars, ["Parameters documents ['rows']; the code has ['*rows']"]),
        (without_returns, ["has no section Returns or Yields"]),
        (
            long_summary,
            ["the summary does not end with a full stop on the first line", "the summary is longer than one line"],
        ),
        (undocumented, ["has no docstring"]),
        (
            Pair,
            [
                "Attributes documents ['x']; the code has ['x', 'y']",
                "scaled: Parameters documents []; the code has ['factor']",
                "scaled: has no section Returns or Yields",
                "size: the summary does not end with a full stop on the first line",
            ],
        ),
    ],
)
def test_a_faulty_docstring_is_found(value, faults):
    assert faults_of(value) == faults
