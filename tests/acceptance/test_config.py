"""Is bad input told with exit code 2, and are flags and the origin of settings as a user expects?"""

from __future__ import annotations

import json

from guvnor import config
from tests.support.expect import ends, succeeds

DSN = "postgres://app:s3cret@db.example:5432/guvnor"


def test_bad_input_ends_with_code_2_and_an_explanation(guvnor, alembic, tmp_path):
    (tmp_path / "bad.yaml").write_text("a: b: c")
    ends(
        guvnor("--config", "nowhere.yaml", "migrate", "up"), 2, "'nowhere.yaml' cannot be read: no such file"
    )
    ends(guvnor("migrate", "preflight", "--config", tmp_path / "bad.yaml"), 2, "❌ The configuration file")
    ends(
        guvnor("--log-level", "loud", "migrate", "status"), 2, "unknown log level: 'loud'", "flag --log-level"
    )
    ends(guvnor("migrate", "up", "--lock-wait", "soon", database=DSN), 2, "lock_wait (from flag --lock-wait)")
    ends(guvnor("migrate", "status"), 2, "(DSN) is empty", "export GUVNOR_STORAGE_DSN=")
    ends(alembic("current"), 2, "(DSN) is empty")
    ends(alembic("-x", "colour=red", "upgrade", "head"), 2, "Unknown -x argument: colour", "confirm")
    ends(alembic("upgrade", "head", env={"GUVNOR_CONFIG": "nowhere.yaml"}), 2, "cannot be read")


def test_an_unknown_revision_is_found_before_any_connection(guvnor):
    nobody = "host=/nowhere dbname=x"
    ends(guvnor("migrate", "up", "--to", "007", database=nobody), 2, "Unknown revision '007'", "001 to 002")
    ends(guvnor("migrate", "down", "--to", "x", database=nobody), 2, "Unknown revision 'x'")
    ends(guvnor("migrate", "force", "99", database=nobody), 2, "Unknown revision '99'")
    ends(guvnor("migrate", "up", "--to", "base", database=nobody), 2, "guvnor migrate down --to base")
    ends(guvnor("migrate", "up", "down"), 2, "unexpected extra argument")


def test_config_show_names_the_origin_and_masks_the_password(guvnor, tmp_path):
    file = tmp_path / "app.yaml"
    file.write_text(f"storage:\n  dsn: '{DSN}'\n")
    (guvnor.directory / ".env").write_text("GUVNOR_MAX_WAIT=1min\n")
    shown = succeeds(
        guvnor("config", "show", "--json", "-v", env={"GUVNOR_CONFIG": str(file), "GUVNOR_ENV": "staging"})
    )
    found = {row["name"]: (row["value"], row["origin"]) for row in json.loads(shown.out)}
    assert found["storage.dsn"] == (
        "user=app password=*** dbname=guvnor host=db.example port=5432",
        f"file {file}",
    )
    assert found["config"] == (str(file), "environment GUVNOR_CONFIG")
    assert found["environment"] == ("staging", "environment GUVNOR_ENV")
    assert found["max_wait"] == ("1min", ".env GUVNOR_MAX_WAIT")
    assert found["max_stall"] == ("2s", "default")
    assert found["log.level"] == ("debug", "flag --log-level")
    assert found["storage.type"] == ("postgres", "default")
    assert "s3cret" not in shown.out + shown.err

    text = succeeds(guvnor("config", "show", database="postgres://u:p@h:x/d"), "(malformed, not shown)")
    assert len(text.out.splitlines()) == len(config.OPTIONS)


def test_config_show_shows_the_default_that_is_in_force(guvnor):
    shown = succeeds(guvnor("config", "show", "--json", env={"GUVNOR_ENV": "production"}))
    (row,) = (row for row in json.loads(shown.out) if row["name"] == "max_stall")
    assert (row["value"], row["origin"]) == ("500ms", "default")


def test_the_global_flags_work_before_and_after_the_command(guvnor, tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(f"storage: {{dsn: 'host={name}'}}\n")
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    for words in (
        ("--config", one, "--log-level", "error", "config", "show"),
        ("config", "--config", one, "--log-level", "error", "show"),
        ("config", "show", "--config", one, "--log-level", "error"),
        ("--config", two, "-v", "config", "show", "--config", one, "--log-level", "error"),
    ):
        shown = succeeds(guvnor(*words)).out
        assert "host=one" in shown
        assert "error" in shown
