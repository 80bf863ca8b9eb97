"""Start a worker: `python -m worker`."""

import os

# Before the import, at which prometheus_client reads it. The API's processes count together there; a worker
# counts for itself, also where `.env` names the folder to all.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

from worker.app import main

main()
