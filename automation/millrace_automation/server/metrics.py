"""What the server counts. The library adds the process itself: processor time, memory, descriptors."""

from prometheus_client import Counter, Gauge, Histogram

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

jobs = Counter('millrace_runner_jobs', 'Jobs that ended, by outcome; REFUSED were given back unused.', ['outcome'])
running = Gauge('millrace_runner_running_jobs', 'Jobs that run now.')
held = Gauge('millrace_runner_held_jobs', 'Jobs of a dispatcher that run or whose result is not confirmed.')
slots = Gauge('millrace_runner_slots', 'How many jobs the server runs at once.')
slots_free = Gauge('millrace_runner_free_slots', 'How many more jobs it would start now.')
output_bytes = Gauge('millrace_runner_unconfirmed_output_bytes', 'Output that waits to be sent or confirmed.')
output_queue = Gauge('millrace_runner_output_queue_jobs', 'Jobs with output that waits to be sent.')
start_seconds = Histogram('millrace_runner_start_seconds', 'From a job being accepted to its script running.', buckets=_FAST)
starts = Counter('millrace_runner_starts', 'Jobs that started, by whether their process had run before.', ['process'])
parked = Gauge('millrace_runner_parked_processes', 'Processes that wait for another run of the same revision and user.')
kept_ends = Counter('millrace_runner_kept_process_ends', 'Processes that were kept, or were to be, and ended, by reason.', ['reason'])
tier = Gauge('millrace_runner_sandbox_tier', 'The tier of the sandbox as its self-test found it.')
epoch = Gauge('millrace_runner_session_epoch', 'The epoch of the session in force.')
rpcs = Histogram(
    'millrace_runner_rpc_seconds', 'Calls by method and code; streams when they end.', ['method', 'code'], buckets=(*_FAST, 60)
)
