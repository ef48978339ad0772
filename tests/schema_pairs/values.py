"""The types of columns, and values of them that every check, key and index of the fuzzer accepts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Type:
    """A type of a column.

    :ivar family: types of one family compare with each other.
    :ivar value: an expression for the value of row ``i``.
    :ivar distinct: whether the values of three rows differ.
    :ivar defaults: expressions for a default.
    :ivar computed: immutable expressions of the column ``{0}`` with a type of their own.
    :ivar checks: conditions that all values meet.
    :ivar keys: what an index on the column may look like.
    """

    sql: str
    family: str
    value: str
    distinct: bool = True
    defaults: tuple[str, ...] = ()
    computed: tuple[tuple[str, str], ...] = ()
    checks: tuple[str, ...] = ()
    keys: tuple[str, ...] = ("({0})",)


_NUMBER = {
    "value": "i",
    "defaults": ("7", "0", "-1", "(1 + 2)"),
    "computed": (("integer", "({0} * 2)::integer"), ("boolean", "{0} > 2"), ("numeric(12,2)", "{0} / 3.0")),
    "checks": ("{0} > -1", "{0} BETWEEN 0 AND 1000", "{0} IN (0, 1, 2, 3, 4, 7)", "{0} <> 99 OR {0} IS NULL"),
    "keys": (
        "({0})",
        "({0} DESC)",
        "({0} DESC NULLS LAST)",
        "USING hash ({0})",
        "USING brin ({0})",
        "(({0} + 1))",
    ),
}
_STRING = {
    "value": "i::text",
    "defaults": ("'x'", "'7'", "'it''s'", "''", "'a:b 50% \\ {{}}'"),
    "computed": (("text", "upper({0})"), ("integer", "length({0})"), ("text", "{0} || ':x'"),
                 ("tsvector", "to_tsvector('simple'::regconfig, {0})")),
    "checks": ("length({0}) < 50", "{0} <> 'never'", "{0} ~ '^[^:%]*$'", "{0} NOT IN ('a', 'b')", "{0} NOT LIKE '50\\%:b'"),
    "keys": ("({0})", "({0} text_pattern_ops)", '({0} COLLATE "C")', "(lower({0}))", "USING hash ({0})",
             "({0} DESC)", "USING spgist ({0})"),
}  # fmt: skip
_MOMENT = {
    "value": "'2026-01-01'::date + i",
    "checks": ("{0} > '2020-01-01'", "{0} IS NOT NULL OR true"),
    "keys": ("({0})", "({0} DESC)", "USING brin ({0})"),
}

TYPES = [
    Type("integer", "integer", **_NUMBER),
    Type("bigint", "integer", **_NUMBER),
    Type("smallint", "integer", **_NUMBER),
    Type("numeric", "number", **_NUMBER),
    Type("numeric(10,2)", "number", **_NUMBER),
    Type("numeric(6,1)", "number", **_NUMBER),
    Type("double precision", "number", **_NUMBER),
    Type("real", "number", **_NUMBER),
    Type("text", "string", **_STRING),
    Type("character varying(20)", "string", **_STRING),
    Type("character varying(80)", "string", **_STRING),
    Type("character varying", "string", **_STRING),
    Type("boolean", "boolean", "i > 1", False, ("true", "false"), (("text", "CASE WHEN {0} THEN 'y' ELSE 'n' END"),),
         ("{0} OR true",)),
    Type("date", "date", **_MOMENT, defaults=("CURRENT_DATE", "'2026-02-03'"), computed=(("integer", "{0} - '2020-01-01'::date"),)),
    Type("timestamp without time zone", "timestamp", **_MOMENT, defaults=("'2026-02-03 04:05:06'", "now()")),
    Type("timestamp(0) without time zone", "timestamp", **_MOMENT, defaults=("CURRENT_TIMESTAMP",)),
    Type("timestamp with time zone", "timestamp", **_MOMENT, defaults=("now()", "'2026-02-03 04:05:06+02'")),
    Type("time without time zone", "time", "make_time(i, 0, 0)", defaults=("'04:05'",)),
    Type("interval", "interval", "make_interval(hours => i)", defaults=("'1 day 02:00'", "INTERVAL '90 minutes'")),
    Type("uuid", "uuid", "lpad(i::text, 32, '0')::uuid", defaults=("gen_random_uuid()",)),
    Type("jsonb", "json", "jsonb_build_object('a', i)", True, ("'{{}}'", "'{{\"a\": [1, \"x:y\"]}}'"),
         (("text", "{0} ->> 'a'"),), ("jsonb_typeof({0}) = 'object'",),
         ("USING gin ({0})", "USING gin ({0} jsonb_path_ops)", "(({0} ->> 'a'))")),
    Type("json", "json text", "json_build_object('a', i)", False, ("'{{}}'",), keys=("(({0} ->> 'a'))",)),
    Type("bytea", "bytes", "decode(lpad(i::text, 2, '0'), 'hex')", defaults=("'\\x00ff'",)),
    Type("inet", "inet", "('10.0.0.' || i)::inet", defaults=("'10.0.0.1'",), keys=("({0})", "USING gist ({0} inet_ops)")),
    Type("integer[]", "integers", "ARRAY[i, 9]", True, ("'{{}}'", "ARRAY[1, 2]"), (("integer", "{0}[1]"),),
         ("cardinality({0}) < 9",), ("USING gin ({0})", "({0})")),
    Type("text[]", "texts", "ARRAY[i::text, 'a:b']", True, ("'{{}}'", "ARRAY['x', 'y z']::text[]"), keys=("USING gin ({0})",)),
    Type("int4range", "range", "int4range(i * 10, i * 10 + 5)", True, ("'empty'",), (("integer", "lower({0})"),),
         ("{0} <> '[99,100)'",), ("USING gist ({0})", "({0})")),
]  # fmt: skip

BY_NAME = {found.sql: found for found in TYPES}

# What a column's type becomes: by how the server casts values of these rows.
CONVERSIONS = {
    "integer": ("bigint", "smallint", "numeric(10,2)", "text", "double precision", "character varying(20)"),
    "bigint": ("integer", "numeric", "text"),
    "smallint": ("integer", "bigint"),
    "numeric": ("numeric(10,2)", "integer", "text", "double precision"),
    "numeric(10,2)": ("numeric", "numeric(6,1)", "bigint", "text"),
    "numeric(6,1)": ("numeric(10,2)", "numeric"),
    "double precision": ("real", "numeric", "integer"),
    "real": ("double precision",),
    "text": ("character varying(20)", "integer", "numeric", "character varying"),
    "character varying(20)": ("character varying(80)", "text", "character varying", "bigint"),
    "character varying(80)": ("character varying(20)", "text"),
    "character varying": ("text", "character varying(80)"),
    "boolean": ("text", "integer"),
    "date": ("timestamp without time zone", "timestamp with time zone", "text"),
    "timestamp without time zone": ("timestamp with time zone", "timestamp(0) without time zone", "date"),
    "timestamp(0) without time zone": ("timestamp without time zone", "timestamp with time zone"),
    "timestamp with time zone": ("timestamp without time zone", "date", "text"),
    "time without time zone": ("interval", "text"),
    "interval": ("time without time zone", "text"),
    "uuid": ("text",),
    "jsonb": ("json", "text"),
    "json": ("jsonb", "text"),
    "inet": ("text",),
    "bytea": ("text",),
    "integer[]": ("text[]",),
    "text[]": ("text",),
    "int4range": ("text",),
}
