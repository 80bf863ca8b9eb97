"""The options of a submission, from form fields and query parameters; none is ever accepted and ignored."""

import json
import re
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from werkzeug.datastructures import MultiDict

from shared.errors import InvalidRequest, WebhookRefused, WebhooksOff
from shared.schemas import Priority
from shared.settings import Settings
from shared.webhook_address import MOST_URL_CHARACTERS, ForbiddenAddress, check_url


def _is_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected printable characters")
    return text


def _decimal(text: str) -> str:
    # Python reads more: 1_0, digits of every alphabet, blanks around them.
    if not re.fullmatch(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", text):
        raise ValueError("expected a decimal number")
    return text


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("expected true or false")
    return text.lower() == "true"


_Flag = Annotated[bool, BeforeValidator(_flag)]


class BatchOptions(BaseModel):
    """What a caller may state for all items of a batch; descriptions are what an error says was expected."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    expires_in: Annotated[float, Field(gt=0, le=7 * 86_400), BeforeValidator(_decimal)] | None = Field(
        default=None, description="seconds that the job may wait in the queue, over 0 and at most 604800"
    )
    model_version: Annotated[str, Field(max_length=40)] | None = Field(
        default=None, description="a model version such as 1.1.0"
    )
    mpp: Annotated[float, Field(ge=0.05, le=10), BeforeValidator(_decimal)] | None = Field(
        default=None, description="micrometres per pixel, from 0.05 to 10"
    )
    webhook_url: Annotated[str, Field(min_length=1, max_length=MOST_URL_CHARACTERS)] | None = Field(
        default=None, description="an http:// or https:// URL of at most 2000 characters"
    )
    cache: _Flag = Field(
        default=True, description="true or false: the answer may be that of an earlier job for the same image"
    )

    def canonical(self) -> str:
        """Return the same text for the same options, in whatever order and spelling they came."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True)


class Options(BatchOptions):
    """What a caller may state beside one image."""

    priority: Priority = Field(
        default=Priority.INTERACTIVE, description="interactive, or bulk for one of many"
    )
    explain: _Flag = Field(default=False, description="true or false: make a heat map too")
    custom_id: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_is_printable)] | None = (
        Field(default=None, description="1 to 128 printable characters")
    )


_Options = TypeVar("_Options", bound=BatchOptions)


def read_options(query: MultiDict[str, str], form: MultiDict[str, str], kind: type[_Options]) -> _Options:
    """Return the options of one request.

    Raises:
        InvalidRequest: if one is unknown, given twice, or out of range.
    """
    given: dict[str, str] = {}
    for name, value in [*query.items(multi=True), *form.items(multi=True)]:
        if name not in kind.model_fields:
            known = ", ".join(kind.model_fields)
            # A part of a form may have no name at all.
            raise InvalidRequest(f"Expected only the options {known}. Received: {(name or '')[:40]!r}")
        if name in given:
            raise InvalidRequest(f"Expected the option {name} once. It came more than once.")
        if "\N{REPLACEMENT CHARACTER}" in value:
            # What stands for bytes that are no text.
            raise InvalidRequest(f"Expected {name} in UTF-8. Received: {value[:40]!r}")
        given[name] = value
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        expected = kind.model_fields[name].description
        raise InvalidRequest(f"Expected {name} to be {expected}. Received: {given[name][:40]!r}") from None


def check_webhook(url: str | None, settings: Settings) -> None:
    """Return if this installation may send something there, as far as that can be told without a look-up.

    Raises:
        WebhooksOff: if it sends none.
        InvalidRequest: if that is no URL that a webhook may have.
        WebhookRefused: if its host is an address that nothing is sent to.
    """
    if url is None:
        return
    if not settings.webhook_secrets:
        raise WebhooksOff("Expected no webhook_url: this installation has no secret to sign webhooks with.")
    try:
        check_url(url, settings.webhook_allowed)
    except ForbiddenAddress as error:
        raise WebhookRefused(f"Expected a webhook_url that something may be sent to. {error}") from None
    except ValueError as error:
        raise InvalidRequest(f"Expected webhook_url to be a URL. {error}") from None
