"""What a shell offers for a value: revisions, levels, directories, files."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from guvnor.errors import GuvnorError
from guvnor.revisions.files import configuration_file, directory
from guvnor.revisions.script import read_revisions


def revisions(_context: click.Context, _option: click.Parameter, typed: str) -> list[CompletionItem]:
    """Offer the revisions of the project with their names, the newest first, then head and base."""
    try:
        found = [(revision.identifier, revision.name) for revision in reversed(read_revisions())]
    except (GuvnorError, OSError):
        return []
    found += [("head", "the newest revision"), ("base", "before the first one")]
    return [CompletionItem(name, help=text) for name, text in found if name.startswith(typed)]


def revision_files(_context: click.Context, _option: click.Parameter, typed: str) -> list[CompletionItem]:
    """Offer the names of the revision files, the newest first; the shell offers paths."""
    if "/" in typed:
        return [CompletionItem(typed, type="file")]
    try:
        found = sorted((path.name for path in directory(configuration_file()).glob("*.py")), reverse=True)
    except (GuvnorError, OSError):
        return []
    return [CompletionItem(name) for name in found if name.startswith(typed)]


def levels(_context: click.Context, _option: click.Parameter, typed: str) -> list[str]:
    """Offer the levels of the log."""
    return [level for level in ("debug", "info", "warning", "error") if level.startswith(typed)]


def directories(_context: click.Context, _option: click.Parameter, typed: str) -> list[CompletionItem]:
    """Let the shell offer directories."""
    return [CompletionItem(typed, type="dir")]


def files(_context: click.Context, _option: click.Parameter, typed: str) -> list[CompletionItem]:
    """Let the shell offer files."""
    return [CompletionItem(typed, type="file")]
