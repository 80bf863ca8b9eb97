"""API keys: who may ask, and for what; kept in the object store, as digests alone.

Not in Redis, which is disposable: a wiped one must never open the door. A key is one object that never
changes, its revocation another, so that an installation which had a key once never counts as having none.
"""

import hashlib
import hmac
import re
import secrets
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from shared.object_store import ObjectStore
from shared.schemas import wall_clock_ms

#: Where the keys lie.
KEYS = "keys/"
_REVOKED = ".revoked"
#: What a key is: its id in 16 hexadecimal digits, and 256 random bits in 43 characters.
_FORM = re.compile(r"hq_(?P<id>[0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_MOST_BYTES = 10_000


class Scope(StrEnum):
    """What a key allows; `admin` includes the others, for every job."""

    SUBMIT = "submit"
    READ = "read"
    ADMIN = "admin"


class ApiKey(BaseModel):
    """What is kept of a key: nothing that would let anybody in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    #: The operator's word for who has it.
    name: str = Field(min_length=1, max_length=100)
    scopes: frozenset[Scope]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created_at_ms: int

    @property
    def is_admin(self) -> bool:
        """It may see and change the jobs of others."""
        return Scope.ADMIN in self.scopes

    def allows(self, scope: Scope) -> bool:
        """Tell whether it may do what needs this scope."""
        return self.is_admin or scope in self.scopes


class KeyStore:
    """The keys of one installation; every method raises ObjectStoreUnavailable."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def create(self, name: str, scopes: frozenset[Scope]) -> tuple[ApiKey, str]:
        """Return a new key's record and the key itself, which is kept nowhere."""
        key_id = secrets.token_hex(8)
        text = f"hq_{key_id}_{secrets.token_urlsafe(32)}"
        record = ApiKey(
            id=key_id, name=name, scopes=scopes, sha256=_sha256(text), created_at_ms=wall_clock_ms()
        )
        self._objects.put(f"{KEYS}{key_id}.json", record.model_dump_json().encode(), "application/json")
        return record, text

    def revoke(self, key_id: str) -> None:
        """Let a key open nothing any more; safe to repeat.

        Raises:
            KeyError: if there never was one with this id.
        """
        if f"{KEYS}{key_id}.json" not in self._objects.list_keys(KEYS):
            raise KeyError(key_id)
        self._objects.put(f"{KEYS}{key_id}{_REVOKED}", b"{}", "application/json")

    def read(self, known: "KeyRing | None" = None) -> "KeyRing":
        """Return all keys; a record never changes, so those that are `known` are not read again."""
        names = self._objects.list_keys(KEYS)
        ids = [name[len(KEYS) :].removesuffix(".json") for name in names if name.endswith(".json")]
        revoked = {name[len(KEYS) :].removesuffix(_REVOKED) for name in names if name.endswith(_REVOKED)}
        before = known.records if known else {}
        records = {key_id: before.get(key_id) or self._record(key_id) for key_id in ids}
        return KeyRing(records, frozenset(revoked))

    def _record(self, key_id: str) -> ApiKey | None:
        try:
            return ApiKey.model_validate_json(self._objects.get(f"{KEYS}{key_id}.json", _MOST_BYTES))
        except (FileNotFoundError, ValueError):
            # It opens nothing, and it still counts as a key.
            return None


class KeyRing:
    """All keys at one time, by id; None stands for a record that cannot be read."""

    def __init__(self, records: dict[str, ApiKey | None], revoked: frozenset[str]) -> None:
        self.records = records
        self.revoked = revoked

    @property
    def is_empty(self) -> bool:
        """No key was ever made, not even one that is revoked."""
        return not self.records and not self.revoked

    def find(self, text: str) -> ApiKey | None:
        """Return the key that this is, if it is one and is not revoked."""
        form = _FORM.fullmatch(text)
        if form is None or form["id"] in self.revoked:
            return None
        record = self.records.get(form["id"])
        if record is None or not hmac.compare_digest(record.sha256, _sha256(text)):
            return None
        return record


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
