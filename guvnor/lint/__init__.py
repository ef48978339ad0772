"""Lint: rules for new revision files, which find what a reviewer would object to."""

from guvnor.lint.engine import lint_revisions
from guvnor.lint.problem import LintProblem, LintReport

__all__ = ["LintProblem", "LintReport", "lint_revisions"]
