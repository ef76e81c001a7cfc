"""Settings: what they read, and what they never show."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ops import credentials
from ops.main import main
from ops.settings import Settings, masked


def test_secrets_are_shown_as_set_or_unset_only(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setenv("OMIUM_OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("OMIUM_KAFKA", "broker:9092")

    # when
    shown = masked(Settings())

    # then
    assert "sk-very-secret" not in str(shown)
    assert shown["OMIUM_OPENAI_API_KEY"]
    assert shown["OMIUM_API_KEY"] == ""
    assert shown["OMIUM_KAFKA"] == "broker:9092"


def test_an_empty_value_means_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMIUM_PORT", "")
    assert Settings().port == 8700


def test_the_data_directory_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMIUM_DATA_DIR", raising=False)
    assert Settings().data_dir == tmp_path / ".omium"


def test_credentials_are_drawn_once_and_private(tmp_path: Path) -> None:
    # when
    first = credentials.ensure(tmp_path)
    second = credentials.ensure(tmp_path)

    # then
    assert first == second
    assert first.api_key.startswith("omk_")
    assert stat.S_IMODE((tmp_path / credentials.FILE_NAME).stat().st_mode) == 0o600


def test_a_later_versions_secret_is_added_to_those_at_hand(tmp_path: Path) -> None:
    # given
    (tmp_path / credentials.FILE_NAME).write_text('{"api_key": "omk_old"}')

    # when
    complete = credentials.ensure(tmp_path)

    # then
    assert complete.api_key == "omk_old"
    assert complete.runner_key


def test_a_wrong_setting_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    monkeypatch.setenv("OMIUM_PORT", "eighty")

    # when
    code = main(["status"])

    # then
    said = capsys.readouterr()
    assert code == 2
    assert said.err.startswith("omiumctl: a setting is wrong: OMIUM_PORT")
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_an_unknown_part_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # when
    code = main(["up", "--data-dir", str(tmp_path), "--only", "kafka,teapot"])

    # then
    assert code == 2
    assert "teapot" in capsys.readouterr().err


def test_the_status_of_no_stack_is_unavailable_and_prints_nothing_on_stdout(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # when
    code = main(["status", "--json", "--data-dir", str(tmp_path)])

    # then
    said = capsys.readouterr()
    assert code == 3
    assert said.out == ""
    assert "no stack runs" in said.err
