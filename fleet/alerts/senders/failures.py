"""Why a message did not get through, sorted by what helps.

I/O: none.
"""

from shared.errors import RefusedError, UnavailableError


class ChannelDownError(UnavailableError):
    """The channel does not take anything now; it is tried again."""

    code = "E_CHANNEL_DOWN"
    default_remedy = "look at the other side, then: flotilla alert test CHANNEL"


class ChannelSetupError(UnavailableError):
    """Something on this machine is missing; it is tried again, since people mend that."""

    code = "E_CHANNEL_SETUP"
    default_remedy = "correct `channels` in fleet.yaml, then: flotilla alert test CHANNEL"


class MessageRefusedError(RefusedError):
    """The channel took the message apart and refuses it for good."""

    code = "E_MESSAGE_REFUSED"
    default_remedy = "flotilla alert deliveries shows what was said"
