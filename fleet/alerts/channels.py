"""What an operator may say of a channel: `channels:` of `fleet.yaml`, one entry for each, named as they like.

A secret is given by a file (`password_file`), by the environment (FLOTILLA_CHANNELS__EMAIL__PASSWORD) or, where the
file `fleet.yaml` itself is kept secret, in place. It is never shown: its type prints stars.

I/O: none.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, SecretStr, model_validator

from fleet.alerts.states import Severity, Told

ChannelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]

#: Hosts that are this machine by their very name.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


#: `ana@example.org`, or `Flotilla <fleet@example.org>`.
MailAddress = Annotated[str, Field(pattern=r"^([^<>@\r\n]*<)?[^\s<>@,;]+@[^\s<>@,;]+>?$", max_length=320)]


def web_address(url: str) -> str:
    """`url`, if it is one that may be posted to; `ValueError` otherwise."""
    parts = urlsplit(url)
    try:
        (parts.hostname or "").encode("idna")
        sound = parts.port != 0
    except ValueError:
        sound = False
    if not sound or not parts.hostname or parts.scheme not in ("http", "https") or parts.username or parts.password:
        raise ValueError("a URL such as https://hooks.example.org/flotilla is needed, without user and password")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise ValueError("https is needed; http is taken for 127.0.0.1, ::1 and localhost alone")
    return url


def _secret_address(url: SecretStr) -> SecretStr:
    try:
        web_address(url.get_secret_value())
    except ValueError as error:
        raise ValueError(str(error)) from None
    return url


class Settings(BaseModel):
    """What every channel has."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    min_severity: Severity = "low"  # what is less grave is not told here
    events: tuple[Told, ...] = ("opened", "worsened", "escalated", "resolved")
    retraining: bool = False  # gets retraining requests (`alerts.auto_trigger_retraining`)
    timeout_seconds: PositiveFloat = 10.0


class Email(Settings):
    """SMTP. `recipients` all get the same message."""

    kind: Literal["email"]
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)] | None = None  # None: 587, 465 with tls, 25 with none
    security: Literal["starttls", "tls", "none"] = "starttls"
    ca_file: Path | None = None  # of a mail server with a certificate of your own
    username: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    sender: MailAddress
    recipients: Annotated[tuple[MailAddress, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if self.username is not None and self.security == "none" and self.host not in LOOPBACK:
            raise ValueError("a password would cross the network in the clear; set security to starttls or tls")
        if self.username is not None and (self.password is None) == (self.password_file is None):
            raise ValueError("username needs either password or password_file")
        return self


class _Posted(Settings):
    allow_private: bool = False  # addresses of private networks and of this machine may be posted to
    ca_file: Path | None = None


class Webhook(_Posted):
    """A signed POST of our own JSON."""

    kind: Literal["webhook"]
    url: Annotated[str, AfterValidator(web_address)]
    secret: SecretStr | None = None
    secret_file: Path | None = None

    @model_validator(mode="after")
    def _signed(self) -> Self:
        if (self.secret is None) == (self.secret_file is None):
            raise ValueError("either secret or secret_file is needed: the receiver verifies the signature with it")
        if self.secret is not None and len(self.secret.get_secret_value()) < 16:
            raise ValueError("the secret is shorter than 16 characters; make one with: openssl rand -hex 32")
        return self


class _Incoming(_Posted):
    url: Annotated[SecretStr, AfterValidator(_secret_address)] | None = None  # who knows it may post
    url_file: Path | None = None

    @model_validator(mode="after")
    def _addressed(self) -> Self:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("either url or url_file is needed")
        return self


class Slack(_Incoming):
    """An incoming webhook of Slack, or of a chat that takes the same form."""

    kind: Literal["slack"]


class Teams(_Incoming):
    """A workflow of Microsoft Teams that takes adaptive cards by webhook."""

    kind: Literal["teams"]


class Apprise(Settings):
    """Anything that the package `apprise` knows, by its URLs."""

    kind: Literal["apprise"]
    urls: tuple[SecretStr, ...] = ()
    urls_file: Path | None = None  # one URL a line

    @model_validator(mode="after")
    def _addressed(self) -> Self:
        if bool(self.urls) == (self.urls_file is not None):
            raise ValueError("either urls or urls_file is needed")
        return self


class Custom(Settings):
    """A handler that another package brings, by an entry point of the group `flotilla.alert_handlers`."""

    kind: Literal["custom"]
    handler: Annotated[str, Field(min_length=1)]
    options: dict[str, Any] = Field(default_factory=dict, exclude=True, repr=False)  # handed over; never shown


Channel = Annotated[Email | Webhook | Slack | Teams | Apprise | Custom, Field(discriminator="kind")]
