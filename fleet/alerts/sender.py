"""One message to one channel, by the way that its settings name.

I/O: network, disk, tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.alerts.channels import Apprise, Channel, Custom, Email, Slack, Teams, Webhook
from fleet.alerts.senders import mailing, others, posting

if TYPE_CHECKING:
    from datetime import datetime

    from fleet.alerts.wording import Message


async def send(settings: Channel, said: Message, now: datetime) -> str:
    """What the other side answered.

    Raises:
        ChannelDownError, ChannelSetupError: try again later.
        MessageRefusedError: this message never gets through.
    """
    match settings:
        case Email():
            return await mailing.mail(settings, said, now)
        case Webhook() | Slack() | Teams():
            return await posting.post(settings, said, now)
        case Apprise():
            return await others.apprise(settings, said)
        case Custom():
            return await others.custom(settings, said)
