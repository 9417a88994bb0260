"""Divisions of the rows among experts, made before any model is fitted; see `moejax.solvers`."""

from moejax.solvers._division import by_distance as by_distance
from moejax.solvers._division import by_rule as by_rule
from moejax.solvers._division import inliers as inliers
from moejax.solvers._division import resolved as resolved

__all__ = ["by_distance", "by_rule", "inliers", "resolved"]
