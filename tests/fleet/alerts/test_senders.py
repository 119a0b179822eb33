"""Each kind of channel, and where may be posted."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from fleet.alerts import sender, wording
from fleet.alerts.channels import Channel
from fleet.alerts.senders import destinations
from fleet.alerts.senders.failures import ChannelDownError, ChannelSetupError, MessageRefusedError
from fleet.settings import FleetSettings
from shared.configuration import ConfigurationError, load
from tests.fleet.alerts.conftest import email, webhook
from tests.simulators.receivers import Certificate, MailServer, WebReceiver, certificate

T0 = datetime(2026, 1, 1, tzinfo=UTC)
ITEM = {
    "alert": "al-1", "event": "opened", "kind": "security", "scope": "device:cam-1", "subject": "s", "site": "",
    "severity": "high", "text": "<b>*evil*</b>\r\nBcc: all@example.org", "at": "2026-01-01", "evidence": {},
}  # fmt: skip
SAID = wording.message("dl-1", "notification", {"items": [ITEM]}, group="g", at=T0, manager="http://fleet.test")


def channel(**values: Any) -> Channel:
    found: Channel = TypeAdapter(Channel).validate_python(values)
    return found


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("tls"))


async def test_mail_goes_encrypted_and_signed_in(tmp_path: Path, mail: MailServer, trusted: Certificate) -> None:
    mail.tls, mail.password = trusted.context, "right"
    (tmp_path / "password").write_text("right\n")
    secure = {"security": "starttls", "ca_file": trusted.file, "username": "fleet"}
    settings = email(mail, **secure, password_file=tmp_path / "password", recipients=["ana@x.org", "bob@x.org"])
    assert await sender.send(channel(**settings), SAID, T0) == "accepted for 2 recipients"
    (letter,) = mail.letters
    assert (mail.secure, mail.recipients) == ([True], ["ana@x.org", "bob@x.org"])
    assert letter["Message-ID"] == "<dl-1@example.org>"
    assert letter["Bcc"] is None  # what a device said stays in its line
    wrong = email(mail, **secure, password="wrong-password")
    with pytest.raises(ChannelSetupError, match="refuses the password"):
        await sender.send(channel(**wrong), SAID, T0)
    with pytest.raises(ChannelSetupError, match="certificate"):
        await sender.send(channel(**email(mail, security="starttls")), SAID, T0)
    assert len(mail.letters) == 1


async def test_mail_is_refused_put_off_or_partly_taken(mail: MailServer) -> None:
    mail.refused = {"gone@x.org": "550 no such user"}
    both = channel(**email(mail, recipients=["gone@x.org", "ana@x.org"]))
    assert await sender.send(both, SAID, T0) == "accepted for 1 recipient; refused for gone@x.org"
    with pytest.raises(MessageRefusedError):
        await sender.send(channel(**email(mail, recipients=["gone@x.org"])), SAID, T0)
    mail.busy = 1
    with pytest.raises(ChannelDownError, match="not take it now"):
        await sender.send(both, SAID, T0)
    await mail.stop()
    with pytest.raises(ChannelDownError):
        await sender.send(both, SAID, T0)


async def test_https_is_checked_against_the_name_though_an_address_is_connected_to(trusted: Certificate) -> None:
    web = WebReceiver()
    await web.start(trusted.context)
    url = f"https://localhost:{web.port}/hook"
    settings = webhook(web, url=url, ca_file=trusted.file)
    assert await sender.send(channel(**settings), SAID, T0) == "HTTP 200"
    assert web.posts[0].headers["host"] == f"localhost:{web.port}"
    with pytest.raises(ChannelDownError, match=r"(?i)certificate"):
        await sender.send(channel(**webhook(web, url=url)), SAID, T0)
    await web.stop()


async def test_a_redirect_is_not_followed(web: WebReceiver) -> None:
    other = WebReceiver()
    await other.start()
    web.plan(307)
    web.headers = f"location: {other.url}\r\n"
    with pytest.raises(ChannelDownError, match="redirects are not followed"):
        await sender.send(channel(**webhook(web)), SAID, T0)
    assert other.posts == []
    await other.stop()


async def test_a_receiver_that_never_answers_is_left(web: WebReceiver) -> None:
    web.plan(0)
    with pytest.raises(ChannelDownError):
        await sender.send(channel(**webhook(web, timeout_seconds=0.2)), SAID, T0)


async def test_slack_and_teams_get_their_own_forms_without_foreign_markup(web: WebReceiver) -> None:
    for kind in ("slack", "teams"):
        await sender.send(channel(kind=kind, url=web.url), SAID, T0)
    slack, teams = (json.loads(post.body) for post in web.posts)
    assert slack["blocks"][0]["text"]["text"] == "[high] <b>*evil*</b> Bcc: all@example.org"  # plain_text: no markup
    assert "&lt;b&gt;" in slack["text"]
    card = teams["attachments"][0]["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert "\\*evil\\*" in card["body"][0]["text"]
    assert "flotilla-signature" not in web.posts[0].headers


async def test_what_no_sender_foresaw_is_an_error_of_the_channel(mail: MailServer, web: WebReceiver) -> None:
    odd = wording.message(
        "dl-2", "notification", {"items": [{**ITEM, "text": "\ud800\x00"}]}, group="g", at=T0, manager="\ud800"
    )
    assert await sender.send(channel(**webhook(web)), odd, T0) == "HTTP 200"
    with pytest.raises(ChannelDownError, match="cannot be sent"):
        await sender.send(channel(**email(mail)), odd, T0)


@pytest.mark.parametrize(
    ("host", "addresses", "allow_private", "fine"),
    [
        ("hooks.example.org", ["93.184.216.34"], False, True),
        ("hooks.example.org", ["93.184.216.34", "10.0.0.1"], False, False),
        ("hooks.example.org", ["10.0.0.1"], True, True),
        ("hooks.example.org", ["169.254.169.254"], False, False),
        ("hooks.example.org", ["fd00:ec2::254"], False, False),
        ("hooks.example.org", ["100.64.0.1"], False, False),
        ("hooks.example.org", ["::ffff:10.0.0.1"], False, False),
        ("hooks.example.org", ["64:ff9b::a00:1"], False, False),
        ("hooks.example.org", ["2002:a00:1::"], False, False),
        ("hooks.example.org", ["127.0.0.1"], False, False),  # a name of the internet that leads here
        ("hooks.example.org", ["224.0.0.1"], True, False),
        ("hooks.example.org", ["0.0.0.0"], True, False),
        ("hooks.example.org", [], True, False),
        ("localhost", ["::1", "127.0.0.1"], False, True),
    ],
)
def test_where_may_be_posted(host: str, addresses: list[str], allow_private: bool, fine: bool) -> None:
    if fine:
        assert destinations.chosen(host, addresses, allow_private=allow_private) == addresses[0]
    else:
        with pytest.raises(ChannelSetupError):
            destinations.chosen(host, addresses, allow_private=allow_private)


async def test_apprise_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ChannelSetupError) as refused:
        await sender.send(channel(kind="apprise", urls=["json://localhost"]), SAID, T0)
    assert refused.value.remedy == "pip install 'flotilla-edge[apprise]'"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package that brings two alert handlers."""
    (tmp_path / "foreign_handlers.py").write_text(
        "from pathlib import Path\nimport time\n"
        "def note(document, options):\n    Path(options['file']).write_text(document['type'])\n    return 'noted'\n"
        "def hang(document, options):\n    time.sleep(3)\n"
    )
    info = tmp_path / "foreign-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[flotilla.alert_handlers]\nnote = foreign_handlers:note\nhang = foreign_handlers:hang\nlost = nowhere:x\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("foreign_handlers", None)


async def test_a_handler_of_another_package_is_called(package: Path) -> None:
    file = package / "said"
    settings = channel(kind="custom", handler="note", options={"file": str(file)})
    assert await sender.send(settings, SAID, T0) == "noted"
    assert file.read_text() == "flotilla-alerts/1"
    with pytest.raises(ChannelDownError, match="raised KeyError"):
        await sender.send(channel(kind="custom", handler="note"), SAID, T0)
    with pytest.raises(ChannelDownError, match="did not end"):
        await sender.send(channel(kind="custom", handler="hang", timeout_seconds=0.1), SAID, T0)
    for name in ("lost", "unknown"):
        with pytest.raises(ChannelSetupError):
            await sender.send(channel(kind="custom", handler=name), SAID, T0)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"kind": "webhook", "url": "http://hooks.example.org/", "secret": "s" * 16}, "https is needed"),
        ({"kind": "webhook", "url": "ftp://x.org/", "secret": "s" * 16}, "a URL such as"),
        ({"kind": "webhook", "url": "https://x.org:99999/", "secret": "s" * 16}, "a URL such as"),
        ({"kind": "webhook", "url": f"https://{'x' * 70}.org/", "secret": "s" * 16}, "a URL such as"),
        ({"kind": "email", "host": "mx.org", "sender": "a@x", "recipients": ["b@x\r\nBcc: c@x"]}, "pattern"),
        ({"kind": "webhook", "url": "https://a:b@x.org/", "secret": "s" * 16}, "without user"),
        ({"kind": "webhook", "url": "https://x.org/"}, "either secret or secret_file"),
        ({"kind": "webhook", "url": "https://x.org/", "secret": "short"}, "shorter than 16"),
        ({"kind": "slack"}, "either url or url_file"),
        ({"kind": "teams", "url": "http://x.org"}, "https is needed"),
        ({"kind": "apprise"}, "either urls or urls_file"),
        ({"kind": "email", "host": "x", "sender": "a@x", "recipients": ["b@x"], "username": "u"}, "username needs"),
        (
            {"kind": "email", "host": "mx.org", "sender": "a@x", "recipients": ["b@x"], "username": "u",
             "password": "p", "security": "none"},
            "in the clear",
        ),
    ],
)  # fmt: skip
def test_a_channel_that_cannot_work_safely_is_refused(values: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        channel(**values)


YAML = """\
alerts: {notification_channels: [ops]}
channels:
  ops: {kind: webhook, url: "https://hooks.example.org/x", secret: top-secret-of-ours}
"""


def configured(folder: Path, text: str, **environment: str) -> Any:
    (folder / "fleet.yaml").write_text(text)
    return load(FleetSettings, folder / "fleet.yaml", environment=environment)


def test_secrets_are_not_shown_and_may_come_from_the_environment(tmp_path: Path) -> None:
    found = configured(tmp_path, YAML)
    rows = {key: value for key, value, _ in found.rows()}
    assert rows["channels.ops.url"] == "https://hooks.example.org/x"
    assert "top-secret" not in str(rows) + repr(found.settings)
    text = YAML.replace(", secret: top-secret-of-ours", "")
    found = configured(tmp_path, text, FLOTILLA_CHANNELS__OPS__SECRET="another-secret-of-ours")
    assert found.settings.channels["ops"].secret.get_secret_value() == "another-secret-of-ours"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("top-secret-of-ours", "[12, 13]", ["channels.ops.secret", "fleet.yaml:3", "FLOTILLA_CHANNELS__OPS__SECRET"]),
        ("secret: ", "sacret: ", ["channels.ops"]),
        ("[ops]", "[opps]", ["opps", "channels"]),
        ("webhook", "pigeon", ["pigeon", "email"]),
    ],
)
def test_a_mistake_in_a_channel_is_named_without_its_secret(
    tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        configured(tmp_path, YAML.replace(old, new))
    said = f"{refused.value.detail} {refused.value.remedy}".replace(str(tmp_path), "")  # it has numbers, too
    assert all(word in said for word in words), said
    assert "top-secret" not in said
    assert "13" not in said
