"""Does any form of connection string, or a setting that holds one, show a password in an error?"""

from __future__ import annotations

from urllib.parse import quote

import pytest

from guvnor import config, postgres
from guvnor.errors import ConfigurationError, PreflightError

WORD = "hunter2"


# Each holds the word that is looked for on both sides of a character that something may split it at.
ODD = [f"{WORD}{middle}{WORD}x" for middle in "@/:%?#[]& '\"\\=;,+$`|<>{}é日😀\t"] + [
    f"@{WORD}/",
    f"{WORD}%zz{WORD}",
    f"{WORD}?host={WORD}@x",
    f"{WORD}@{WORD}:{WORD}/{WORD}",
    f"//{WORD}@",
    f" {WORD} ",
    f"1/{WORD}",
    f"1234?{WORD}",
]


def leaks(*texts: str) -> bool:
    return any(WORD in text for text in texts)


def explained(dsn: str) -> str:
    """Everything that trying to use a connection string says."""
    said = []
    for use in (postgres.parse, postgres.masked, postgres.connect):
        try:
            said.append(str(use(dsn)) if use is postgres.masked else "")
            use(dsn)
        except (ConfigurationError, PreflightError) as error:
            said += [str(error), repr(error), error.next_step or ""]
            context = None if error.__suppress_context__ else error.__context__
            said.append(repr(context))
    return "\n".join(said)


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    """Names are not looked up: a connection ends quickly."""
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")


@pytest.mark.parametrize("password", ODD)
def test_no_form_of_connection_string_shows_it(password):
    encoded = quote(password, safe="")
    literal = password.replace("\\", r"\\").replace("'", r"\'")
    for dsn in (
        f"postgres://u:{password}@h:1/d",
        f"postgres://u:{password}@h/d",
        f"postgresql://u:{password}@/d?host=/nowhere",
        f"postgres://u:{encoded}@h:1/d",
        f"postgres://u:{encoded}@h:port/d",
        f"postgres://u:{encoded}@h:1/d?nonsense=1",
        f"postgres://u@h:1/d?password={encoded}",
        f"postgres://u@h:1/d?password={password}",
        f"postgres:/u:{password}@h:1/d",
        f"postgresql+psycopg2://u:{password}@h:1/d",
        f"mysql://u:{password}@h/d",
        f"u:{password}@h:1/d",
        f"host=h port=1 user=u password='{literal}' dbname=d",
        f"host=h port=1 user=u password={password} dbname=d",
        f"host=h port=one user=u password='{literal}'",
        f"host=h port=1 nonsense=1 password='{literal}'",
        f"host=h port=1 password = {password}",
        f"host=h port=1 password='{literal}",
        f"host=h port=1 sslmode=nonsense password='{literal}'",
    ):
        assert not leaks(explained(dsn)), dsn


def test_a_setting_that_got_the_connection_string_by_mistake_does_not_show_it():
    dsn = f"postgres://u:{WORD}@h/d"
    for variable in (
        "CONFIG",
        "STORAGE_TYPE",
        "LOG_LEVEL",
        "LOG_FORMAT",
        "LOCK_WAIT",
        "MAX_WAIT",
        "MAX_STALL",
    ):
        with pytest.raises(ConfigurationError) as raised:
            config.load({}, {f"GUVNOR_{variable}": dsn})
        assert not leaks(str(raised.value), repr(raised.value))
    settings = config.load({}, {"GUVNOR_STORAGE_DSN": dsn, "GUVNOR_SHADOW_DSN": dsn})
    assert not leaks(repr(settings), str(settings))
