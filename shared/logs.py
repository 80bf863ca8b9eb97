"""Structured logs: pretty on a terminal, one JSON object a line elsewhere."""

import logging
import sys

import structlog


def configure_logs(level: str, as_json: bool) -> None:
    """Send everything, also what libraries log, through one format to standard error."""
    before: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    render: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([structlog.processors.format_exc_info] if as_json else []),
                render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # One line a task twice over, and one a request to the object store: ours say the same with the job's id.
    # Pillow tells what stands in an image beside its pixels, such as a patient's name.
    for name in ("celery.worker.strategy", "celery.app.trace", "botocore", "boto3", "urllib3", "PIL"):
        logging.getLogger(name).setLevel(logging.WARNING)
