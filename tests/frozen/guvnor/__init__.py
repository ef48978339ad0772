"""The package of this checkout with frozen models: it stands before the real one on the path."""

from __future__ import annotations

from pathlib import Path

_REAL = Path(__file__).resolve().parents[3] / "guvnor"
__path__.append(str(_REAL))
__file__ = str(_REAL / "__init__.py")
exec(Path(__file__).read_text(encoding="utf-8"))
