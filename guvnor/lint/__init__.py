"""Lint: rules that find what a reviewer would object to in new revision files."""

from guvnor.lint.engine import lint_revisions
from guvnor.lint.problem import LintProblem, LintReport

__all__ = ["LintProblem", "LintReport", "lint_revisions"]
