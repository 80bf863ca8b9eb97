"""The text of the Lua scripts, as they lie in `shared/lua/`."""

from importlib import resources

from shared import keys


def read(name: str) -> str:
    """Return one file's text."""
    return (resources.files("shared") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def webhook_functions() -> str:
    """Return what stands before every script: the names of the webhooks' keys, and what is done with them.

    The names cannot come as KEYS: which of them a job's end touches follows from its record.
    """
    names = {
        "webhook": keys.WEBHOOK,
        "webhook_hosts": keys.WEBHOOK_HOSTS,
        "webhook_due": keys.WEBHOOK_DUE,
        "webhook_flying": keys.WEBHOOK_FLYING,
        "webhooks_pending": keys.WEBHOOKS_PENDING,
        "webhooks_counted": keys.WEBHOOKS_COUNTED,
    }
    lines = [f"local {name} = '{key}'" for name, key in names.items()]
    return "\n".join([*lines, read("webhooks")])
