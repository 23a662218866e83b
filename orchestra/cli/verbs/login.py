"""``orchestra login [SERVER]``: check credentials against a registry and keep them.

They are kept where docker keeps them (a credential helper, or ``~/.docker/config.json``), so that both
programs use the same.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from orchestra.errors import OrchestraError, UsageError

HELP = "Log in to a registry"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("server", nargs="?", default="docker.io", metavar="SERVER")
    parser.add_argument("-u", "--username", default="", help="user name")
    parser.add_argument("-p", "--password", default=None, help="password or token (visible to others in ps)")
    parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")


def run(context: Any, args: argparse.Namespace) -> int:
    from orchestra.images.registry.credentials import Credentials
    from orchestra.images.registry.login import login

    if args.password is not None and args.password_stdin:
        raise UsageError("--password and --password-stdin cannot be used together")
    if args.password is not None:
        print("warning: --password is visible in the process list; use --password-stdin", file=sys.stderr)
    if args.password_stdin and not args.username:
        raise UsageError("--password-stdin needs --username")
    username = args.username or _ask("Username: ")
    password = _password(args)
    if not username or not password:
        raise UsageError("user name and password must not be empty")
    place = login(args.server, Credentials(username, password), environ=context.environ)
    print(f"Login Succeeded (kept in {place})")
    return 0


def _password(args: argparse.Namespace) -> str:
    if args.password_stdin:
        return sys.stdin.read().rstrip("\r\n")
    if args.password is not None:
        return str(args.password)
    if not sys.stdin.isatty():
        raise OrchestraError("no terminal to ask for the password", hint="use --password-stdin")
    import getpass

    return getpass.getpass("Password: ", stream=sys.stderr)


def _ask(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise OrchestraError("no terminal to ask for the user name", hint="use --username")
    print(prompt, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()
