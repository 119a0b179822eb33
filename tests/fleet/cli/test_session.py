"""Where address and token come from."""

import stat

import pytest
import yaml

from fleet.cli import session
from fleet.cli.errors import CliError


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("FLOTILLA_URL", raising=False)
    monkeypatch.delenv("FLOTILLA_TOKEN", raising=False)


def test_flag_beats_environment_beats_file_beats_default(monkeypatch):
    assert session.find().url == session.DEFAULT_URL
    session.store("http://file:1", "file-token")
    assert (session.find().url, session.find().token) == ("http://file:1", "file-token")
    monkeypatch.setenv("FLOTILLA_URL", "http://environment:1/")
    monkeypatch.setenv("FLOTILLA_TOKEN", "environment-token")
    assert (session.find().url, session.find().token) == ("http://environment:1", "environment-token")
    found = session.find("http://flag:1", "flag-token")
    assert (found.url, found.token, found.origins["url"]) == ("http://flag:1", "flag-token", "flag")


def test_a_stored_token_is_not_sent_to_another_manager():
    session.store("http://mine:1", "secret")
    assert session.find("http://other:1").token is None


def test_the_file_is_readable_by_its_owner_alone():
    path = session.store("http://mine:1", "secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert yaml.safe_load(path.read_text()) == {"url": "http://mine:1", "token": "secret"}
    assert session.forget()
    assert not session.forget()


@pytest.mark.parametrize("text", ["- list", "url: [1]", "url: {", "tokn: x", "\x00"])
def test_a_damaged_file_is_an_error_that_names_it(text):
    path = session.file_path()
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(CliError, match=r"cli\.yaml") as caught:
        session.find()
    assert caught.value.code == "E_CONFIG"
