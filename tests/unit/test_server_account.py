"""Is a system on which root cannot run the local server as another user explained?"""

from __future__ import annotations

import os
import pwd

import pytest

from guvnor.embedded import programs
from guvnor.errors import ExitCode, LocalServerError


def test_a_system_without_the_user_nobody_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> pwd.struct_passwd:
        raise KeyError(f"getpwnam(): name not found: {name!r}")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    with pytest.raises(LocalServerError, match="no user named nobody") as raised:
        programs.server_account()
    assert raised.value.exit_code == ExitCode.PREFLIGHT
    assert raised.value.next_step
    assert raised.value.state == programs.NOTHING_STARTED
