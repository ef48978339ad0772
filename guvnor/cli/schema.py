"""``guvnor schema``: check and show the schema; lint and review new revisions."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import click

from guvnor.cli import completing
from guvnor.cli.base import (
    Group,
    json_option,
    print_json,
    print_report,
    report_form_options,
    resolve_settings,
    shadow_dsn_option,
)
from guvnor.cli.streams import at_terminal, result_kept_clean, say, tell
from guvnor.errors import ExitCode, UsageError


@click.group(cls=Group)
def schema() -> None:
    """Check and show the schema; lint and review new revisions."""


@schema.command()
@click.option(
    "--against",
    type=click.Choice(["revision", "models"]),
    help="What to compare with.  [default: revision]",
)
@shadow_dsn_option
@report_form_options
def check(against: str | None, form: str | None) -> None:
    """Compare the database with the revision that it is at.

    Exits with 6 on a difference. Without a configured database, the revisions are compared with the models on
    the local server: with --against models, or when a person types it on a terminal.
    """
    # Everything that is read stays until the process ends; at 1,000 tables, the collector took half of the
    # reading time.
    gc.disable()
    # By default, the thread that reads the live schema would block the building thread for 5 ms at a time.
    sys.setswitchinterval(0.0005)

    from guvnor.commands import schema
    from guvnor.reports import drift as drift_report

    settings = resolve_settings()
    if schema.has_no_database(settings) and against != "models":
        schema.check_person_asks(asked=against is not None, terminal=at_terminal())
        tell(f"⚠️  WARNING: {schema.NO_DATABASE}", sys.stderr, style="yellow")
    found = schema.check(settings, against_models=against == "models")
    if form is None and found.clean:
        tell(f"✅ {drift_report.summary(found)}")
        for line in drift_report.partitions(found):
            tell(f"   {line}")
    else:
        print_report(drift_report, found, form)
    sys.exit(ExitCode.DONE if found.clean else ExitCode.DRIFT)


@schema.command()
@click.option(
    "--since",
    metavar="REV",
    shell_complete=completing.revisions,
    help="The last revision that is not new; base: all are new.",
)
@shadow_dsn_option
@report_form_options
def lint(since: str | None, form: str | None) -> None:
    """Find problems in the new revisions.

    Exits with 3 when there is one. A revision is new when it is not on the main branch of the Git checkout,
    or with --since, when it comes after REV. No database is needed; SQL that is newer than lint's parser is
    read by the server of --shadow-dsn.
    """
    from guvnor.lint import lint_revisions
    from guvnor.reports import lint as lint_report
    from guvnor.revisions.files import configuration_file

    settings = resolve_settings()
    with result_kept_clean():
        found = lint_revisions(configuration_file(), since, dsn=settings.shadow_dsn)
    print_report(lint_report, found, form)
    sys.exit(ExitCode.DONE if found.clean else ExitCode.PREFLIGHT)


@schema.command()
def rules() -> None:
    """Print docs/lint.md: the rules that lint enforces."""
    from guvnor.reports.lint_rules import page

    say(page().rstrip("\n"))


@schema.command(name="show")
@json_option
def show_schema(as_json: bool) -> None:
    """Print every object of the schema, as the check sees it."""
    from guvnor.commands import schema

    objects = schema.objects(resolve_settings())
    if as_json:
        print_json([{"kind": o.kind, "object": o.identity, **o.attributes} for o in objects])
        return
    for item in objects:
        say(str(item))


@schema.command()
def diagram() -> None:
    """Print docs/schema.md, a diagram of the tables."""
    from guvnor.reports.diagram import page

    say(page().rstrip("\n"))


@schema.command()
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Also write the report to a file, cut to the length of a GitHub comment.",
)
@shadow_dsn_option
@json_option
def review(output: Path | None, as_json: bool) -> None:
    """Report in Markdown what this branch's revisions do.

    Exits with the code of the first check that fails: one line of revisions after the merge with the main
    branch; revisions against models; up, down and up again with data; lint; lost data; locks. The checks run
    on the server of --shadow-dsn, whose role must be allowed to create databases, else on the local server.
    See docs/review.md.
    """
    from guvnor.migrate import signals
    from guvnor.reports import review as review_report, review_json
    from guvnor.review.review import review_branch

    settings = resolve_settings()
    with signals.interruptible("Nothing was changed."), result_kept_clean():
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
    if as_json:
        print_json(review_json.as_json(found))
    else:
        say(review_report.as_markdown(found).rstrip("\n"))
    sys.exit(found.exit_code)
