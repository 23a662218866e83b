"""``python -m orchestra``."""

from orchestra.cli.main import entry

entry()
