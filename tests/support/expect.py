"""What tests of the command line share: what they say again and again."""

from __future__ import annotations

import itertools
import json
import re

from tests.support.command import Result
from tests.support.server import Target


def succeeds(result: Result, *texts: str) -> Result:
    """Expect exit code 0 and some texts in the output."""
    return ends(result, 0, *texts)


def ends(result: Result, code: int, *texts: str) -> Result:
    """Expect an exit code, some texts in the output, and an explanation instead of a traceback.

    :returns: the result; where all of it is records, with the words that a person reads after each.
    """
    if any('"msg": ' in line for line in result.out.splitlines()) or '"exit_code": ' in result.err:
        result = Result(result.code, in_words(result.out), in_words(result.err))
    everything = result.plain + result.err
    assert result.code == code, f"exit code {result.code}, not {code}\n{everything}"
    assert "Traceback" not in everything, everything
    for text in texts:
        assert text in everything, f"{text!r} is missing in\n{everything}"
    if code != 2 and re.search(r"^(❌|\[failed\])", everything, re.MULTILINE):
        assert re.search(r"^   State: ", everything, re.MULTILINE), f"no state in\n{everything}"
        assert re.search(r"^   Next:  ", everything, re.MULTILINE), f"no next step in\n{everything}"
    return result


# The fields of a record that says what is at stake, and what a person reads before each.
_AT_STAKE = {
    "database": "Database:", "role": "Role:", "because": "Because:", "version": "Version:", "steps": "Step:",
    "lost": "Lost:", "waits": "Waits:", "backup": "Backup:", "plan_hash": "Plan hash:"
}  # fmt: skip
_SIGNS = {"ERROR": ("❌ ",), "WARN": ("⚠️  ", "⚠️  WARNING: "), "INFO": ("✅ ",)}


def in_words(text: str) -> str:
    """What a run says: each line, and after a record the words that a person at a terminal reads."""
    return "".join(line + _in_words(line) for line in text.splitlines(keepends=True))


def _in_words(line: str) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        return ""
    if not isinstance(record, dict) or "level" not in record or "msg" not in record:
        return ""
    said = [f"{sign}{record['msg']}" for sign in _SIGNS.get(record["level"], ())]
    if "plan_hash" in record:
        record["version"] = f"{record['current'] or 'none'} → {record['target'] or 'none'}"
        for name, label in _AT_STAKE.items():
            values = record[name] if isinstance(record[name], list) else [record[name]]
            said += [f"   {label:<10} {value}" for value in values if value]
    elif record["level"] == "ERROR" and "exit_code" in record:
        for label, text in (("State: ", record["state"]), ("Next:  ", record["next"])):
            first, *rest = (text or "").split("\n")
            said += [f"   {label}{first}", *(f"{' ' * 10}{each}" for each in rest)] if text else []
    return "\n".join((*said, "")) if said else ""


def next_step(result: Result) -> list[str]:
    """The lines that an error says to type next."""
    text = in_words(result.plain + result.err).split("   Next:  ", 1)[1]
    first, *rest = text.splitlines()
    return [first, *(line[10:] for line in itertools.takewhile(lambda line: line.startswith(" " * 10), rest))]


def versions(database: Target) -> tuple[list[str], list[tuple[int, bool]]]:
    """What the two version tables hold."""
    return (
        [version for (version,) in database.execute("SELECT version_num FROM alembic_version")],
        [(v, dirty) for v, dirty in database.execute("SELECT version, dirty FROM schema_migrations")],
    )


AT_HEAD = (["002"], [(2, False)])
AT_1 = (["001"], [(1, False)])
AT_BASE: tuple[list[str], list[tuple[int, bool]]] = ([], [])


def events(database: Target) -> list[tuple[str, str, str]]:
    """The history, without the size of the database and the single online steps."""
    return [
        (event, direction, revision)
        for event, direction, revision in database.execute(
            "SELECT event, direction, revision FROM guvnor_migration_history "
            "WHERE event NOT IN ('measured', 'online', 'repair', 'marked') ORDER BY id"
        )
    ]


def tables(database: Target) -> list[str]:
    """The tables of the database."""
    return [
        name
        for (name,) in database.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
        )
    ]
