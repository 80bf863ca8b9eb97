"""`python -m ops.keys`: make, list and revoke API keys.

python -m ops.keys create --name NAME [--scope submit|read|admin ...]    prints the key, this once
python -m ops.keys list
python -m ops.keys revoke ID

Beside `make up` it finds the servers by itself; else they are named by the usual variables. Servers know of a
change after about five seconds.
"""

import argparse
import sys
from datetime import UTC, datetime

from ops.installation import reach
from shared.api_keys import KeyStore, Scope
from shared.errors import HistoQueueError, explain


def create(store: KeyStore, name: str, scopes: list[str]) -> None:
    """Make a key; only the key itself goes to standard output, so that it can be piped into a file."""
    record, text = store.create(name, frozenset(map(Scope, scopes)))
    print(f"id {record.id}, {_scopes(record.scopes)}. Keep the key: it is shown this once.", file=sys.stderr)
    print(text)


def show(store: KeyStore) -> None:
    """Print a line for each key."""
    ring = store.read()
    if not ring.records:
        print("there is no key: without one, everybody on this machine may do everything", file=sys.stderr)
    for key_id, record in sorted(ring.records.items()):
        state = "revoked" if key_id in ring.revoked else "valid"
        if record is None:
            print(f"{key_id}  {state}  cannot be read")
        else:
            print(f"{key_id}  {state}  {_day(record.created_at_ms)}  {_scopes(record.scopes)}  {record.name}")


def revoke(store: KeyStore, key_id: str) -> None:
    """Let a key open nothing any more.

    Raises:
        SystemExit: if there is none with this id.
    """
    try:
        store.revoke(key_id)
    except KeyError:
        raise SystemExit(f"error: there is no key {key_id!r}; `python -m ops.keys list` shows them") from None
    print(f"revoked {key_id}; its jobs can be read by an admin's key alone")


def main(arguments: list[str] | None = None) -> int:
    """Do one of the three; returns the exit status."""
    chosen = _parser().parse_args(arguments)
    store = KeyStore(reach().objects)
    try:
        if chosen.command == "create":
            create(store, chosen.name, chosen.scope or [Scope.SUBMIT, Scope.READ])
        elif chosen.command == "list":
            show(store)
        else:
            revoke(store, chosen.id)
    except HistoQueueError as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops.keys", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("create")
    made.add_argument("--name", required=True, type=_name, help="who has it, in the operator's words")
    made.add_argument(
        "--scope", action="append", choices=list(Scope), help="repeatable; submit and read where left out"
    )
    commands.add_parser("list")
    commands.add_parser("revoke").add_argument("id")
    return parser


def _name(text: str) -> str:
    if not (0 < len(text) <= 100 and text.isprintable()):
        raise argparse.ArgumentTypeError("expected 1 to 100 printable characters")
    return text


def _day(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d}"


def _scopes(scopes: frozenset[Scope]) -> str:
    return "+".join(sorted(scopes))


if __name__ == "__main__":
    sys.exit(main())
