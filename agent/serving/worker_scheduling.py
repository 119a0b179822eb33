"""Who gets the processor first: the front, then the workers that answer, last what loads or leaves.

    front                     SCHED_FIFO 2      takes and sends bytes, microseconds each
    worker that is ready      SCHED_FIFO 1      answers; its guard, which only wakes to end a monopoly, 2
    worker that loads         normal, nice 19   as does one that was told to end
    candidate in the shadow   SCHED_IDLE        compares when nobody else wants the processor
    fork server, daemon       normal            a restart must not wait behind other programs

Whoever uses a processor for a fifth of a second without one pause (a model that loops, a flood of requests) goes
on in the normal class for a while, so that nobody else starves; a second later the kernel would kill it. Rights
that are missing cost a few milliseconds at a swap, nothing else. Python 3.10 syntax.

I/O: disk, process, tasks, clock.
"""

import contextlib
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator

FRONT = 2
WORKER = 1
GENTLE = 19  # nice value
REALTIME = "realtime"
OFF = "normal: switched off"
IDLE = "idle"
UNBROKEN_SECONDS = 0.2  # on a processor without a pause
_KILL_SECONDS = 30.0  # the kernel's own limit, should nothing else have worked
_REST_SECONDS = (2.0, 5.0, 15.0, 60.0)  # in the normal class, after the first, second, ... time
_PAUSE_SECONDS = 0.001
_MICRO = 1_000_000
_NORMAL = os.SCHED_OTHER | os.SCHED_RESET_ON_FORK
_REALTIME = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK


class Priority:
    """The class of all threads of this process. `level` is that of SCHED_FIFO; 0: never leave the normal class.

    Made before a sandbox closes /proc, and before libraries have threads, if it is to be `guarded`.
    """

    def __init__(self, level: int, *, guarded: bool = False) -> None:
        if guarded:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGXCPU])  # inherited: only `guard` may take it
        self._level = level
        self._tasks = os.open("/proc/self/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._gentle = False
        self._times = 0
        self._rests_until = 0.0

    def be_gentle(self) -> bool:
        """Let everybody else go first. False where nothing could undo that: then nothing is done."""
        if not may_rise():
            return False
        self._renice(GENTLE)
        self._gentle = True
        return True

    def rise(self) -> str:
        """Serve from now on. What was reached: REALTIME, or "normal" and why."""
        if self._gentle:
            self._renice(0)
            self._gentle = False
        if self._level == 0:
            return OFF
        try:
            self._limit()
            for task in self._threads():
                os.sched_setscheduler(task, _REALTIME, os.sched_param(self._level))
        except (OSError, ValueError) as error:
            self._sink()
            return f"normal: {error}"
        time.sleep(_PAUSE_SECONDS)  # what was used before a rest no longer counts
        return REALTIME

    def stay_behind(self) -> str:
        """Run only when nobody else does, for good. What was reached."""
        try:
            for task in self._threads():
                os.sched_setscheduler(task, os.SCHED_IDLE | os.SCHED_RESET_ON_FORK, os.sched_param(0))
        except OSError as error:
            self._renice(GENTLE)
            return f"normal, nice {GENTLE}: {error}"
        return IDLE

    def sink(self) -> float:
        """Back to the normal class: this process used a processor without a pause. Seconds to stay there."""
        self._sink()
        rest = _REST_SECONDS[min(self._times, len(_REST_SECONDS) - 1)]
        self._times += 1
        self._rests_until = time.monotonic() + rest
        with contextlib.suppress(OSError, ValueError):
            self._limit()  # the kernel raised it by a second when it sent the signal
        return rest

    def rise_when_rested(self) -> None:
        """Undo `sink` when it has lasted long enough."""
        if self._rests_until and time.monotonic() >= self._rests_until:
            self._rests_until = 0.0
            self.rise()

    def leave(self) -> None:
        """This process ends: giving back its memory shall disturb nobody."""
        self._sink()
        self._renice(GENTLE)

    def guard(self) -> None:
        """Start the thread that sinks this process when native code keeps a processor to itself. Call it risen."""
        threading.Thread(target=self._watch, name="guard", daemon=True).start()

    def _watch(self) -> None:
        while True:
            with contextlib.suppress(OSError, ValueError):
                os.sched_setscheduler(0, _REALTIME, os.sched_param(self._level + 1))
            signal.sigwait([signal.SIGXCPU])
            time.sleep(self.sink())
            self.rise_when_rested()

    def _limit(self) -> None:
        hard = resource.getrlimit(resource.RLIMIT_RTTIME)[1]
        most = int(_KILL_SECONDS * _MICRO)
        if hard == resource.RLIM_INFINITY or hard > most:
            hard = most
        resource.setrlimit(resource.RLIMIT_RTTIME, (min(int(UNBROKEN_SECONDS * _MICRO), hard), hard))

    def _sink(self) -> None:
        for task in self._threads():
            with contextlib.suppress(OSError):
                os.sched_setscheduler(task, _NORMAL, os.sched_param(0))

    def _renice(self, nice: int) -> None:
        for task in self._threads():
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, task, nice)

    def _threads(self) -> Iterator[int]:
        """Those of libraries too: priority belongs to the thread, and a session has its own."""
        yield from (int(name) for name in os.listdir(self._tasks))


def may_rise() -> bool:
    """Whether this process may raise its priority again after lowering it."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, 1)
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    except OSError:
        return False
    return True
