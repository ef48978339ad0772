"""Is what is printed a record, whatever it is, and in characters that the stream can show?"""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from guvnor import config, logs, records


def written(stream: io.TextIOWrapper) -> list[dict[str, Any]]:
    stream.flush()
    raw = stream.buffer.getvalue()  # type: ignore[attr-defined]
    return [json.loads(line) for line in raw.decode(stream.encoding).splitlines()]


def stream(encoding: str = "utf-8") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


def test_each_line_that_is_printed_is_a_record() -> None:
    actual = stream()
    printed = records.Printed(actual, result=True)
    print("one\n\ntwo", "words", end=" and", file=printed)
    print(" more", file=printed)
    printed.buffer.write(b"bytes\xff\n")
    print("no end", end="", file=printed)
    assert [record["msg"] for record in written(actual)] == ["one", "two words and more", "bytes\ufffd"]
    printed.end()
    assert written(actual)[-1]["msg"] == "no end"
    assert {(record["level"], record["logger"]) for record in written(actual)} == {("INFO", "stdout")}


def test_a_document_passes_as_it_is() -> None:
    actual = stream()
    print("SELECT 1;", file=records.Printed(actual, result=True, document=True))
    actual.flush()
    assert actual.buffer.getvalue() == b"SELECT 1;\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_every_stream_can_show_every_character(encoding: str) -> None:
    actual, text = stream(encoding), "é ✅ 😀 \ud83d \x00"
    records.say("INFO", text, actual)
    assert written(actual)[0]["msg"] == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://u:hun/ter2@h/d", "postgres://***@h/d"),
        ("connect(host=h password='two words' port=1)", "connect(host=h password=*** port=1)"),
        ("postgres://u:p@ss@h/d", "postgres://***@h/d"),
        ("{'password': 'secret', 'port': 1}", "{'password': ***, 'port': 1}"),
        ("PGPASSWORD=secret psql", "PGPASSWORD=*** psql"),
        ("https://example.org/page", "https://example.org/page"),
    ],
)
def test_what_looks_like_a_password_is_masked(text: str, shown: str) -> None:
    assert records.without_secrets(text) == shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("✅ Applied", ("INFO", "Applied")),
        ("⚠️  WARNING: odd", ("WARN", "odd")),
        ("❌ no", ("WARN", "no")),
        ("plain", ("INFO", "plain")),
    ],
)
def test_a_sign_is_a_level(text: str, expected: tuple[str, str]) -> None:
    assert records.levelled(text) == expected


@pytest.mark.parametrize(
    ("format_", "environment", "terminal", "expected"),
    [
        ("json", "", True, True),
        ("json", "development", False, True),
        ("", "production", False, True),
        ("text", "prod", False, True),
        ("", "produktion", False, True),  # misspelled, which is an error that a pod's log has to show
        ("", "production", True, False),
        ("", "development", False, False),
        ("xml", "", False, False),
    ],
)
def test_where_everything_is_a_record(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    format_: str,
    environment: str,
    terminal: bool,
    expected: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GUVNOR_LOG_FORMAT", format_)
    monkeypatch.setenv("GUVNOR_ENV", environment)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert logs.everything_in_json({}) is expected


def test_a_flag_and_a_dotenv_file_count_and_a_broken_one_does_not_stop_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GUVNOR_LOG_FORMAT", raising=False)
    (tmp_path / ".env").write_text("GUVNOR_LOG_FORMAT=json\n")
    assert config.said("log.format") == "json"
    assert config.said("log.format", {"log.format": "text"}) == "text"
    (tmp_path / ".env").write_bytes(b"\xff\xfe")
    assert config.said("log.format") == ""
