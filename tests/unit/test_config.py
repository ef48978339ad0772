"""Is each setting taken from the right place, and is bad input told clearly, with exit code 2?"""

from __future__ import annotations

import pytest

from guvnor import config, postgres
from guvnor.errors import ConfigurationError

DSN = "postgres://app:s3cret@db.example:5432/guvnor"


@pytest.fixture
def load(tmp_path):
    """Resolve settings with nothing but what the test gives."""

    def load(flags=None, environment=None, dotenv="", file=None):
        (tmp_path / ".env").write_text(dotenv)
        environment = dict(environment or {})
        if file is not None:
            (tmp_path / "app.yaml").write_text(file)
            environment.setdefault("GUVNOR_CONFIG", str(tmp_path / "app.yaml"))
        return config.load(flags or {}, environment, tmp_path)

    return load


def test_defaults(load):
    settings = load()
    assert (settings.storage_type, settings.storage_dsn, settings.environment) == (
        "postgres",
        "",
        "development",
    )
    assert (settings.log_level, settings.log_format) == ("info", "")
    assert (settings.lock_wait, settings.max_wait, settings.confirm) == (300.0, 600.0, "")
    assert set(settings.origins.values()) == {"default"}
    assert not settings.production


@pytest.mark.parametrize(
    ("environment", "text", "limit"),
    [
        ("development", None, 2.0),
        ("staging", None, 2.0),
        ("production", None, 0.5),
        ("prod", None, 0.5),
        ("production", "5s", 5.0),
        ("development", "50ms", 0.05),
        ("production", " Off ", None),
    ],
)
def test_how_long_the_application_may_wait_depends_on_the_environment(load, environment, text, limit):
    settings = load(environment={"GUVNOR_ENV": environment, "GUVNOR_MAX_STALL": text})
    assert settings.max_stall == limit
    assert seconds_of(settings.values["max_stall"]) == limit  # what `config show` shows is what is in force
    assert settings.origins["max_stall"] == ("environment GUVNOR_MAX_STALL" if text else "default")


def seconds_of(text):
    return None if text.strip() == "Off" else config.seconds(text)


@pytest.mark.parametrize("text", ["49ms", "0", "0s"])
def test_no_limit_is_so_short_that_it_cannot_be_kept(load, text):
    with pytest.raises(ConfigurationError, match=f"'{text}' is too short: 50ms is the shortest"):
        load(flags={"max_stall": text})


def test_the_innermost_place_wins(load):
    places = {
        "file": "storage:\n  type: embedded\n  dsn: from-file\n",
        "dotenv": "GUVNOR_STORAGE_DSN=from-dotenv\nGUVNOR_LOG_LEVEL=debug\n",
        "environment": {"GUVNOR_STORAGE_DSN": "from-environment", "GUVNOR_LOG_LEVEL": "error"},
        "flags": {"storage.dsn": "from-flag", "log.level": None},
    }
    assert load(**places).storage_dsn == "from-flag"
    assert load(**places).origins["storage.dsn"] == "flag --storage-dsn"
    del places["flags"]
    assert load(**places).storage_dsn == "from-environment"
    assert load(**places).log_level == "error"
    assert load(**places).origins["log.level"] == "environment GUVNOR_LOG_LEVEL"
    places["environment"] = {"GUVNOR_STORAGE_DSN": ""}  # empty is as good as not there
    assert load(**places).storage_dsn == "from-dotenv"
    assert load(**places).origins["storage.dsn"] == ".env GUVNOR_STORAGE_DSN"
    del places["dotenv"]
    settings = load(**places)
    assert (settings.storage_dsn, settings.storage_type) == ("from-file", "embedded")
    assert settings.origins["storage.dsn"].startswith("file ")
    assert settings.origins["storage.dsn"].endswith("app.yaml")


def test_every_option_has_an_environment_variable(load):
    values = {
        "GUVNOR_STORAGE_TYPE": "embedded",
        "GUVNOR_STORAGE_DSN": DSN,
        "GUVNOR_ENV": "Production",
        "GUVNOR_LOG_LEVEL": "WARN",
        "GUVNOR_LOG_FORMAT": "JSON",
        "GUVNOR_LOCK_WAIT": "500ms",
        "GUVNOR_MAX_WAIT": "1h",
        "GUVNOR_CONFIRM": "abc",
    }
    settings = load(environment=values)
    assert settings.production
    assert (settings.storage_type, settings.storage_dsn) == ("embedded", DSN)
    assert (settings.log_level, settings.log_format) == ("warning", "json")
    assert (settings.lock_wait, settings.max_wait, settings.confirm) == (0.5, 3600.0, "abc")
    for option in config.OPTIONS:
        assert settings.origins[option.name] == (
            f"environment {option.variable}" if option.variable in values else "default"
        )
        assert option.variable.startswith("GUVNOR_")


def test_dotenv_is_taken_literally(load):
    dsn = "postgres://u:pa$HOME%24{x}@h/d"
    assert load(dotenv=f"export GUVNOR_STORAGE_DSN='{dsn}'\n# a comment\nOTHER=1\n").storage_dsn == dsn


def test_a_connection_string_may_end_in_a_line_break(load):
    """As those do that come from a mounted secret."""
    assert load(environment={"GUVNOR_STORAGE_DSN": f"{DSN}\n"}).storage_dsn == DSN
    assert load(file=f"storage:\n  dsn: |\n    {DSN}\n").storage_dsn == DSN


def test_other_sections_of_the_file_are_the_applications(load):
    file = f"server: {{port: 80}}\nlog: {{level: loud}}\n1: [x]\nstorage:\n  dsn: {DSN}\n  pool: 5\n"
    assert load(file=file).storage_dsn == DSN
    assert load(file="").storage_dsn == ""
    assert load(file="storage:\n").storage_dsn == ""
    assert load(file="storage: {dsn: , type: null}\n").storage_type == "postgres"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("30", 30),
        ("1.5s", 1.5),
        ("200ms", 0.2),
        ("5min", 300),
        ("5m", 300),
        ("1h", 3600),
        (" 7 s ", 7),
    ],
)
def test_durations(text, value):
    assert config.seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("name", ["prduction", "Prodution", "productoin", "productions"])
def test_an_environment_that_is_nearly_production(load, name):
    """It would not be guarded."""
    with pytest.raises(ConfigurationError, match="looks like a misspelling of production") as raised:
        load(environment={"GUVNOR_ENV": name})
    assert raised.value.next_step == "export GUVNOR_ENV=production"


@pytest.mark.parametrize("name", ["preproduction", "non-production", "preprod", "staging", "product", "qa"])
def test_another_environment(load, name):
    assert not load(environment={"GUVNOR_ENV": name}).production


@pytest.mark.parametrize("text", ["", "-1", "5 days", "1e3", "inf", "nan", "min", "1h30min", "٣"])
def test_no_durations(text, load):
    if text != "٣":
        with pytest.raises(ValueError, match="is not a duration"):
            config.seconds(text)
    if text not in ("", "٣"):
        with pytest.raises(ConfigurationError, match=r"lock_wait \(from environment GUVNOR_LOCK_WAIT\): "):
            load(environment={"GUVNOR_LOCK_WAIT": text})


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("storage: 5\n", "storage must be a section"),
        ("- storage\n", "the top level must be a section"),
        ("hello\n", "the top level must be a section"),
        ("storage: [1]\n", "storage must be a section"),
        ("storage: {dsn: 5432}\n", "storage.dsn must be text, not int"),
        ("storage: {dsn: [a]}\n", "storage.dsn must be text, not list"),
        ("storage: {type: true}\n", "storage.type must be text, not bool"),
        ("storage: {type: sqlite}\n", "unsupported database type: 'sqlite'"),
        ("storage: {dsn: 'hun/ter2\n", "is not valid YAML (line"),
        ("a: b: c\n", "is not valid YAML (line 1, column 5)"),
        ("x: 2026-13-45\n", "is not valid YAML"),
        ("x: !!int one\n", "is not valid YAML"),
        ("x: !!python/object:os.system {}\n", "is not valid YAML"),
        ("{[a]: 1}: 2\n", "is not valid YAML"),
        ("\x00", "is not valid YAML"),
        pytest.param("[" * 10000, "is not valid YAML", id="deep"),
    ],
)
def test_a_file_that_is_no_configuration(load, file, problem):
    with pytest.raises(ConfigurationError) as raised:
        load(file=file)
    assert problem in raised.value.message
    assert "hun" not in raised.value.message
    assert raised.value.exit_code == 2


def test_a_file_that_cannot_be_read(load, tmp_path):
    for path, reason in ((tmp_path / "none.yaml", "no such file"), (tmp_path, "is a directory")):
        with pytest.raises(ConfigurationError, match=f"cannot be read: {reason}"):
            load({"config": str(path)})
    (tmp_path / "latin.yaml").write_bytes("storage: {dsn: Größe}".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="it is not UTF-8"):
        load({"config": str(tmp_path / "latin.yaml")})
    with pytest.raises(ConfigurationError, match=r"\.env cannot be read: file name too long"):
        config.load({}, {}, tmp_path / ("x" * 300))
    (tmp_path / ".env").write_bytes("GUVNOR_STORAGE_DSN=Größe".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="it is not UTF-8"):
        config.load({}, {}, tmp_path)


@pytest.mark.parametrize(
    ("variable", "problem"),
    [
        ("GUVNOR_STORAGE_TYPE", "unsupported database type: 'x'"),
        ("GUVNOR_LOG_LEVEL", "unknown log level: 'x'"),
        ("GUVNOR_LOG_FORMAT", "unknown log format: 'x'"),
        ("GUVNOR_MAX_WAIT", "max_wait"),
        ("GUVNOR_MAX_STALL", "max_stall"),
    ],
)
def test_a_value_that_is_none_of_the_known_ones(load, variable, problem):
    with pytest.raises(ConfigurationError) as raised:
        load(environment={variable: "x"})
    assert problem in raised.value.message
    assert f"environment {variable}" in raised.value.message


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u@h:5432/d?sslmode=require",
        "postgres://u:%40%2F%3A@h/d",
        "postgres://u%40server:p@h/d",
        "postgres://u:p@[::1]:5433/d",
        "postgresql://u@h1:1,h2:2/d?target_session_attrs=read-write",
        "postgresql:///d?host=/var/run/postgresql",
        "host=h port=5432 user=u password='a b\\'c' dbname=d",
        "host=h1,h2 port=1,2 dbname=d",
        "service=guvnor",
        "dbname=guvnor",
    ],
)
def test_all_forms_of_libpq_are_taken(dsn):
    assert postgres.parse(dsn)
    assert "***" in postgres.masked(dsn) or "password" not in postgres.parse(dsn)
