"""The fingerprint lock: what was shipped stays readable, and no schema changes by accident."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

import schemas
from ops.main import main
from ops.schema_check import ROOT, disagreements, problems, removed_in_git
from schemas import lock
from schemas.fingerprint import canonical, crc64, sha256
from streams.messages import Event

RECORD = "omium.execution.ExecutionPaused"
LEVELS = {RECORD: "FULL_TRANSITIVE"}


def lock_text() -> str:
    return schemas.LOCK.read_text("utf-8")


def changed(change: Callable[[list[dict[str, object]]], object]) -> dict[str, str]:
    """Our schemas, with the fields of one changed."""
    schema = json.loads(schemas.sources()[RECORD])
    change(schema["fields"])
    return {**schemas.sources(), RECORD: json.dumps(schema)}


NEW: dict[str, object] = {"name": "note", "type": "string", "doc": "A note."}


def test_our_schemas_may_ship(capsys: pytest.CaptureFixture[str]) -> None:
    """Also: class and schema agree field by field, and docs/events.md is current."""
    code = main(["schemas", "check", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["problems"] == []
    assert (code, said["ok"], said["schemas"]) == (0, True, len(schemas.sources()))


def test_a_changed_schema_is_not_in_the_lock() -> None:
    new = lock.unlocked(lock_text(), changed(lambda fields: fields.append({**NEW, "default": ""})))
    assert [(shape.record, shape.version) for shape in new] == [(RECORD, 2)]


def test_a_changed_word_in_the_docs_needs_no_new_line() -> None:
    documented = changed(lambda fields: fields[0].update(doc="Other words."))
    assert lock.unlocked(lock_text(), documented) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda fields: fields.append(NEW), "/note: has no default"),
        (lambda fields: fields.pop(), "/reason: has no default"),
        (lambda fields: fields[-1].update(type="long"), "long cannot read string"),
        (lambda fields: fields[-1].update(name="why", aliases=["reason"]), "/reason: has no"),
    ],
)
def test_a_breaking_change_may_not_be_locked(
    change: Callable[[list[dict[str, object]]], object], reason: str
) -> None:
    found = lock.broken_rules(lock_text(), changed(change), LEVELS)
    assert found and all(RECORD in each for each in found)
    assert any(reason in each for each in found), found


def test_a_change_is_held_against_every_shape_ever_shipped() -> None:
    """`note` came as a string and went; as a number it would break readers of that shape."""
    second = changed(lambda fields: fields.append({**NEW, "default": ""}))
    text = lock_text() + lock.unlocked(lock_text(), second)[0].line
    text += lock.unlocked(text, schemas.sources())[0].line
    fourth = changed(lambda fields: fields.append({**NEW, "type": "long", "default": 0}))

    assert lock.broken_rules(text, second, LEVELS) == []
    assert lock.broken_rules(text, fourth, LEVELS) != []


def test_a_record_may_not_vanish() -> None:
    left = {name: text for name, text in schemas.sources().items() if name != RECORD}
    assert any("is gone" in each for each in lock.broken_rules(lock_text(), left, LEVELS))


def test_the_check_says_what_to_do_about_a_missing_line() -> None:
    lines = [line for line in lock_text().split("\n") if not line.startswith(RECORD)]
    found = problems("\n".join(lines))
    assert len(found) == 1 and "omiumctl schemas lock" in found[0] and RECORD in found[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [('"name":"reason"', '"name":"why"'), (" 1 ", " 2 "), ('"string"', '"bytes"'), ("{", "")],
)
def test_an_edited_line_is_found(old: str, new: str) -> None:
    line = next(each for each in lock_text().split("\n") if each.startswith(RECORD))
    with pytest.raises(ValueError, match=r"fingerprints\.lock:"):
        lock.shapes(lock_text().replace(line, line.replace(old, new, 1)))


def test_a_line_that_a_commit_held_is_missed(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t", *words],
            check=True,
            capture_output=True,
        )

    path = tmp_path / "schemas" / "fingerprints.lock"
    path.parent.mkdir()
    git("init", "-q")
    path.write_text(lock_text(), "utf-8")
    git("add", ".")
    git("commit", "-qm", "locked")
    fewer = "\n".join(line for line in lock_text().split("\n") if not line.startswith(RECORD))
    path.write_text(fewer, "utf-8")
    git("commit", "-qam", "forgotten")

    found = removed_in_git(tmp_path, fewer)

    assert len(found) == 1 and RECORD in found[0]
    assert removed_in_git(tmp_path, lock_text()) == []
    assert removed_in_git(tmp_path / "nowhere", fewer) == []


def test_fingerprints_are_avros() -> None:
    """The example of the Avro specification's own test data: `"int"`."""
    assert crc64(canonical('"int"')) == "7275d51a3f395c8f"
    assert sha256(canonical('"int"')) == (
        "3f2b87a9fe7cc9b13835598c3981cd45e3e355309e5090aa0933d7becb6fba45"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled(Event):
    namespace: ClassVar[str] = "omium.test"
    count: int
    names: tuple[str, ...] = ()


def test_class_and_schema_must_agree() -> None:
    base = json.loads(schemas.sources()[RECORD])["fields"][:-1]
    names = {"name": "names", "type": {"type": "array", "items": "string"}, "default": []}
    count = {"name": "count", "type": "long"}

    def found(*own: dict[str, object]) -> list[str]:
        return [*disagreements(Sampled, {"fields": [*base, *own]})]

    assert found(count, names) == []
    assert any("has the fields" in each for each in found(names, count))
    assert any("has the fields" in each for each in found(count))
    assert any("count" in each for each in found({**count, "type": "string"}, names))
    assert any("defaults" in each for each in found({**count, "default": 0}, names))
    assert any("defaults" in each for each in found(count, {**names, "default": ["x"]}))


def test_list_and_show_know_every_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schemas", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["schemas"]
    assert {row["record"] for row in rows} == {*schemas.sources()}
    assert main(["schemas", "show", "ExecutionPaused", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(schemas.sources()[RECORD])
    assert main(["schemas", "show", "Nothing"]) == 2


def test_lock_appends_nothing_when_nothing_is_new(capsys: pytest.CaptureFixture[str]) -> None:
    before = lock_text()
    assert main(["schemas", "lock", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"appended": [], "problems": []}
    assert (ROOT / "schemas/fingerprints.lock").read_text("utf-8") == before


def test_topics_show_offsets_of_a_live_broker(
    kafka: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from producers.registry import register_all
    from producers.topology import create_topics

    create_topics(kafka)
    register_all(kafka)
    monkeypatch.setenv("OMIUM_KAFKA", kafka)

    assert main(["topics", "--json"]) == 0

    said = json.loads(capsys.readouterr().out)
    assert said["kafka"] == kafka
    by_name = {row["topic"]: row for row in said["topics"]}
    assert by_name["_schemas"]["offsets"][0]["end"] >= len(schemas.sources())
    assert len(by_name["omium.executions.v1"]["offsets"]) == 4


def test_topics_are_shown_without_a_broker(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMIUM_KAFKA", raising=False)
    assert main(["topics", "--json", "--data-dir", str(tmp_path)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["kafka"] is None and len(said["topics"]) == 12
