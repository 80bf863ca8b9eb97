"""The page docs/reference/errors.md, out of the table of problems: `python -m api.error_reference`."""

import argparse
from pathlib import Path

from shared.problems import PROBLEMS, anchor

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "errors.md"
_HEAD = """\
# Errors

Written by `python -m api.error_reference`; a test compares.

Every answer that is neither 2xx nor 3xx is `application/problem+json` (RFC 9457):

| member | meaning |
|---|---|
| `type` | leads to a heading of this page as the server itself has it, `/docs/errors` |
| `title` | what went wrong, always the same for one code |
| `status` | the status code once more |
| `detail` | what was expected and what came |
| `instance` | the path of the request, or of the job |
| `code` | the word for programs; the ones below are all there are |
| `retryable` | the same request may succeed later; `Retry-After` says in how many seconds |
| `request_id` | finds the request in the log |
| `limit` | with `REQUEST_TOO_LARGE`, `IMAGE_TOO_LARGE`, and with every 429: the most |
| `queue_depth` | with `QUEUE_FULL`, `QUOTA_REACHED`: how many jobs are open, of the key with the latter |
| `problems` | with `NOTHING_VALID`: one for each of the first 100 items, with its `custom_id` |
| `reasons`, `checks` | with `NOT_READY`: what is missing |

A job that ended without a result carries the same object as its `error`. The request for it is then a
success (200), and `status` is the one that a request with this error would have.
"""


def reference_page() -> str:
    """Return the page's Markdown."""
    parts = [_HEAD]
    for code, kind in sorted(PROBLEMS.items()):
        retry = "yes" if kind.retryable else "no"
        parts.append(
            f"## {anchor(code)}\n\n"
            f"`{code}` · {kind.status} · retryable: {retry}\n\n"
            f"{kind.title}. {kind.advice}\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m api.error_reference", description="Write docs/reference/errors.md anew."
    ).parse_args()
    PAGE.write_text(reference_page(), encoding="utf-8", newline="\n")
