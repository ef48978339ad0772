"""What happens to the values of a column whose type changes: the server tries it on a few of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from guvnor.postgres import scalar
from guvnor.postgres.quoting import constant
from guvnor.schema import column_ddl
from guvnor.schema.casts import SAMPLES
from guvnor.schema.shadow import Shadow

_PROBE = "guvnor_cast_probe"


@dataclass(frozen=True)
class Cast:
    """How a column's type changes.

    :ivar assignable: whether ALTER COLUMN ... TYPE does it without USING (PostgreSQL documentation, CREATE
        CAST, AS ASSIGNMENT): a value that does not fit is refused then, where an explicit cast cuts it.
    :ivar loses: whether it changes values without an error.
    """

    assignable: bool
    loses: bool


def try_out(shadow: Shadow, old: Mapping[str, Any], new: Mapping[str, Any]) -> Cast:
    """Try a change of type on a table of its own, which is undone.

    :param old: the attributes of the column before.
    :param new: those after.
    """
    with shadow.undone():
        was, becomes = column_ddl.type_of(old), column_ddl.type_of(new)
        if not shadow.attempt(f"CREATE TABLE {_PROBE} (value {was}, told text)"):
            return Cast(assignable=True, loses=False)
        alter = f"ALTER TABLE {_PROBE} ALTER COLUMN value TYPE {becomes}"
        with shadow.undone():
            assignable = shadow.attempt(alter)
        if not assignable:
            alter += f" USING CAST(value::text AS {new['type']})"
        back = f"CAST(value::text AS {old['type']})::text"
        for sample in SAMPLES:
            with shadow.undone():
                insert = f"INSERT INTO {_PROBE} (value) SELECT {constant(sample)}::{old['type']}"
                keep = f"UPDATE {_PROBE} SET told = value::text"
                if not shadow.attempt(f"{insert}; {keep}; {alter}"):
                    continue  # it is no value of the type, or the server refuses to change it
                compare = f"DELETE FROM {_PROBE} WHERE {back} IS NOT DISTINCT FROM told"
                if not shadow.attempt(compare) or scalar(shadow.driver, f"SELECT count(*) FROM {_PROBE}"):
                    return Cast(assignable, loses=True)
        return Cast(assignable, loses=False)
