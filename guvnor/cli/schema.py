"""``guvnor schema``: the schema that the migrations make, and whether a database has it."""

from __future__ import annotations

import gc
import sys

import click

from guvnor.cli.base import Group, print_json, resolve_settings
from guvnor.console import Console, result_kept_clean, say, show

DRIFT = 6  # the exit code for a difference
UNFIT = 3  # the exit code for revision files that lint finds fault with


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
    # By default, the thread that reads the live schema would stop the one that builds for 5 ms at a time.
    sys.setswitchinterval(0.0005)

    from guvnor.schema import commands, report

    with Console().explaining():
        found = commands.check(
            resolve_settings(**{"shadow.dsn": shadow_dsn}), against_models=against == "models"
        )
        if form is None and found.clean:
            say(f"✅ {report.summary(found)}")  # nothing to lay out: spare the time to import rich
        elif form is None:
            show(report.as_terminal(found))
        else:
            written = {"json": report.as_json, "markdown": report.as_markdown, "github": report.as_github}[
                form
            ](found)
            say(written.rstrip("\n"))
    sys.exit(0 if found.clean else DRIFT)


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
    from guvnor.lint import report
    from guvnor.migrate.revisions import configuration_file

    with Console().explaining():
        resolve_settings()
        with result_kept_clean():
            found = engine.lint(configuration_file(), since)
        if form is None:
            show(report.as_terminal(found))
        else:
            written = {"json": report.as_json, "markdown": report.as_markdown, "github": report.as_github}[
                form
            ](found)
            say(written.rstrip("\n"))
    sys.exit(0 if found.clean else UNFIT)


@schema.command()
def rules() -> None:
    """Print docs/lint.md: the rules of lint with their examples."""
    from guvnor.lint.document import document

    say(document().rstrip("\n"))


@schema.command(name="show")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show_schema(as_json: bool) -> None:
    """Print every object of the database's schema, as the check sees it."""
    from guvnor.schema import commands

    with Console().explaining():
        objects = commands.objects(resolve_settings())
        if as_json:
            print_json([{"kind": o.kind, "object": o.identity, **o.attributes} for o in objects])
        else:
            for item in objects:
                say(str(item))


@schema.command()
def diagram() -> None:
    """Print docs/schema.md: the schema as an entity-relationship diagram."""
    from guvnor.diagram import document

    say(document().rstrip("\n"))
