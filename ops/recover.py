"""`python -m ops.recover`: compare the object store with the ledger now, and take in what the ledger lost.

Workers do the same by themselves: at once when Redis has or may have lost data, and every half hour. It
changes nothing where nothing is lost, and may be run at any time, beside anything.
"""

import argparse
import sys

from ops.installation import reach
from shared.errors import HistoQueueError, explain
from shared.logs import configure_logs
from shared.settings import Settings, read_settings
from shared.sweep import Sweep


def main(arguments: list[str] | None = None) -> int:
    """Compare once; returns the exit status: 0 done, 1 not done."""
    argparse.ArgumentParser(
        prog="python -m ops.recover",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(arguments)
    services = reach()
    settings = read_settings(Settings)
    configure_logs(settings.log_level, settings.log_json)
    try:
        swept = Sweep(services, settings).run()
    except HistoQueueError as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    if swept is None:
        print("error: another process is comparing them right now; try again in a minute", file=sys.stderr)
        return 1
    print(
        f"{swept.restored} jobs restored, {swept.removed} objects past their retention removed, "
        f"{swept.not_understood} uploads not understood"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
