"""``python -m guvnor``."""

from guvnor.cli import main

main()
