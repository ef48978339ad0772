"""Rules for revision files: what a reviewer would find, found before the review."""

from guvnor.lint.engine import lint
from guvnor.lint.problem import Problem, Report

__all__ = ["Problem", "Report", "lint"]
