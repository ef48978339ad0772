"""What a difference means in production: one sentence for each kind of object and attribute."""

from __future__ import annotations

from collections.abc import Sequence

from guvnor.schema.snapshot import Object

_UNKNOWN = "No revision creates it: a later one may collide with its name."

_MISSING = {
    "table": "Every query that names this table fails, and its data is not in this database.",
    "foreign table": "Every query that names this foreign table fails.",
    "column": "Every query that names this column fails, and its data is not in this database.",
    "constraint": "The database accepts rows that the application considers impossible.",
    "index": "Queries that rely on it scan the whole table: the bigger the table, the slower they are.",
    "trigger": "What the trigger keeps up to date goes stale without an error.",
    "function": "Triggers, defaults and queries that call it fail, or were dropped with it.",
    "procedure": "Every CALL of it fails.",
    "aggregate": "Every query that uses it fails.",
    "type": "Columns of this type were dropped with it, and queries that cast to it fail.",
    "sequence": "Whatever takes its next number from it fails.",
    "view": "Every query that names this view fails.",
    "materialized view": "Every query that names this view fails, and its stored result is gone.",
    "rule": "Statements that the rule should rewrite run unchanged.",
    "policy": "With row security on, rows that this policy shows are hidden, or hidden ones show.",
    "statistics": "The planner no longer knows how these columns depend on each other, and may misestimate.",
    "extension": "Defaults, queries and indexes lack the extension's functions, types and operator classes.",
    "default privileges": "Tables of future revisions will lack these privileges.",
}

_UNEXPECTED = {
    "table": f"{_UNKNOWN} A rollback does not remove it.",
    "foreign table": "No revision creates it, and queries on it reach another server.",
    "column": f"{_UNKNOWN} If it is NOT NULL without a default, every INSERT of the application fails.",
    "constraint": "The database refuses rows that the application considers valid, with an unknown error.",
    "index": "It slows down every write and takes disk space; a unique one also refuses rows.",
    "trigger": "It runs with every statement on the table and may change, refuse or slow down writes.",
    "function": "No revision creates it, and it may be called instead of another one of the same name.",
    "type": _UNKNOWN,
    "sequence": _UNKNOWN,
    "view": "No revision creates it, and it blocks changes to the columns that it shows.",
    "materialized view": "No revision creates it; it blocks changes to columns, and REFRESH takes time.",
    "rule": "It rewrites statements on the table before they run: they may do something else, or nothing.",
    "policy": "Once row security is on for the table, it decides which rows a role sees and changes.",
    "statistics": "It changes the planner's estimates and slows down ANALYZE.",
    "extension": "No revision creates it; a server without it cannot restore a copy of this database.",
    "default privileges": "Every object that this role creates grants these privileges to others.",
    "event trigger": "It runs with DDL statements, including the next migration, and may refuse them.",
    "publication": "Subscribers receive changes; without a replica identity, UPDATE and DELETE are refused.",
    "subscription": "Another server writes into tables of this database.",
    "cast": "Expressions may use another conversion, or become ambiguous.",
    "operator": "Expressions may use another operator than the expected one.",
}

# By attribute; a key with a kind before it wins.
_DIFFERENT = {
    "kind": "It is another kind of object, which stores other things and allows other statements.",
    "owner": "Only its owner may alter it, so the next migration may fail on it.",
    "comment": "Only the description differs; the behavior is the same.",
    "name": "Queries and error handling that use the expected name fail, and a later revision may fail, too.",
    "type": "Values may be refused, truncated or stored differently, and comparisons may not use an index.",
    "collation": "Text sorts and compares differently, and an index of another collation is not used.",
    "column order": "SELECT *, COPY and INSERT without a column list use another order of columns.",
    "persistence": "An UNLOGGED table loses its contents in a crash and is empty on a standby.",
    "options": "It is stored, vacuumed or checked with other settings than expected.",
    "toast options": "Long values are stored or vacuumed with other settings than expected.",
    "row security": "Row security hides or shows other rows than expected.",
    "row security forced": "Whether the policies apply to the table's owner differs from what is expected.",
    "replica identity": "Logical replication identifies rows differently, or refuses updates and deletes.",
    "access method": "It is stored or searched by another method: cost and supported operators differ.",
    "tablespace": "It is stored on another disk: speed, free space and backups may differ.",
    "inherits from": "Queries on another table include its rows, or do not, contrary to what is expected.",
    "partition bound": "Rows go to another partition, or are refused.",
    "partition key": "Rows are distributed over the partitions differently.",
    "populated": "The stored result is missing: queries on the view fail until REFRESH MATERIALIZED VIEW.",
    "foreign server": "Its rows come from another server.",
    "definition": "It behaves differently than expected.",
    "not null": "Rows without a value get in where NOT NULL is expected; otherwise such INSERTs fail.",
    "not null constraint": "NOT NULL has another name or is not validated: rows without a value may exist.",
    "default": "Rows inserted without a value for it get another one, none, or an error.",
    "generated": "The column is computed differently than expected.",
    "identity generation": "Numbers for new rows are generated differently: INSERTs may fail or collide.",
    "storage": "Long values are compressed or moved out of the row differently; reads may take longer.",
    "compression": "New long values are compressed with another method.",
    "statistics target": "ANALYZE samples more or fewer values than expected, so plans may change.",
    "statistics targets": "ANALYZE samples more or fewer values than expected, so plans may change.",
    "foreign options": "The column is read from another place.",
    "constraint definition": "The database accepts or refuses other rows than the application expects.",
    "validated": "New rows are checked, but older rows may violate it, and the planner does not rely on it.",
    "deferrable": "Whether a transaction can postpone the check to its commit differs from what is expected.",
    "initially deferred": "It is checked at another moment, the statement or the commit, than expected.",
    "not inherited": "Child tables are checked differently.",
    "enforcement": "The foreign key's triggers are disabled: rows without a counterpart get in unnoticed.",
    "index valid": "Its index is invalid: uniqueness is not guaranteed, and queries do not use it.",
    "clustered": "The next CLUSTER of the table orders its rows by another index, or by none.",
    "index definition": "Queries that rely on it may scan the whole table; a unique one guards other rows.",
    "unique": "Duplicates get in, or rows are refused, contrary to what is expected.",
    "predicate": "It covers other rows: queries that rely on it scan the table; a unique one guards others.",
    "included columns": "Queries that read only this index must also read the table, or the index is bigger.",
    "valid": "It is invalid: queries do not use it, writes still maintain it, and it guarantees nothing.",
    "attached to": "It is not part of the index of the partitioned table.",
    "state": "It runs when it should not, or does not run when it should; nothing reports an error.",
    "command": "The policy applies to other statements.",
    "mode": "A restrictive policy narrows what permissive ones allow: other rows are seen and changed.",
    "roles": "The policy applies to other roles.",
    "using": "The policy's roles see other rows than expected.",
    "with check": "The policy's roles may write other rows than expected.",
    "labels": "Values that the application writes may be refused, and rows may sort in another order.",
    "constraints": "Other values are accepted.",
    "body": "The function does something else than the revision says.",
    "sql body": "The function does something else than the revision says.",
    "arguments": "Calls that rely on names or defaults of arguments may fail.",
    "result": "Callers get another type than they expect.",
    "language": "The function is run by another language.",
    "volatility": "The planner calls it more or less often than it should, and may refuse it in an index.",
    "parallel": "It may run, or no longer run, in parallel workers.",
    "strict": "It handles NULL arguments differently.",
    "security definer": "It runs with its owner's privileges, or no longer does: check the security.",
    "leakproof": "The planner may run it before row security and views filter rows: check the security.",
    "settings": "It runs with other settings; a changed search_path is a security risk.",
    "cost": "The planner weighs it differently.",
    "rows": "The planner weighs it differently.",
    "start": "A restart begins at another number.",
    "increment": "Numbers are handed out in other steps.",
    "maximum": "Numbers run out earlier or later than expected.",
    "minimum": "Numbers run out earlier or later than expected.",
    "cycle": "When the numbers run out, it restarts or fails, contrary to what is expected.",
    "cache": "Each session reserves a different number of values at once: gaps differ.",
    "owned by": "Whether it is dropped with its column differs from what is expected.",
    "extension content": "It is in another schema: the application does not find its functions and types.",
    "content": "It is defined differently.",
}


_GRANTEES = "Name those that are meant to in schema.grantees (GUVNOR_SCHEMA_GRANTEES)."


def missing(item: Object) -> str:
    """Return what it means that an object is missing."""
    if item.kind == "constraint" and item.attributes.get("type") in ("primary key", "unique", "exclusion"):
        return "Duplicates get in, and queries and foreign keys lose the index that they rely on."
    if item.kind == "constraint" and item.attributes.get("type") == "foreign key":
        return "Rows without a counterpart get in, and deletes no longer cascade or fail as they should."
    return _MISSING.get(item.kind, "What relies on it fails.")


def unexpected(item: Object) -> str:
    """Return what it means that an object exists that should not."""
    if item.attributes.get("valid") is False:
        return "Its build was interrupted: queries do not use it, and every write still maintains it."
    return _UNEXPECTED.get(item.kind, "No revision creates it.")


def different(expected: Object, actual: Object, names: Sequence[str]) -> str:
    """Return what it means that attributes differ; if several do, the most important one counts."""
    telling = [n for n in names if n != "definition"] or list(names)
    # What it does matters more than its description and its owner.
    first = next((n for n in telling if n not in ("comment", "owner")), telling[0])
    if first == "clustered" and not actual.attributes.get("clustered"):
        return "CLUSTER without an index name no longer orders the table by it."
    return _DIFFERENT.get(f"{expected.kind} {first}") or _DIFFERENT.get(first, "It is not what is expected.")


def privileges(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """Return what it means that privileges differ."""
    if missing and unexpected:
        what = "Some roles may do less, others more, than the revisions and the configuration say."
        return f"{what} {_GRANTEES}"
    if missing:
        return "Statements of these roles fail with 'permission denied'."
    what = "These roles may do more than the revisions, the default privileges and the configuration say."
    return f"{what} {_GRANTEES}"
