"""Are logs one JSON object a line where programs read them, and readable lines on a terminal?"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

from psycopg2.extensions import parse_dsn

from guvnor import __version__
from tests.support.expect import ends, succeeds


def records(text: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in text.splitlines()]
    for record in found:
        time = datetime.fromisoformat(record["time"])
        assert abs(datetime.now(UTC) - time) < timedelta(minutes=5)
        assert record["level"] in ("DEBUG", "INFO", "WARN", "ERROR")
        assert record["msg"]
    return found


def test_each_line_of_a_run_is_a_json_object(at_version_1, guvnor):
    result = succeeds(guvnor("migrate", "up", database=at_version_1))
    first, second, *others = records(result.err)
    fields = parse_dsn(at_version_1.dsn)
    assert first["msg"] == f"guvnor {__version__}"
    assert (first["host"], first["database"], first["role"]) == (
        fields.get("host", first["host"]),
        at_version_1.name,
        fields["user"],
    )
    assert first["port"] == int(fields.get("port", 5432))
    assert second["level"] == "INFO"
    assert second["msg"] == "Starting database migration (up)"
    assert (second["current_version"], second["migrations_found"]) == (1, 2)
    assert [r["msg"] for r in others if r.get("logger") == "alembic.runtime.migration"] == [
        "Running upgrade 001 -> 002, add schedules, escalation and audit"
    ]
    (done,) = [r for r in others if r["msg"] == "revision 002 applied"]
    assert (done["direction"], done["tries"]) == ("up", 1)
    assert not re.search(r"✅|❌", result.err)


def test_plain_alembic_logs_the_same(at_version_1, alembic):
    result = succeeds(alembic("downgrade", "-1", database=at_version_1))
    first, second, *_ = records(result.err)
    assert re.fullmatch(rf"alembic \d.*, guvnor {re.escape(__version__)}", first["msg"])
    assert second["msg"] == "Starting database migration (down)"


def test_the_level_is_honored(migrated, guvnor):
    debug, error = {"GUVNOR_LOG_LEVEL": "debug"}, {"GUVNOR_LOG_LEVEL": "error"}
    assert succeeds(guvnor("migrate", "up", database=migrated, env=error)).err == ""
    info = records(succeeds(guvnor("migrate", "up", database=migrated)).err)
    more = records(succeeds(guvnor("migrate", "up", database=migrated, env=debug)).err)
    assert {r["level"] for r in info} == {"INFO"}
    assert len(more) >= len(info)


def test_a_terminal_gets_readable_lines_but_not_in_production(migrated, guvnor):
    shown = succeeds(guvnor.terminal("migrate", "up", database=migrated)).out
    assert re.search(rf"^\d\d:\d\d:\d\d INFO  guvnor {re.escape(__version__)} host=", shown, re.MULTILINE)
    assert "current_version=2 migrations_found=2" in shown
    assert '{"time"' not in shown

    production = succeeds(
        guvnor.terminal("migrate", "up", database=migrated, env={"GUVNOR_ENV": "production"})
    )
    assert '"msg": "Starting database migration (up)", "current_version": 2, "migrations_found": 2}' in (
        production.out
    )
    as_asked = {"GUVNOR_LOG_FORMAT": "json"}
    assert '{"time"' in succeeds(guvnor.terminal("migrate", "up", database=migrated, env=as_asked)).out


def test_the_format_can_be_asked_for(migrated, guvnor):
    text = succeeds(guvnor("migrate", "up", database=migrated, env={"GUVNOR_LOG_FORMAT": "text"})).err
    assert re.match(r"\d\d:\d\d:\d\d INFO  guvnor", text)
    in_production = {"GUVNOR_LOG_FORMAT": "text", "GUVNOR_ENV": "production"}
    records(guvnor("migrate", "up", database=migrated, env=in_production).err)
    ends(guvnor("migrate", "up", env={"GUVNOR_LOG_FORMAT": "xml"}), 2, "unknown log format: 'xml'")


def test_what_a_revision_logs_and_line_breaks_stay_in_one_object(at_version_1, project, guvnor):
    (project.versions / "002_add_schedules.py").unlink()
    project.add_revision(
        "import logging\n"
        "logging.getLogger('mine').warning('two\\nlines é', extra={'rows': 3})\n"
        "op.execute('SELECT 1')",
        "op.execute('SELECT 1')",
        python=True,
    )
    result = succeeds(guvnor("migrate", "up", database=at_version_1, cwd=project.directory))
    mine, *_ = [r for r in records(result.err) if r.get("logger") == "mine"]
    assert (mine["level"], mine["msg"], mine["rows"]) == ("WARN", "two\nlines é", 3)
