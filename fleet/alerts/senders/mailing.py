"""Send a message by SMTP, in a thread: the library waits for the server, the manager does not.

I/O: network, disk, tasks.
"""

import smtplib
import ssl
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final

from fleet.alerts.channels import Email
from fleet.alerts.senders.failures import ChannelDownError, ChannelSetupError, MessageRefusedError
from fleet.alerts.senders.secret_files import secret
from fleet.alerts.senders.threads import in_thread
from fleet.alerts.wording import Message

_PORTS: Final = {"starttls": 587, "tls": 465, "none": 25}


async def mail(settings: Email, said: Message, now: datetime) -> str:
    """What the server answered, such as `accepted for 2 recipients`.

    Raises:
        ChannelDownError: the server does not answer, or not now.
        ChannelSetupError: password or certificate are missing, or the server does not take them.
        MessageRefusedError: no recipient was accepted, or the message was not.
    """
    password = secret(settings.password, settings.password_file) if settings.username else ""
    letter = _letter(settings, said, now)
    limit = settings.timeout_seconds * 2  # each step of the talk has its own
    try:
        return await in_thread(lambda: _send(settings, password, letter), limit)
    except TimeoutError:
        raise ChannelDownError(f"the mail server did not end in {limit:g} s") from None


def _letter(settings: Email, said: Message, now: datetime) -> EmailMessage:
    letter = EmailMessage()
    letter["From"], letter["To"] = settings.sender, ", ".join(settings.recipients)
    letter["Subject"] = said.heading
    letter["Date"] = format_datetime(now)
    domain = settings.sender.rpartition("@")[2].strip("> ") or "flotilla"
    letter["Message-ID"] = f"<{said.id}@{domain}>"  # a repeat has the same one, and mail programs show it once
    letter["Auto-Submitted"] = "auto-generated"
    letter["Flotilla-Delivery"] = said.id
    letter.set_content(said.text + "\n")
    return letter


def _send(settings: Email, password: str, letter: EmailMessage) -> str:
    try:
        with _connected(settings) as server:
            if settings.username is not None:
                server.login(settings.username, password)
            refused = server.send_message(letter, from_addr=settings.sender, to_addrs=list(settings.recipients))
    except smtplib.SMTPAuthenticationError as error:
        raise ChannelSetupError(f"the mail server refuses the password: {_said(error)}") from error
    except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError, smtplib.SMTPSenderRefused) as error:
        if _for_good(error):
            raise MessageRefusedError(f"the mail server refuses the message: {error}"[:300]) from error
        raise ChannelDownError(f"the mail server does not take it now: {error}"[:300]) from error
    except ssl.SSLCertVerificationError as error:
        remedy = "set ca_file to the CA of the mail server, or correct host"
        raise ChannelSetupError(f"the mail server's certificate: {error.verify_message}", remedy=remedy) from error
    except (smtplib.SMTPException, OSError) as error:
        raise ChannelDownError(f"{type(error).__name__}: {error}"[:300]) from error
    taken = len(settings.recipients) - len(refused)
    lost = f"; refused for {', '.join(refused)}" if refused else ""
    return f"accepted for {taken} recipient{'s' if taken != 1 else ''}{lost}"


def _connected(settings: Email) -> smtplib.SMTP:
    port = settings.port or _PORTS[settings.security]
    if settings.security == "tls":
        return smtplib.SMTP_SSL(settings.host, port, timeout=settings.timeout_seconds, context=_trusted(settings))
    server = smtplib.SMTP(settings.host, port, timeout=settings.timeout_seconds)
    if settings.security == "starttls":
        try:
            server.starttls(context=_trusted(settings))
        except BaseException:
            server.close()
            raise
    return server


def _trusted(settings: Email) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise ChannelSetupError(f"{settings.ca_file}: {error}", remedy="give the CA's certificate as PEM") from error


def _said(error: smtplib.SMTPResponseException) -> str:
    text = error.smtp_error
    return f"{error.smtp_code} {text.decode(errors='replace') if isinstance(text, bytes) else text}"[:200]


def _for_good(error: smtplib.SMTPException) -> bool:
    """5xx is meant for ever, 4xx for now (greylisting)."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    return isinstance(error, smtplib.SMTPResponseException) and error.smtp_code >= 500
