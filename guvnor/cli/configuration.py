"""``guvnor config``: the settings of a call, and where each came from."""

from __future__ import annotations

import sys

import click

from guvnor import config, postgres, terminal
from guvnor.cli.base import Group, json_option, print_json, resolve_settings
from guvnor.cli.streams import say
from guvnor.errors import GuvnorError


@click.group(cls=Group, name="config")
def config_group() -> None:
    """Show the settings and where each came from."""


@config_group.command()
@json_option
def show(as_json: bool) -> None:
    """Show each setting, its value and where that came from.

    Passwords are masked.
    """
    settings = resolve_settings()
    rows = [
        {
            "name": o.name,
            "value": config_value(settings, o.name),
            "origin": settings.origins[o.name],
            "meaning": o.meaning,
        }
        for o in config.OPTIONS
    ]
    if as_json:
        print_json(rows)
        return
    width = terminal.columns(sys.stdout)
    for row in rows:
        name, value, origin, meaning = (
            f"{row['name']:<18} ",
            row["value"] or "(empty)",
            *list(row.values())[2:],
        )
        if width is None:
            say(f"{name}{value:<40} {origin:<35} {meaning}")
            continue
        say(terminal.hung(name, value, width))
        below = terminal.hung(" " * len(name), f"{origin}: {meaning}", width)
        say(terminal.styled(below, "dim", sys.stdout))


def config_value(settings: config.Settings, name: str) -> str:
    """Return the value of a setting without secrets."""
    value = settings.values[name]
    if name.endswith(".dsn") and value:
        try:
            return postgres.masked(value)
        except GuvnorError:
            return "(malformed, not shown)"
    public = all(key.startswith(("age1", "ssh-")) for key in settings.backup_recipients)
    if name == "backup.recipients" and not public:
        return "(malformed, not shown)"
    return value
