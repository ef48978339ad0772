"""Whether a change of a table touches its rows: the server shows it on the empty tables of the shadow."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg2

from guvnor.postgres import rows
from guvnor.schema.shadow import Shadow

# Of the table and of all its partitions, which hold the rows. The last value tells whether there is none.
_FILES_AND_SCANS = """
    WITH tables AS (
        SELECT %(table)s::regclass AS oid
        UNION
        SELECT relid FROM pg_catalog.pg_partition_tree(%(table)s::regclass)
    )
    SELECT array_agg(pg_relation_filenode(t.oid) ORDER BY t.oid),
           ARRAY(SELECT pg_relation_filenode(i.indexrelid) FROM pg_catalog.pg_index AS i
                 JOIN tables AS t ON t.oid = i.indrelid ORDER BY i.indexrelid::regclass::text),
           sum(s.seq_scan),
           bool_and(pg_relation_filenode(t.oid) IS NULL)
    FROM tables AS t LEFT JOIN pg_catalog.pg_stat_xact_user_tables AS s ON s.relid = t.oid
"""

# Models name the partitioned table alone; what a change does to rows, only a partition shows.
_PARTITION = "CREATE TABLE guvnor_probe_partition PARTITION OF {} "
_BOUNDS = ("DEFAULT", "FOR VALUES WITH (MODULUS 1, REMAINDER 0)")


def touches_rows(shadow: Shadow, table: str, statements: Sequence[str]) -> bool:
    """Run statements on the empty tables of the shadow; tell whether the last one touches the table's rows.

    It does when the files of the table or its indexes change, or when the table is scanned. The answer is
    also True when a statement fails.

    :param table: as SQL writes it.
    """
    named = {"table": table}
    try:
        with shadow.undone():
            before = rows(shadow.driver, _FILES_AND_SCANS, named)
            holds_none = before[0][-1]
            probes = (_PARTITION.format(table) + bounds for bounds in _BOUNDS)
            if holds_none and not any(map(shadow.attempt, probes)):
                return True
            for sql in statements:
                before = rows(shadow.driver, _FILES_AND_SCANS, named)
                shadow.execute(sql)
            return rows(shadow.driver, _FILES_AND_SCANS, named) != before
    except psycopg2.Error:
        return True
