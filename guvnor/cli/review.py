"""``guvnor schema review``: the report of a pull request."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from guvnor.cli.base import Command, resolve_settings, shadow_dsn_option
from guvnor.cli.streams import result_kept_clean, say
from guvnor.errors import UsageError


@click.command(cls=Command)
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Also write the report to a file, cut to the length of a GitHub comment.",
)
@shadow_dsn_option
def review(output: Path | None) -> None:
    """Report in Markdown what this branch's revisions do.

    Exits with the code of the first check that fails: one line of revisions after the merge with the main
    branch, revisions against models, up, down and up again on a real server with data, lint, lost data, and
    locks. That server is the one of --shadow-dsn, whose role must be allowed to create databases, or else the
    local one. See docs/review.md.
    """
    from guvnor.migrate import signals
    from guvnor.reports import review as review_report
    from guvnor.review.review import review_branch

    settings = resolve_settings()
    with signals.explained("Nothing was changed."), result_kept_clean():
        found = review_branch(settings)
    if output is not None:
        try:
            output.write_text(
                review_report.as_markdown(found, review_report.COMMENT_LIMIT), "utf-8", "replace"
            )
        except OSError as error:
            raise UsageError(
                f"The report cannot be written to {output}: {error.strerror}.",
                next_step="guvnor schema review",
            ) from None
    say(review_report.as_markdown(found).rstrip("\n"))
    sys.exit(found.exit_code)
