"""orchestra: compose files on plain Linux."""

__version__ = "0.1.0"
