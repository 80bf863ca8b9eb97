"""Every Redis key and channel, named once."""

#: Hash: one job's record.
JOB = "job:"
#: Sorted set of ids that are not final -> deadline in ms. An id is in it exactly while its job is open.
OPEN = "jobs:open"
#: Hash: API key -> how many of its jobs are open.
OWNED = "jobs:owned"
#: Sorted set of queued interactive ids -> when their message was published, in ms; and that of bulk ids.
PUBLISHED = "jobs:published"
PUBLISHED_BULK = "jobs:published:bulk"
#: Sorted set of ids -> when the reaper must look at them, in ms: the end of a running job's lease, or of a
#: released job's hold-off. Every open id is either here or in one of PUBLISHED.
LEASED = "jobs:leased"
#: Sorted set of ended ids -> when their image, and after it their result, is to be dropped, in ms.
ENDED = "jobs:ended"
#: Sorted set of ended ids whose outcome is not in the object store yet -> when to put it there, in ms.
UNARCHIVED = "jobs:unarchived"
#: String: there once everything that the object store knows is in the ledger. A Redis that lost its data
#: lost this too.
FOUNDED = "jobs:founded"
#: String with a time to live: somebody compares the object store with the ledger right now. It is a word of
#: whoever does, and the name of the server's run.
SWEEPING = "jobs:sweeping"
#: The name of the run where a comparison was made lately.
SWEPT = "jobs:swept"
#: Hash: number of a ten-second interval -> jobs that ended in it; with `:bulk` behind it, bulk ones alone.
DRAINED = "jobs:drained"
#: Hash: number of a ten-second interval -> ms of it in which some job was open; `since`, while one is: from
#: when on that is still to be noted.
BUSY = "jobs:busy"
#: Hash: accepted, retried, and each final status -> how many jobs came to it since this ledger began.
COUNTED = "jobs:counted"
#: Hash: one batch, with a count for each status that its members are in. `:jobs` behind it: the list of their
#: ids, as accepted; `:ended`: the list of ids that ended, as they did.
BATCH = "batch:"
#: Hash: one event of a job that is told to a webhook, and what became of that.
WEBHOOK = "webhook:"
#: Sorted set of hosts (as URLs name them) -> when the next of their deliveries is to be looked at, in ms.
WEBHOOK_HOSTS = "webhooks:hosts"
#: Sorted set of one host's deliveries that wait -> when the next attempt is due, in ms.
WEBHOOK_DUE = "webhooks:due:"
#: Sorted set of one host's deliveries that are being made -> when they count as broken off, in ms.
WEBHOOK_FLYING = "webhooks:flying:"
#: Sorted set of deliveries that are not at an end -> when their event was, or the wish for them, in ms.
WEBHOOKS_PENDING = "webhooks:pending"
#: Hash: how attempts and deliveries ended -> how many of them.
WEBHOOKS_COUNTED = "webhooks:counted"
#: The Celery queue (a list) of messages to those who deliver.
WEBHOOK_QUEUE = "celery-webhooks"
#: String: "<fingerprint> <id of the job or the batch>", by the digest of an idempotency key.
IDEMPOTENCY = "idempotency:"
#: String: id of a job that succeeded, by the digest of what it answered: image, scale, model, owner.
ANSWER = "answer:"
#: Channel: "<id> <status>" of each job whose status changed.
CHANGES = "jobs:changes"
#: Set: the names of workers that have reported, some of them gone.
WORKERS = "workers"
#: String with a time to live: one worker's last report.
WORKER = "worker:"
#: String with a time to live: why some worker cannot begin.
WORKER_TROUBLE = "worker:trouble"
#: Counters of requests by API key; what follows is named by the library that keeps them.
RATES = "rates:"
#: The Celery queues (lists) of inference messages: those of interactive and those of bulk jobs.
INFERENCE_QUEUE = "celery-inference"
BULK_QUEUE = "celery-inference-bulk"
