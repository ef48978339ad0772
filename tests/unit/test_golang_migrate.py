"""Is the key of golang-migrate's lock computed as golang-migrate does?"""

from __future__ import annotations

from guvnor.migrate.locks import golang_key, golang_keys


def test_the_key_of_its_lock() -> None:
    assert golang_key("schema_name_1", "schema_name_2", "database_name") == 3743845847
    assert golang_keys("incidents") == (
        golang_key("public", "schema_migrations", "incidents"),
        golang_key("public", "schema_migrations", "/incidents"),
    )
