"""Version 1: containers, networks, volumes, leases, ports, events, projects and facts."""

from __future__ import annotations

STATEMENTS = (
    """CREATE TABLE containers (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        project TEXT NOT NULL DEFAULT '',
        phase TEXT NOT NULL,
        created REAL NOT NULL,
        spec TEXT NOT NULL,
        state TEXT NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE networks (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created REAL NOT NULL,
        data TEXT NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE volumes (
        name TEXT PRIMARY KEY,
        created REAL NOT NULL,
        data TEXT NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE leases (
        network TEXT NOT NULL,
        address TEXT NOT NULL,
        container TEXT NOT NULL,
        PRIMARY KEY (network, address)
    ) WITHOUT ROWID""",
    "CREATE INDEX leases_container ON leases (container)",
    """CREATE TABLE ports (
        protocol TEXT NOT NULL,
        host_ip TEXT NOT NULL,
        published INTEGER NOT NULL,
        target INTEGER NOT NULL,
        container TEXT NOT NULL,
        PRIMARY KEY (protocol, host_ip, published)
    ) WITHOUT ROWID""",
    "CREATE INDEX ports_container ON ports (container)",
    """CREATE TABLE events (
        number INTEGER PRIMARY KEY,
        time REAL NOT NULL,
        type TEXT NOT NULL,
        action TEXT NOT NULL,
        subject TEXT NOT NULL,
        attributes TEXT NOT NULL
    )""",
    """CREATE TABLE projects (
        name TEXT PRIMARY KEY,
        working_dir TEXT NOT NULL,
        files TEXT NOT NULL,
        desired TEXT NOT NULL,
        updated REAL NOT NULL
    ) WITHOUT ROWID""",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)
