"""The inference endpoint of the device: applications ask, a worker per loaded version answers.

    client -> connection (framing ●, routes ●) -> front (dispatch ●, arena) -> worker (worker_oip ●, worker_session)
                 replies ●, documents ●: what needs no worker        |  requests and answers lie in the arena
    gRPC client -> grpc_door (a process: grpc_schema, grpc_translate ●, grpc_questions ●) -> grpc_front -> front
                 orders, pending, accounts: parts of the front       |  worker_plan ●, worker_batch ●: do it once
                 lending (clients, regions): memory of clients -> worker_regions
    listeners, listener_store: the sockets, which outlive every process; probing: does the whole way work
    daemon:  supervisor -> runner, one per loaded version            |  worker_wire ●: who has which place in it
                 gate (child: front)   door (child: grpc_door)   forking (child: fork_server -> forks the workers)
                 observations ●: what was seen, on its way to telemetry and probation
    worker_scheduling, worker_wait: who gets the processor first; who stays awake for the next request

    shadow (front) lends what was answered to a candidate -> worker_shadow (worker_shadow_wire ●, worker_compare ●)
    shadow_runner (daemon) keeps its process and its counts; no request ever goes to it

    worker_placement ●: what may stay on the CPU    worker_check: does the GPU come up at all (doctor)
    providers ●: which of them may run a version    loading ●: what a worker is asked to load, and why it does not
    engines: what they compile, kept for each model and runtime (worker_facts); worker_memory: what a model takes

    trial, worker: worker_sandbox (worker_landlock, worker_seccomp) shuts each in before it opens a model

Start with supervisor (what the agent calls), then front and dispatch (one request), then worker. A front that dies
or hangs is replaced while the daemon holds the listening sockets, which systemd keeps when the daemon dies; a worker
that dies is replaced while another version, or the queue, takes its requests; all of them end with the daemon
(worker_leash). The worker family, fork_server and trial keep to Python 3.10 and import only numpy, onnxruntime and
the standard library.
"""
