"""What of a message would not fit our tables or pages, though it is of the right form.

I/O: none.
"""

from typing import Final

from shared.errors import BadInputError
from shared.messages import Queued, TelemetryWindow, UpdateReport

MAX_NUMBER: Final = 2**53
MAX_STREAM: Final = 64
MAX_FEATURES: Final = 256
MAX_ERROR_KINDS: Final = 32
MAX_NAME: Final = 64


def check(message: Queued) -> None:
    """Nothing, if it fits.

    Raises:
        BadInputError: a number or a name is too long, or there are too many.
    """
    if not 0 < len(message.stream) <= MAX_STREAM:
        raise BadInputError("the name of the stream is too long")
    numbers = [message.sequence, message.after]
    names: list[str] = []
    if isinstance(message, UpdateReport):
        numbers += [message.assignment, message.fetched_bytes or 0, message.total_bytes or 0]
        numbers += (message.sources or {}).values()
        names += [message.rollout or "", *(message.sources or {})]
    if isinstance(message, TelemetryWindow):
        numbers += [message.requests, message.labelled, message.correct, message.restarts, message.shed]
        numbers += [*message.errors.values(), *message.latency.values(), *message.batches.values()]
        numbers += [value for triple in message.confusion for value in triple]
        names += [message.boot, *message.features, *message.errors]
        if len(message.features) > MAX_FEATURES or len(message.errors) > MAX_ERROR_KINDS:
            raise BadInputError("too many features or kinds of errors in one window")
    if max(numbers) > MAX_NUMBER or any(len(name) > MAX_NAME for name in names):
        raise BadInputError("a number or a name is too long")
