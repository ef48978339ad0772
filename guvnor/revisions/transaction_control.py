"""Whether SQL ends the transaction that it runs in, as far as its text shows.

This splits a text into statements as psql does, and looks at how each one begins; what a statement means is
left to the server. Lint asks PostgreSQL's own parser, which is not installed where migrations run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from guvnor.postgres.quoting import QUOTED_OR_BLANK

# PostgreSQL documentation: COMMIT, END, ROLLBACK, ABORT, PREPARE TRANSACTION.
_CANDIDATE = re.compile(r"\b(commit|end|rollback|abort|prepare)\b", re.IGNORECASE)
_SAVEPOINT = re.compile(r"\b(savepoint|release|rollback)\b", re.IGNORECASE)
_PIECE = re.compile(rf"{QUOTED_OR_BLANK} | (?P<word>[^\W\d][\w$]*) | (?P<mark>.)", re.DOTALL | re.VERBOSE)
_FIRST_WORDS = 4
_QUOTED = re.compile(QUOTED_OR_BLANK, re.DOTALL | re.VERBOSE)
_CALL = re.compile(r"\w\(")
_QUERIES = frozenset(("SELECT", "WITH", "VALUES"))
_CHANGES = frozenset(("INSERT", "UPDATE", "DELETE", "MERGE"))
# What has to stand in a block that writes rows or runs what does, and where such words mean something else:
# in a foreign key, a lock, a trigger.
_WRITES = re.compile(
    r"\b(update|delete|insert|merge|truncate|copy|execute|perform|call)\b|\bselect\s+[\w.]+\s*\(",
    re.IGNORECASE,
)
_WRITES_NOT = re.compile(
    r"\b(on|for|before|after|or|of)\s+(no\s+key\s+)?(update|delete|insert|truncate)\b"
    r"|\bexecute\s+(function|procedure)\b",
    re.IGNORECASE,
)


def ending(text: str) -> str | None:
    """Return the first words of the first statement in a text that would end the transaction; None for none.

    A savepoint and ``ROLLBACK TO`` do not end it. ``BEGIN`` in a transaction has no effect but a warning.
    """
    if _CANDIDATE.search(text) is None:  # spares the rest to nearly every statement
        return None
    return next((" ".join(words) for words in _openings(text) if _ends_transaction(words)), None)


def refusal(revision: str, direction: str, words: str) -> str:
    """Say that a revision would end its transaction.

    :param words: the first words of the statement.
    """
    return (
        f"Revision {revision} would end its own transaction going {direction}, with {words}. "
        "The tool begins and ends the transaction of a revision, and writes the version in it."
    )


def only_alters(text: str) -> bool:
    """Tell whether a text consists of ALTER statements, which write no rows by a trigger's event."""
    return all(words[0].upper() == "ALTER" for words in _openings(text))


def names_savepoint(text: str) -> bool:
    """Tell whether a text makes a savepoint, releases one, or goes back to one."""
    if _SAVEPOINT.search(text) is None:
        return False
    return any(words[0].upper() in ("SAVEPOINT", "RELEASE", "ROLLBACK") for words in _openings(text))


def seen_on_empty_tables(text: str, routines: Iterable[str] = ()) -> bool:
    """Tell whether a text holds a DO block or calls a routine: what it does may depend on the rows there are.

    A query that calls anything counts, as does a statement that writes rows and calls one of some routines.

    :param routines: names of routines that are not PostgreSQL's own.
    """
    openings = {words[0].upper() for words in _openings(text)}
    if {"DO", "CALL", "EXECUTE"} & openings:
        return True
    if not (_QUERIES | _CHANGES) & openings:
        return False
    plain = _QUOTED.sub(" ", text)
    if _QUERIES & openings and _CALL.search(plain):
        return True
    return any(re.search(rf"\b{re.escape(name)}\s*\(", plain, re.IGNORECASE) for name in routines)


def may_write_unseen(text: str) -> bool:
    """Tell whether a text may write rows only where there are some, which no look at empty tables shows.

    A block that only looks into the catalogs before it changes the schema writes none.
    """
    return seen_on_empty_tables(text) and has_word_of_writing(text)


def has_word_of_writing(text: str) -> bool:
    """Tell whether a text has a word that writes rows or runs what does."""
    return _WRITES.search(_WRITES_NOT.sub(" ", text)) is not None


def _ends_transaction(words: list[str]) -> bool:
    first, *rest = (word.upper() for word in words)
    if first == "PREPARE":
        return rest[:1] == ["TRANSACTION"]
    if "PREPARED" in rest[:1]:  # of another transaction; the server refuses it within one
        return False
    return first in ("COMMIT", "END", "ABORT") or (first == "ROLLBACK" and "TO" not in rest)


def split(text: str) -> list[str]:
    """Split a text into its statements, without the semicolons between them."""
    return [statement for _, statement in _statements(text)]


def _openings(text: str) -> Iterator[list[str]]:
    """Return the first words of each statement."""
    return (words for words, _ in _statements(text))


def _statements(text: str) -> Iterator[tuple[list[str], str]]:
    """Return the first words and the text of each statement.

    A semicolon in parentheses (CREATE RULE) or in a function's BEGIN ATOMIC ... END does not end a statement.
    """
    words: list[str] = []
    parentheses = blocks = start = 0
    for piece in _PIECE.finditer(text):
        word, mark = piece["word"], piece["mark"]
        if word:
            blocks = _blocks(blocks, words, word.upper())
            if len(words) < _FIRST_WORDS:
                words.append(word)
        elif mark == ";" and not parentheses and not blocks:
            if words:
                yield words, text[start : piece.start()]
            words, start = [], piece.end()
        elif mark in ("(", ")"):
            parentheses = max(0, parentheses + (1 if mark == "(" else -1))
    if words:
        yield words, text[start:]


def _blocks(blocks: int, words: list[str], word: str) -> int:
    """Return how many blocks of a function's body are open after a word, as psql counts them."""
    routine = (
        words[:1] and words[0].upper() == "CREATE" and {"FUNCTION", "PROCEDURE"} & set(map(str.upper, words))
    )
    if not routine:
        return 0
    if word == "BEGIN" or (word == "CASE" and blocks):
        return blocks + 1
    return max(0, blocks - 1) if word == "END" else blocks
