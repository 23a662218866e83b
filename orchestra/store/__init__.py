"""What the daemon remembers: one sqlite file, one writer (see store.py)."""
