from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.settings import AgentSettings
from shared.configuration import ConfigurationError, load


def written(folder: Path, text: str) -> Path:
    path = folder / "agent.yaml"
    path.write_text(text)
    return path


def failing(folder: Path, text: str, environment: dict[str, str] | None = None) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load(AgentSettings, written(folder, text), environment=environment or {})
    return caught.value


def test_without_anything_the_defaults_hold() -> None:
    loaded = load(AgentSettings, None, environment={})
    assert loaded.settings == AgentSettings()
    assert loaded.origins == {}
    assert loaded.origin("serving.http_port") == "default"


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    path = written(tmp_path, "log_level: warning\nserving:\n  http_port: 1\n  threads: 2\n  queue_limit: 3\n")
    environment = {"FLOTILLA_SERVING__HTTP_PORT": "10", "FLOTILLA_SERVING__THREADS": "20"}
    loaded = load(AgentSettings, path, environment=environment, overrides={"serving.http_port": 100, "state_dir": None})
    serving = loaded.settings.serving
    assert (serving.http_port, serving.threads, serving.queue_limit) == (100, 20, 3)
    assert loaded.settings.log_level == "warning"
    assert loaded.origin("serving.http_port") == "flag"
    assert loaded.origin("serving.threads") == "environment FLOTILLA_SERVING__THREADS"
    assert loaded.origin("serving.queue_limit") == f"{path}:5"
    assert loaded.origin("serving.request_timeout_seconds") == "default"
    assert loaded.origin("state_dir") == "default"


def test_every_setting_has_a_row_with_its_origin(tmp_path: Path) -> None:
    rows = {
        key: (value, origin)
        for key, value, origin in load(
            AgentSettings, written(tmp_path, "heartbeat_seconds: 5\n"), environment={}
        ).rows()
    }
    assert rows["heartbeat_seconds"] == (5.0, f"{tmp_path}/agent.yaml:1")
    assert rows["telemetry.window_seconds"] == (60.0, "default")
    assert rows["state_dir"] == ("/var/lib/flotilla-agent", "default")


def test_a_list_can_be_given_in_file_and_environment(tmp_path: Path) -> None:
    path = written(tmp_path, "serving:\n  providers: [A, B]\n")
    assert load(AgentSettings, path, environment={}).settings.serving.providers == ("A", "B")
    environment = {"FLOTILLA_SERVING__PROVIDERS": "[C]"}
    assert load(AgentSettings, path, environment=environment).settings.serving.providers == ("C",)


def test_an_unknown_key_names_file_line_and_the_nearest_setting(tmp_path: Path) -> None:
    error = failing(tmp_path, "log_level: info\nserving:\n  http_prot: 1\n")
    assert error.detail == f"{tmp_path}/agent.yaml:3: serving.http_prot: there is no such setting"
    assert error.remedy == "did you mean http_port?"


def test_an_unknown_key_without_a_near_one_lists_what_is_allowed(tmp_path: Path) -> None:
    assert (
        "allowed here: outbox_bytes, quiet_window_seconds, resend_seconds, settle_minutes, window_seconds"
        in failing(tmp_path, "telemetry:\n  zzz: 1\n").remedy
    )


def test_an_unknown_section_names_its_line(tmp_path: Path) -> None:
    error = failing(tmp_path, "\nsurving:\n  http_port: 1\n")
    assert f"{tmp_path}/agent.yaml:2: surving: there is no such setting" in error.detail
    assert error.remedy == "did you mean serving?"


def test_a_bad_value_says_what_is_allowed_and_what_was_given(tmp_path: Path) -> None:
    error = failing(tmp_path, "log_level: loud\n")
    assert f"{tmp_path}/agent.yaml:1: log_level:" in error.detail
    assert "'debug', 'info', 'warning' or 'error'" in error.detail
    assert "not 'loud'" in error.detail
    assert "FLOTILLA_LOG_LEVEL" in error.remedy


def test_a_bad_value_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    error = failing(tmp_path, "", {"FLOTILLA_SERVING__HTTP_PORT": "99999"})
    assert error.detail.startswith("environment FLOTILLA_SERVING__HTTP_PORT: serving.http_port:")


def test_a_variable_with_a_misspelt_inner_key_is_refused(tmp_path: Path) -> None:
    assert "serving.http_prot" in failing(tmp_path, "", {"FLOTILLA_SERVING__HTTP_PROT": "1"}).detail


def test_variables_of_other_programs_are_left_alone() -> None:
    environment = {"FLOTILLA_URL": "http://x", "FLOTILLA_TOKEN": "secret", "HOME": "/"}
    assert load(AgentSettings, None, environment=environment).settings == AgentSettings()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("serving: 5\n", ":1: serving:"),
        ("- a\n", ":1: a list of `key: value`"),
        ("a: 1\na: 2\n", ":2: a is given twice"),
        ("log_level: info\n  bad: indent\n", "not YAML"),
        ("log_level: 'open\n", "not YAML"),
        ("log_level: &x info\nserving: *x\n", ":2: aliases (*x)"),
        ("serving:\n  providers: !!python/object:os.system x\n", "not YAML"),
    ],
)
def test_a_file_that_is_no_settings_is_explained(text: str, expected: str, tmp_path: Path) -> None:
    assert expected in failing(tmp_path, text).detail


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load(AgentSettings, tmp_path / "none.yaml", environment={})


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert load(AgentSettings, written(tmp_path, ""), environment={}).settings == AgentSettings()


@given(text=st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_any_file_gives_settings_or_an_explanation(text: str | bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("any") / "agent.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    try:
        load(AgentSettings, path, environment={})
    except ConfigurationError as error:
        assert str(path) in error.detail  # noqa: PT017 (nothing else may be raised)
