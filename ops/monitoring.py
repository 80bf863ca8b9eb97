"""The passwords of compose's profile `monitoring`, apart from those of the servers that it looks at."""

import hashlib
import secrets
from pathlib import Path
from urllib.parse import urlsplit

from ops.files import write_once

FLOWER = "flower"
#: Flower hears what the workers tell, asks whether any is there, and reads how long the queues are. It
#: can take, change or send no message of ours, and no worker listens to its commands.
FLOWER_RIGHTS = (
    "resetkeys resetchannels &/0.celeryev/* &/0.celery.pidbox"
    " ~_kombu.binding*celeryev ~_kombu.binding*celery.pidbox ~_kombu.binding_deadlines"
    " ~celeryev.* ~*.reply.celery.pidbox* ~flower:* %R~celery-inference*"
    " -@all +hello +auth +select +ping +time +client|setinfo +client|setname +multi +exec"
    " +llen +brpop +get +set +del +sadd +srem +zadd +zrem +zrange +zrangebyscore +zrevrangebyscore"
    " +publish +psubscribe +punsubscribe +evalsha +script|load +script|exists"
)


def make_monitoring(servers: Path, folder: Path, redis_host: str) -> None:
    """Fill the `folder` that Prometheus, Grafana and Flower mount; tell `servers` what they must know of it.

    Whatever is there already is kept. Redis learns of its user at its next start.
    """
    write_once(servers / "metrics_key", secrets.token_hex(24))
    write_once(folder / "metrics_key", (servers / "metrics_key").read_text())
    write_once(folder / "grafana_password", secrets.token_hex(12))
    write_once(folder / "flower_auth", f"histoqueue:{secrets.token_hex(12)}")
    write_once(folder / "flower_url", f"redis://{FLOWER}:{secrets.token_hex(24)}@{redis_host}:6379/0")
    password = urlsplit((folder / "flower_url").read_text()).password or ""
    _let_in(servers / "redis.conf", password)


def _let_in(redis_settings: Path, password: str) -> None:
    digest = hashlib.sha256(password.encode()).hexdigest()
    line = f"user {FLOWER} on #{digest} {FLOWER_RIGHTS}"
    lines = redis_settings.read_text().splitlines()
    if line not in lines:
        kept = [other for other in lines if not other.startswith(f"user {FLOWER} ")]
        write_once(redis_settings, "\n".join([*kept, line, ""]), anew=True)
