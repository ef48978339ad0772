"""Which addresses does a connection not leave this machine for?"""

from __future__ import annotations

import pytest

from guvnor.postgres import tls


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("", True),
        ("/var/run/postgresql", True),
        ("@abstract", True),
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.5", False),
        ("192.168.1.1", False),
        ("0.0.0.0", False),
        ("fe80::1%eth0", False),
        ("::ffff:10.0.0.5", False),
        ("localhost.example", False),
    ],
)
def test_which_addresses_are_local(address, local):
    assert tls.is_local(address) == local
