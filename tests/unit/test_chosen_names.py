"""The names that the server gives, as they were seen on one."""

from __future__ import annotations

import pytest

from guvnor.online.chosen_names import chosen_name


@pytest.mark.parametrize(
    ("table", "columns", "label", "taken", "name"),
    [
        ("t", ["a"], "idx", (), "t_a_idx"),
        ("t", ["a", "b"], "key", (), "t_a_b_key"),
        ("t", [], "pkey", (), "t_pkey"),
        ("t", ["a"], "idx", ("t_a_idx", "t_a_idx1"), "t_a_idx2"),
        ("t" * 63, ["a"], "idx", (), "t" * 57 + "_a_idx"),
        ("t" * 40, ["c" * 40], "idx", (), "t" * 29 + "_" + "c" * 29 + "_idx"),
        ("t" * 63, [], "pkey", (), "t" * 58 + "_pkey"),
    ],
)
def test_a_name_is_made_as_the_server_makes_it(table, columns, label, taken, name):
    assert chosen_name(table, columns, label, taken) == name
