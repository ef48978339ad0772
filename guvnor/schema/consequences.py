"""What a difference means in production: one sentence for each, chosen by kind and attribute."""

from __future__ import annotations

from collections.abc import Sequence

from guvnor.schema.snapshot import Object

_MISSING = {
    "table": "Every query of the application that names this table fails, and what it held is not here.",
    "foreign table": "Every query that names this foreign table fails.",
    "column": "Every query of the application that names this column fails, and what it held is not here.",
    "constraint": "The database accepts rows that the application takes for impossible.",
    "index": "Queries that rely on it scan the whole table; the bigger the table, the slower the page.",
    "trigger": "What the trigger keeps up to date goes stale without any error.",
    "function": "Triggers, defaults and queries that call it fail, or went away with it.",
    "procedure": "Every CALL of it fails.",
    "aggregate": "Every query that uses it fails.",
    "type": "Columns of this type went away with it, and queries that cast to it fail.",
    "sequence": "Whatever takes its next number from here fails.",
    "view": "Every query that names this view fails.",
    "materialized view": "Every query that names this view fails, and its stored result is gone.",
    "rule": "Statements that the rule should rewrite run as they are written.",
    "policy": "With row security on, rows that this policy opens are hidden; rows that it guards may be "
    "open.",
    "statistics": "The planner guesses again where these statistics told it how columns depend on each "
    "other.",
    "extension": "Functions, types and operator classes of the extension are not there for defaults, queries "
    "and indexes.",
    "default privileges": "Tables of future revisions will lack these privileges.",
}

_UNEXPECTED = {
    "table": "No revision knows it: a later revision may collide with its name, and a rollback will not "
    "remove it.",
    "foreign table": "No revision knows it, and queries on it reach another server.",
    "column": "No revision knows it: a later one may collide with its name; when NOT NULL without default, "
    "every INSERT "
    "of the application fails.",
    "constraint": "The database refuses rows that the application takes for valid, with an error that it "
    "does not know.",
    "index": "It costs time on every write and room on disk; a unique one also refuses rows.",
    "trigger": "It runs with every statement on the table and may change, refuse or slow down what the "
    "application writes.",
    "function": "No revision knows it; one of the same name may be called in place of the one that was "
    "meant.",
    "procedure": "No revision knows it.",
    "aggregate": "No revision knows it.",
    "type": "No revision knows it: a later one may collide with its name.",
    "sequence": "No revision knows it: a later one may collide with its name.",
    "view": "No revision knows it, and it stands in the way of changing or dropping the columns that it "
    "shows.",
    "materialized view": "No revision knows it; it stands in the way of changing columns, and its refresh "
    "costs time.",
    "rule": "It rewrites statements on the table before they run: they may do something else, or nothing.",
    "policy": "As soon as row security is on for the table, it decides which rows a role sees and changes.",
    "statistics": "It changes the planner's estimates and costs time at ANALYZE.",
    "extension": "No revision asks for it; a server without it cannot take a restored copy of this database.",
    "default privileges": "Every object that this role will make gives these privileges to others.",
    "event trigger": "It runs with DDL statements, those of the next migration included, and may refuse "
    "them.",
    "publication": "Changes to the tables flow to subscribers; an UPDATE or DELETE without replica identity "
    "is refused.",
    "subscription": "Another server writes into tables of this database.",
    "cast": "Expressions may choose another conversion, or become ambiguous.",
    "operator": "Expressions may choose another operator than the one that was meant.",
}

# By attribute; a key with a kind before it wins.
_DIFFERENT = {
    "kind": "It is another kind of object: what may be done with it, and what it stores, is not what was "
    "meant.",
    "owner": "Only its owner may alter it: the next migration may fail on it.",
    "comment": "Only the description differs; nothing behaves differently.",
    "name": "It has another name: queries and error handling that use the expected name fail, and so may a "
    "later revision.",
    "type": "Values that the application writes may be refused, cut or stored differently, and comparisons "
    "may not use "
    "an index.",
    "collation": "Text sorts and compares differently, and an index of another collation is not used.",
    "column order": "Rows come in another order of columns for SELECT *, COPY and INSERT without a list of "
    "columns.",
    "table persistence": "The persistence differs. The contents of an UNLOGGED table are lost in a crash, "
    "and missing on a "
    "standby.",
    "persistence": "It is not kept in a crash as was meant.",
    "options": "It is stored, vacuumed or checked by other settings than was meant.",
    "toast options": "Long values are stored or vacuumed by other settings than was meant.",
    "row security": "Row security decides which rows each role sees: rows are hidden, or open, against what "
    "was meant.",
    "row security forced": "Whether the policies hold for the table's owner too is not as was meant.",
    "replica identity": "Logical replication identifies changed rows differently, or refuses updates and "
    "deletes.",
    "access method": "It is stored or searched by another method: cost and supported operators differ.",
    "tablespace": "It is stored on another disk: speed, free space and backups may differ.",
    "inherits from": "Rows of this table appear in another table, or do not, against what was meant.",
    "partition bound": "Rows go to another partition, or are refused.",
    "partition key": "Rows are spread over partitions differently.",
    "populated": "The stored result is missing: every query of the view fails until REFRESH MATERIALIZED "
    "VIEW.",
    "foreign server": "Its rows come from another place.",
    "definition": "It does something else than was meant.",
    "not null": "Where it should be NOT NULL, rows without a value can get in; where it should not, INSERTs "
    "fail.",
    "not null constraint": "NOT NULL has another name or is not validated: rows without a value may be "
    "there.",
    "default": "Rows inserted without a value for it get another one, none, or an error.",
    "generated": "The column is not computed as was meant.",
    "identity generation": "Numbers for new rows are not made as was meant: INSERTs may fail or collide.",
    "storage": "Long values are compressed or moved out of the row in another way; reads may cost more.",
    "compression": "New long values are compressed by another method.",
    "statistics target": "The planner samples the values more, or less, than was meant: plans may change at "
    "ANALYZE.",
    "statistics targets": "The planner samples the values more, or less, than was meant: plans may change at "
    "ANALYZE.",
    "foreign options": "The column is read from another place.",
    "constraint definition": "The database accepts or refuses other rows than the application expects.",
    "validated": "New rows are checked, but rows that were there before may break it, and the planner does "
    "not rely on it.",
    "deferrable": "Whether it is checked at once or at the commit can be chosen differently than was meant.",
    "initially deferred": "It is checked at another moment, at the statement or at the commit, than was "
    "meant.",
    "not inherited": "Children of the table are checked differently.",
    "enforcement": "The triggers that enforce the foreign key are switched off: rows without a counterpart "
    "get in unnoticed.",
    "index valid": "Its index is invalid: uniqueness is not guaranteed, and queries do not use it.",
    "clustered": "The next CLUSTER of the table orders its rows by another index, or by none.",
    "index definition": "Queries that rely on it may scan the whole table, and it may refuse or allow other "
    "rows.",
    "unique": "Duplicates get in, or rows are refused, against what was meant.",
    "predicate": "It covers other rows: queries that rely on it scan the table, and a unique one guards "
    "other rows.",
    "included columns": "Queries that read only this index must now read the table as well, or the index is "
    "bigger.",
    "valid": "It is invalid: queries do not use it, every write still pays for it, and a unique one "
    "guarantees nothing.",
    "attached to": "It is not a part of the index of the partitioned table.",
    "state": "It does not run when it should, or runs when it should not; nothing reports an error.",
    "command": "The policy holds for other statements.",
    "mode": "A restrictive policy narrows what permissive ones open: other rows are seen and changed.",
    "roles": "The policy holds for other roles.",
    "using": "The roles of the policy see other rows than was meant.",
    "with check": "The roles of the policy may write other rows than was meant.",
    "labels": "Values that the application writes may be refused, and the order of values, by which rows are "
    "sorted, may differ.",
    "constraints": "Other values are accepted.",
    "body": "The function does something else than the revision says.",
    "sql body": "The function does something else than the revision says.",
    "arguments": "Calls that rely on names or defaults of arguments may fail.",
    "result": "Callers get another type than they expect.",
    "language": "The function is run by another language.",
    "volatility": "The planner calls it more, or less, often than is right, and may refuse it in an index.",
    "parallel": "It may run, or no longer run, in parallel workers.",
    "strict": "It answers calls with NULL arguments differently.",
    "security definer": "It runs with the rights of its owner, or no longer does: a question of security.",
    "leakproof": "The planner may run it before row security and views have filtered: a question of "
    "security.",
    "settings": "It runs under other settings; a changed search_path is a question of security.",
    "cost": "The planner weighs it differently.",
    "rows": "The planner weighs it differently.",
    "start": "A restart begins at another number.",
    "increment": "Numbers are handed out in other steps.",
    "maximum": "Numbers run out sooner or later than was meant.",
    "minimum": "Numbers run out sooner or later than was meant.",
    "cycle": "When the numbers run out, it starts again or fails, against what was meant.",
    "cache": "Each session takes another number of values at once: gaps differ.",
    "owned by": "It goes, or does not go, when the column is dropped.",
    "extension content": "It is in another schema: names of its functions and types are not found by the "
    "application.",
    "content": "It is defined differently.",
}  # fmt: skip


def missing(item: Object) -> str:
    """Return what it means that an object is not there."""
    if item.kind == "constraint" and item.attributes.get("type") in ("primary key", "unique", "exclusion"):
        return "Duplicates get in, and queries and foreign keys that rely on its index lose it."
    if item.kind == "constraint" and item.attributes.get("type") == "foreign key":
        return "Rows without a counterpart get in, and deletes no longer cascade or stop as was meant."
    return _MISSING.get(item.kind, "What relies on it fails.")


def unexpected(item: Object) -> str:
    """Return what it means that an object is there."""
    if item.attributes.get("valid") is False:
        return "An index build that was interrupted: queries do not use it, and every write pays for it."
    return _UNEXPECTED.get(item.kind, "No revision knows it.")


def different(expected: Object, actual: Object, names: Sequence[str]) -> str:
    """Return what it means that attributes differ; where several do, what the weightiest means."""
    telling = [n for n in names if n != "definition"] or list(names)
    # A difference in what it is weighs more than one in its description.
    first = next((n for n in telling if n not in ("comment", "owner")), telling[0])
    if first == "clustered" and not actual.attributes.get("clustered"):
        return "CLUSTER without an index no longer orders the table by it."
    return _DIFFERENT.get(f"{expected.kind} {first}") or _DIFFERENT.get(first, "It is not what was meant.")


def privileges(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """Return what it means that privileges differ."""
    if missing and unexpected:
        return "Some roles may do less, others more, than the revisions and the configuration say."
    if missing:
        return "Statements of these roles fail with 'permission denied'."
    return "These roles may do more than the revisions, the default privileges and the configuration say."
