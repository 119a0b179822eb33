"""One message to one channel, by the way that its settings name; whatever goes wrong becomes one of our errors.

I/O: network, disk, tasks.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fleet.alerts.channels import Apprise, Channel, Custom, Email, Slack, Teams, Webhook
from fleet.alerts.senders import mailing, others, posting
from fleet.alerts.senders.failures import ChannelDownError
from shared.errors import FlotillaError

if TYPE_CHECKING:
    from datetime import datetime

    from fleet.alerts.wording import Message

logger = logging.getLogger(__name__)


async def send(settings: Channel, said: Message, now: datetime) -> str:
    """What the other side answered.

    Raises:
        ChannelDownError, ChannelSetupError: try again later.
        MessageRefusedError: this message never gets through.
    """
    try:
        return await _sent(settings, said, now)
    except FlotillaError:
        raise
    except Exception as error:  # what an operator or a device wrote must not end the manager
        logger.exception("alert message broke its sender delivery=%s kind=%s", said.id, settings.kind)
        raise ChannelDownError(f"the message cannot be sent: {type(error).__name__}: {error}"[:300]) from error


async def _sent(settings: Channel, said: Message, now: datetime) -> str:
    match settings:
        case Email():
            return await mailing.mail(settings, said, now)
        case Webhook() | Slack() | Teams():
            return await posting.post(settings, said, now)
        case Apprise():
            return await others.apprise(settings, said)
        case Custom():
            return await others.custom(settings, said)
