"""What the document cannot say to the fuzzer: which bytes are an image, which version is published."""

import re
import uuid
from typing import Any

import schemathesis
from hypothesis import strategies as st

from tests.factories import jpeg_bytes, png_bytes, tiff_bytes, zip_bytes

_IMAGES = {"jpeg": jpeg_bytes(), "png": png_bytes(), "tiff": tiff_bytes()}

schemathesis.openapi.format("binary", st.sampled_from(list(_IMAGES.values())))
schemathesis.openapi.format("object-key", st.integers(0, 9).map(lambda number: f"incoming/{number}.png"))
schemathesis.openapi.format("model-version", st.just("1.0.0"))
schemathesis.openapi.format(
    "printable", st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=128)
)
schemathesis.openapi.format("webhook-url", st.just("https://receiver.example.org/hook?a=1"))
schemathesis.openapi.media_type(
    "application/zip", st.just(zip_bytes({f"{name}.{name}": body for name, body in _IMAGES.items()}))
)
for kind, image in _IMAGES.items():
    schemathesis.openapi.media_type(f"image/{kind}", st.just(image))
schemathesis.openapi.media_type("application/octet-stream", st.sampled_from(list(_IMAGES.values())))


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Say what makes a request sound beside its form: its key is its own, and so is each item's name."""
    # One that came before belongs to another image, and is refused.
    key = (case.headers or {}).get("Idempotency-Key")
    if key and re.fullmatch(r"[!-~]([ -~]{0,253}[!-~])?", str(key)):
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    is_sound = case.meta is not None and case.meta.generation.mode == schemathesis.GenerationMode.POSITIVE
    if is_sound and isinstance(case.body, dict) and "keys" in case.body:
        case.body["keys"] = list({_name(item): item for item in case.body["keys"]}.values())
    if is_sound and isinstance(case.body, dict) and "file" in case.body:
        # An option is given once, in the query or in the form.
        for name in case.body.keys() & (case.query or {}).keys():
            del case.query[name]


def _name(item: Any) -> str:
    """Return what an item of a list of keys is called."""
    given = {"key": item} if isinstance(item, str) else item
    return str(given.get("custom_id", given["key"].removeprefix("incoming/")))
