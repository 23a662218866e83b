"""One sqlite connection shared by all threads under one lock.

WAL with synchronous=NORMAL: a commit costs no fsync, and a power cut loses at most the last commits,
never the file. What is deleted or replaced is overwritten (secure_delete), as values of secrets are among
it; the journal, which has them a little longer, goes when the file is closed. The schema is brought up to
date by the numbered migrations, each in a transaction of its own; a file from a newer program is refused.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestra.errors import OrchestraError
from orchestra.store.migrations import ALL

Row = Any  # a tuple in the order of the SELECT


class Database:
    """``transaction()`` nests: only the outermost one commits or rolls back."""

    def __init__(self, path: Path, *, migrations: Sequence[Sequence[str]] = ALL) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._depth = 0
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._prepare(migrations)
        except sqlite3.Error as error:
            raise OrchestraError(
                f"cannot open the database {path}: {error}",
                hint="move the file away to start with an empty one; containers are then forgotten",
            ) from None

    def _prepare(self, migrations: Sequence[Sequence[str]]) -> None:
        settings = (
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "busy_timeout=10000",
            "temp_store=MEMORY",
            "secure_delete=ON",
        )
        for pragma in settings:
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        if version > len(migrations):
            raise OrchestraError(
                f"the database {self.path} has schema version {version}, known is {len(migrations)}",
                hint="it was written by a newer orchestra; use that one",
            )
        for number in range(version, len(migrations)):
            with self.transaction():
                for statement in migrations[number]:
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version={number + 1}")

    @property
    def version(self) -> int:
        return int(self.query("PRAGMA user_version")[0][0])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._lock:
            if self._depth == 0:
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except BaseException:
                self._depth -= 1
                if self._depth == 0:
                    self._connection.execute("ROLLBACK")
                raise
            self._depth -= 1
            if self._depth == 0:
                self._connection.execute("COMMIT")

    def execute(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Runs one change (in the open transaction, else in one of its own); returns the rows changed."""
        with self._lock:
            return self._connection.execute(statement, values).rowcount

    def execute_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        with self.transaction():
            self._connection.executemany(statement, rows)

    def query(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    def close(self) -> None:
        with self._lock:
            self._connection.close()
