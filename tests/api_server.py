"""The real API over services in memory, on a free port, with a clerk that answers as the worker would."""

import threading
from types import TracebackType
from typing import Any, Self

from flask import Response
from werkzeug.serving import WSGIRequestHandler, make_server

from api import create_app
from api.context import context
from ops.processes import wait_until
from ops.servers import HOST, free_port
from shared.archive import Archive
from shared.schemas import Job, JobError, WorkerStatus, wall_clock_ms
from shared.services import in_memory
from shared.settings import Settings
from tests.factories import png_bytes, write_model
from tests.work import claim, fail, succeed

HEATMAP = png_bytes()
RESULT = {
    "class": "lung_aca",
    "label": "Lung adenocarcinoma",
    "confidence": 0.972,
    "probabilities": {"lung_n": 0.011, "lung_aca": 0.972, "lung_scc": 0.017},
    "cancer_probability": 0.989,
    "verdict": "classified",
    "reasons": [],
    "quality": {"background_fraction": 0.03, "sharpness": 214.0, "domain_distance": 2.1},
}
#: A tile of this width fails, as one that cannot be decoded.
FAILING_WIDTH = 33


class ApiServer:
    """A server to submit to; while `is_working` is cleared, jobs stay queued."""

    def __init__(self, folder: Any, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self._is_over = threading.Event()
        self._under_way = 0
        self._lock = threading.Lock()
        #: How far the ledger's clock is ahead of the machine's.
        self.ahead_ms = 0
        self.services = in_memory(self.settings, lambda: wall_clock_ms() + self.ahead_ms)
        self.services.models.publish(write_model(folder / "model"))
        self.app = create_app(self.services, self.settings)
        #: How many requests were told that the queue is full.
        self.refused = 0
        self.app.after_request(self._count)
        context(self.app).waiting.stop_when(self._is_over.is_set)
        self.port = free_port()
        self.is_working = threading.Event()
        self.is_working.set()
        #: Answers may be those of later jobs for the same image, too.
        self.remembers = False

    def __enter__(self) -> Self:
        self._server = make_server(HOST, self.port, self._serve, threaded=True, request_handler=_Quiet)
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True),
            threading.Thread(target=self._work, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A request that is held back would speak in the middle of a later test.
        self._is_over.set()
        assert wait_until(lambda: self._under_way == 0, 10)
        self._server.shutdown()
        for thread in self._threads:
            thread.join(10)
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{HOST}:{self.port}"

    @property
    def jobs(self) -> list[Job]:
        """Every job that was ever accepted."""
        return [record.job for record in self.services.jobs._records.values()]  # type: ignore[attr-defined]

    def _serve(self, environ: Any, start_response: Any) -> Any:
        with self._lock:
            self._under_way += 1
        try:
            return self.app(environ, start_response)
        finally:
            with self._lock:
                self._under_way -= 1

    def _count(self, answer: Response) -> Response:
        self.refused += answer.status_code == 429
        return answer

    def _work(self) -> None:
        reported_at = 0
        while not self._is_over.wait(0.002):
            if wall_clock_ms() - reported_at > 1000:
                reported_at = wall_clock_ms()
                self.services.workers.report(
                    WorkerStatus(
                        name="clerk", model_name="lung-cnn", model_version="1.0.0", reported_at_ms=reported_at
                    )
                )
            for messages in (self.services.queue.messages, self.services.queue.bulk_messages):  # type: ignore[attr-defined]
                while self.is_working.is_set() and messages:
                    self._answer(messages.popleft()[0])

    def _answer(self, job_id: str) -> None:
        jobs = self.services.jobs
        job = claim(jobs, job_id)
        if job is None:
            return
        if job.spec.input.width == FAILING_WIDTH:
            error = JobError(code="INVALID_IMAGE", detail="Expected a JPEG. It breaks off.")
            fail(jobs, job_id, error)
        else:
            if job.spec.explain:
                Archive(self.services.objects).put_heatmap(job_id, HEATMAP)
            answer_key = job.spec.answer_key if self.remembers else None
            succeed(jobs, job_id, RESULT, timings_ms={"fetch": 1}, answer_key=answer_key)


class _Quiet(WSGIRequestHandler):
    #: A connection is kept, as it is by the server that is deployed.
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Say nothing."""
