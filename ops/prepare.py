"""`python -m ops.prepare`: what a new installation needs before its servers start, and is not needed again.

python -m ops.prepare webhook-secret      print a new secret to sign webhooks with
python -m ops.prepare passwords FOLDER [MONITORING [WEBHOOKS]]
                                          make the passwords, and each program's settings with them
python -m ops.prepare bucket              make the bucket, and fill it with the bundled model if it has none
"""

import argparse
import base64
import secrets
import sys
import time
from pathlib import Path

from ops.files import write_once
from ops.monitoring import make_monitoring
from shared.errors import HistoQueueError, NoModel, explain
from shared.object_store import WORKER_PATIENCE
from shared.services import Services, from_settings
from shared.settings import Settings, read_settings

BUNDLED_MODELS = Path(__file__).resolve().parent.parent / "models"
#: Its name among compose's services.
REDIS_HOST = "redis"
#: How long the object store may take to come up.
PATIENCE_SECONDS = 60.0


def make_passwords(folder: Path) -> bool:
    """Write the passwords into a folder that only the servers mount; False where they are there already.

    `redis_url` is read by the API and the workers, `redis.conf` by Redis, `s3_key` by the object store,
    `aws_credentials` by whoever talks to it, and `webhook_secret` signs what webhooks are told.
    """
    # First, and alone: an installation of an earlier version lacks it.
    write_once(folder / "webhook_secret", webhook_secret())
    if (folder / "redis_url").exists():
        return False
    password, key, secret = (secrets.token_hex(24) for _ in range(3))
    files = {
        "redis.conf": f'requirepass "{password}"\n',
        "s3_key": f'"{key},{secret}"',
        "aws_credentials": f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n",
        # Last: its presence says that all of them are there.
        "redis_url": f"redis://:{password}@{REDIS_HOST}:6379/0",
    }
    for name, text in files.items():
        write_once(folder / name, text, anew=True)
    return True


def share_with_webhooks(servers: Path, folder: Path) -> None:
    """Copy what telling webhooks takes, without the object store's key, into a `folder` that it mounts alone.

    It sends to hosts that users name.
    """
    for name in ("redis_url", "webhook_secret"):
        write_once(folder / name, (servers / name).read_text(), anew=True)


def webhook_secret() -> str:
    """Return a new secret as Standard Webhooks writes it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def make_bucket(services: Services, may_publish: bool = True) -> str:
    """Make the bucket and publish the bundled model into it, unless it has one; say what is live.

    Raises:
        NoModel: if there is none and `may_publish` is False: the models' bucket is one that is only read.
    """
    services.objects.ensure_bucket()
    try:
        live, how = services.models.live(), "found model {} in the bucket"
    except NoModel:
        if not may_publish:
            raise
        # A bucket that has a model is its operator's affair; this one is empty.
        live, how = services.models.publish(newest_bundled_model()), "published the bundled model {}"
    return how.format(f"{live.name} {live.version}")


def newest_bundled_model() -> Path:
    """Return the folder of the bundled version with the highest number."""
    folders = [path for path in BUNDLED_MODELS.iterdir() if path.is_dir()]
    return max(folders, key=lambda path: tuple(map(int, path.name.rpartition("-")[2].split("."))))


def main(arguments: list[str] | None = None) -> int:
    """Do one of them; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ops.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("webhook-secret")
    passwords = commands.add_parser("passwords")
    passwords.add_argument("folder", type=Path)
    passwords.add_argument("monitoring", type=Path, nargs="?", help="what only Prometheus and its like mount")
    passwords.add_argument("webhooks", type=Path, nargs="?", help="what only the service webhooks mounts")
    commands.add_parser("bucket")
    chosen = parser.parse_args(arguments)
    if chosen.command == "passwords":
        made = make_passwords(chosen.folder)
        if chosen.monitoring:
            make_monitoring(chosen.folder, chosen.monitoring, REDIS_HOST)
        if chosen.webhooks:
            share_with_webhooks(chosen.folder, chosen.webhooks)
        print("made passwords" if made else "passwords are there already")
        return 0
    if chosen.command == "webhook-secret":
        print(webhook_secret())
        return 0
    return _prepare_bucket()


def _prepare_bucket() -> int:
    settings = read_settings(Settings)
    services = from_settings(settings, WORKER_PATIENCE)
    end, said = time.monotonic() + PATIENCE_SECONDS, ""
    while True:
        try:
            print(make_bucket(services, may_publish=settings.model_bucket is None))
        except HistoQueueError as error:
            line = explain(error)
            if time.monotonic() > end:
                print(f"error: {line}", file=sys.stderr)
                return 1
            if line != said:
                print(f"waiting: {line}", file=sys.stderr)
                said = line
            time.sleep(1)
        else:
            return 0


if __name__ == "__main__":
    sys.exit(main())
