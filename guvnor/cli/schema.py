"""``guvnor schema``: the schema that the migrations make, and whether a database has it."""

from __future__ import annotations

import gc
import sys

import click

from guvnor.cli.base import Group, print_json, resolve_settings
from guvnor.cli.console import Console, result_kept_clean, say, show
from guvnor.errors import ExitCode


@click.group(cls=Group)
def schema() -> None:
    """The schema that the migrations make, and whether a database has it."""


@schema.command()
@click.option(
    "--against",
    type=click.Choice(["revision", "models"]),
    default="revision",
    show_default=True,
    help="What the database is compared with.",
)
@click.option(
    "--shadow-dsn",
    metavar="DSN",
    help="A scratch database in which the expected schema is built.  [env: GUVNOR_SHADOW_DSN]",
)
@click.option("--json", "form", flag_value="json", help="For programs.")
@click.option("--markdown", "form", flag_value="markdown", help="For a comment in a pull request.")
@click.option("--github", "form", flag_value="github", help="As annotations of GitHub Actions.")
def check(against: str, shadow_dsn: str | None, form: str | None) -> None:
    """Compare the database with the revision that it is at; exit with 6 on a difference.

    Without a configured database, the revisions are compared with the models on the local server.
    """
    gc.disable()  # all that is read stays until the process ends; at 1,000 tables it was half of the reading

    from guvnor.commands import schema
    from guvnor.reports import drift as drift_report

    with Console().explaining():
        found = schema.check(
            resolve_settings(**{"shadow.dsn": shadow_dsn}), against_models=against == "models"
        )
        if form is None and found.clean:
            say(f"✅ {drift_report.summary(found)}")  # nothing to lay out: spare the time to import rich
        elif form is None:
            show(drift_report.as_terminal(found))
        else:
            forms = {
                "json": drift_report.as_json,
                "markdown": drift_report.as_markdown,
                "github": drift_report.as_github,
            }
            written = forms[form](found)
            say(written.rstrip("\n"))
    sys.exit(ExitCode.DONE if found.clean else ExitCode.DRIFT)


@schema.command()
@click.option("--since", metavar="REV", help="The last revision that is not new; base: all are new.")
@click.option("--json", "form", flag_value="json", help="For programs.")
@click.option("--markdown", "form", flag_value="markdown", help="For a comment in a pull request.")
@click.option("--github", "form", flag_value="github", help="As annotations of GitHub Actions.")
def lint(since: str | None, form: str | None) -> None:
    """Look for what is wrong with the new revisions; exit with 3 when something is.

    New is what is not on the main branch of the Git checkout, or with --since what comes after REV.
    """
    from guvnor import lint as engine
    from guvnor.lint import report as lint_report
    from guvnor.revisions.files import configuration_file

    with Console().explaining():
        resolve_settings()
        with result_kept_clean():
            found = engine.lint(configuration_file(), since)
        if form is None:
            show(lint_report.as_terminal(found))
        else:
            forms = {
                "json": lint_report.as_json,
                "markdown": lint_report.as_markdown,
                "github": lint_report.as_github,
            }
            written = forms[form](found)
            say(written.rstrip("\n"))
    sys.exit(ExitCode.DONE if found.clean else ExitCode.PREFLIGHT)


@schema.command()
def rules() -> None:
    """Print docs/lint.md: the rules of lint with their examples."""
    from guvnor.lint.document import document

    say(document().rstrip("\n"))


@schema.command(name="show")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show_schema(as_json: bool) -> None:
    """Print every object of the database's schema, as the check sees it."""
    from guvnor.commands import schema

    with Console().explaining():
        objects = schema.objects(resolve_settings())
        if as_json:
            print_json([{"kind": o.kind, "object": o.identity, **o.attributes} for o in objects])
        else:
            for item in objects:
                say(str(item))


@schema.command()
def diagram() -> None:
    """Print docs/schema.md: the schema as an entity-relationship diagram."""
    from guvnor.reports.diagram import document

    say(document().rstrip("\n"))
