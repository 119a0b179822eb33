"""What was backed up comes back, on either database, killed or not; and devices are not led back by it."""

import asyncio
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Connection, inspect, select, text

from fleet.access.roles import system
from fleet.backups import examining, rows
from fleet.backups.errors import BackupDamagedError, BackupNewerError, NotEmptyError, PassphraseError
from fleet.backups.form import Reader, Writer
from fleet.errors import RunningError
from fleet.parts import RESTORING, claim, depot_of, listening, opened
from fleet.releases import floors
from fleet.rollouts import saved
from fleet.rollouts.states import Rollout, Wave
from fleet.schedules import states
from fleet.store import audit, backups
from fleet.store import releases as store
from fleet.store.database import HEAD, Database
from fleet.store.tables import Base, Device, Metadata, OwedAction, Schedule
from fleet.store.tables import Rollout as RolloutRow
from shared.errors import FlotillaError
from tests.fleet.backups.conftest import LOCK, NOW, PASSPHRASE, restore, settings_for, write
from tests.fleet.releases.conftest import Workshop
from tests.fleet.releases.test_publish import device
from tests.simulators import digits, postgresql

BackUp = Callable[..., Path]
#: What a restore changes on purpose.
CHANGED = {"audit", "events", "metadata", "devices", "leadership", "browser_sessions", "answers"}


async def everything(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    async with database.read() as tx:
        return {
            table.name: [tuple(row) for row in await tx.execute(select(table).order_by(*table.primary_key.columns))]
            for table in Base.metadata.sorted_tables
            if table.name not in CHANGED
        }


async def inside(settings: Any, work: Callable[[Any], Any]) -> Any:
    database = Database(settings.database_url)
    await database.open()
    try:
        async with database.write() as tx:
            return await work(tx)
    finally:
        await database.close()


async def contents(settings: Any) -> dict[str, list[tuple[Any, ...]]]:
    database = Database(settings.database_url)
    await database.open()
    try:
        return await everything(database)
    finally:
        await database.close()


def test_everything_comes_back_from_one_database_into_the_other_and_back_again(
    origin: Workshop, back_up: BackUp, tmp_path: Path, postgres: Path
) -> None:
    before = origin.run(everything(origin.manager.database))
    asyncio.run(_create_database(postgres, "restored"))
    there = settings_for(tmp_path / "there", postgresql.url(postgres, "restored"))
    restore(back_up(), there)
    assert asyncio.run(contents(there)) == before
    assert asyncio.run(inside(there, audit.first_broken)) is None

    async def goes_on(tx: Any) -> None:  # numbers that the database gives out itself
        await audit.record(tx, actor=system("test"), action="test", subject="x", body={}, now=NOW)

    asyncio.run(inside(there, goes_on))

    async def again() -> None:
        database = Database(there.database_url)
        await database.open()
        try:
            await write(database, there.data_dir, depot_of(there), tmp_path / "again.backup")
        finally:
            await database.close()

    asyncio.run(again())
    home = settings_for(tmp_path / "home")
    restore(tmp_path / "again.backup", home)
    assert asyncio.run(contents(home)) == before
    names = sorted(path.name for path in (origin.folder / "fleet" / "keys").iterdir())
    for name in names:
        assert (home.data_dir / "keys" / name).read_bytes() == (origin.folder / "fleet" / "keys" / name).read_bytes()
        assert (home.data_dir / "keys" / name).stat().st_mode & 0o077 == 0
    chunks = sorted(path.name for path in (home.data_dir / "depot").rglob("*") if path.is_file())
    assert chunks == sorted(path.name for path in (origin.folder / "fleet" / "depot").rglob("*") if path.is_file())
    assert len(chunks) > 2


async def _create_database(folder: Path, name: str) -> None:
    connection = await asyncpg.connect(user=postgresql.USER, host=str(folder), database="postgres")
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()


def test_what_was_under_way_stops_and_every_number_starts_above_all_that_devices_know(
    origin: Workshop, back_up: BackUp, tmp_path: Path
) -> None:
    origin.write(_under_way)
    settings = settings_for(tmp_path / "new")
    done = restore(back_up(), settings)
    assert (done.rollouts, done.schedules) == (["ro-1", "ro-2"], ["sc-1"])
    floor = floors.floor_at(datetime.now(UTC))

    async def look(tx: Any) -> None:
        assert (await tx.get_one(RolloutRow, "ro-1")).state == "aborted"
        back = saved.from_json((await tx.get_one(RolloutRow, "ro-2")).body)
        assert [str(effect) for effect in back.ending] == ["stop-new"]
        assert (await tx.get_one(Schedule, "sc-1")).state == "paused"
        found = await tx.get_one(Device, "cam-1")
        assert found.assigned is None
        assert floor - 60 < found.assignment <= floor
        assert list(await tx.scalars(select(OwedAction))) == []
        roles = set(await tx.scalars(select(Metadata.role)))
        assert roles == {"root", "targets", "model-digits", "restored"}

    asyncio.run(inside(settings, look))


async def _under_way(tx: Any) -> None:
    for name, state in (("ro-1", "running"), ("ro-2", "rolling-back")):
        body = Rollout(
            id=name, model="digits", version="1.0.0", strategy="canary", waves=(Wave("all", "100%", 1),), since=NOW
        )
        body = saved.from_json(
            {**saved.to_json(body), "state": state, "ending": ["roll-back"] if name == "ro-2" else []}
        )
        tx.add(RolloutRow(id=name, model="digits", version="1.0.0", strategy="canary", state=state, created_by="ana",
                          created_at=NOW, updated_at=NOW, body=saved.to_json(body)))  # fmt: skip
        await tx.flush()
    tx.add(
        OwedAction(rollout_id="ro-2", kind="recall", device_id="cam-1", model="digits", version="0.9.0", owed_at=NOW)
    )
    later = states.Schedule(id="sc-1", kind="cron", model="digits", version="stable", since=NOW, due=NOW, zone="UTC")
    tx.add(Schedule(id="sc-1", model="digits", state="waiting", body=states.to_json(later), created_by="ana",
                    created_at=NOW, updated_at=NOW))  # fmt: skip


def test_killed_at_any_instant_the_old_manager_is_whole_or_the_same_restore_ends_it(
    back_up: BackUp, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    path, steps = back_up(), []
    restore(path, settings_for(tmp_path / "calm"), checkpoint=steps.append)
    assert steps[:4] == ["chunks", "keys", "staged", "marked"]
    assert "swapped fleet.sqlite" in steps
    for step in ("staged", "marked", "swapped keys"):
        settings = settings_for(tmp_path / f"killed {step}")
        settings.data_dir.mkdir()
        (settings.data_dir / "fleet.sqlite").write_bytes(b"old")
        (settings.data_dir / "fleet.sqlite-wal").write_bytes(b"old")

        def die(at: str, step: str = step) -> None:
            if at == step:
                raise Killed

        with pytest.raises(Killed):
            restore(path, settings, replace=True, checkpoint=die)
        if (settings.data_dir / RESTORING).exists():
            assert asyncio.run(_starts(settings)) == "E_RESTORING"
            restore(path, settings)
        else:
            assert (settings.data_dir / "fleet.sqlite").read_bytes() == b"old"
            restore(path, settings, replace=True)
        assert asyncio.run(contents(settings)) == asyncio.run(contents(settings_for(tmp_path / "calm")))
        aside = next(settings.data_dir.glob("replaced-*"))
        assert {(it.name, it.read_bytes()) for it in aside.iterdir() if it.is_file()} == {
            ("fleet.sqlite", b"old"),
            ("fleet.sqlite-wal", b"old"),
        }
        assert not (settings.data_dir / "restoring").exists()


async def _starts(settings: Any) -> str:
    settings = settings.model_copy(update={"server": settings.server.model_copy(update={"port": 0})})
    try:
        with listening(settings) as door:
            async with opened(settings, door):
                return "it does"
    except FlotillaError as error:
        return error.code


def test_nothing_is_put_over_a_managers_data_unless_told_nor_under_a_manager_that_runs(
    back_up: BackUp, tmp_path: Path
) -> None:
    path, settings = back_up(), settings_for(tmp_path / "taken")
    restore(path, settings)
    with pytest.raises(NotEmptyError, match=r"fleet\.sqlite"):
        restore(path, settings)
    lock = claim(settings.data_dir)
    with pytest.raises(RunningError):
        restore(path, settings, replace=True)
    lock.close()
    restore(path, settings, replace=True)
    assert len(list(settings.data_dir.glob("replaced-*/keys/pepper"))) == 1


def changed(path: Path, change: Callable[[str, dict[str, Any], bytes], tuple[dict[str, Any], bytes] | None]) -> Path:
    """The same backup, written again by somebody who knows the passphrase, with parts changed or left out."""
    writer, out = Writer(LOCK.key), bytearray()
    with path.open("rb") as file:
        for part in Reader(file).parts():
            header = {name: value for name, value in part.header.items() if name not in ("part", "bytes", "sha256")}
            if (found := change(part.kind, header, part.payload)) is not None:
                out += writer.part(part.kind, found[1], **found[0])
    target = path.with_name("changed.backup")
    target.write_bytes(bytes(out) + writer.end())
    return target


async def columns_of(revision: str, path: Path) -> dict[str, set[str]]:
    """By table, what a database of this revision has."""
    found: dict[str, set[str]] = {}

    def look(connection: Connection) -> None:
        known = inspect(connection)
        found.update({name: {each["name"] for each in known.get_columns(name)} for name in known.get_table_names()})

    await Database(f"sqlite+aiosqlite:///{path}").rebuild(revision, lambda connection: connection.run_sync(look))
    return found


def test_the_backup_of_an_older_version_is_brought_to_todays_form(back_up: BackUp, tmp_path: Path) -> None:
    then = asyncio.run(columns_of("0135", tmp_path / "then.sqlite"))
    assert "sources" not in then["deployments"]  # came with 0140

    def older(kind: str, header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes] | None:
        if kind == "head":
            return {**header, "revision": "0135"}, payload
        if kind != "rows":
            return header, payload
        if header["name"] not in then:
            return None
        form = rows.Form.read(header)
        columns = {name: known for name, known in form.columns.items() if name in then[form.name]}
        old = rows.Form(form.name, columns)
        lines = [old.line([row[name] for name in columns]) for row in form.rows(payload)]
        return {**old.header(), "rows": len(lines)}, rows.compressed(lines)

    settings = settings_for(tmp_path / "new")
    restore(changed(back_up(), older), settings)
    with sqlite3.connect(settings.data_dir / "fleet.sqlite") as connection:
        assert connection.execute("select version_num from alembic_version").fetchone() == (HEAD,)
        assert connection.execute("select sources, fetched_bytes from deployments").fetchone() == (None, 2**40)


def test_the_backup_of_a_newer_version_is_refused(back_up: BackUp, tmp_path: Path) -> None:
    def newer(kind: str, header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        return ({**header, "revision": "9999"} if kind == "head" else header), payload

    with pytest.raises(BackupNewerError):
        restore(changed(back_up(), newer), settings_for(tmp_path / "new"))


def test_a_backup_without_a_chunk_that_it_names_or_with_a_release_that_nobody_signed_is_refused(
    back_up: BackUp,
) -> None:
    path, seen = back_up(), []

    def one_less(kind: str, header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes] | None:
        if kind == "chunk" and not seen:
            seen.append(header["name"])
            return None
        return header, payload

    with pytest.raises(BackupDamagedError, match="1 chunks are named and not in the file"):
        examining.examined(changed(path, one_less), PASSPHRASE)

    def unsigned(kind: str, header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes] | None:
        return None if kind == "rows" and header["name"] == "metadata" else (header, payload)

    with pytest.raises(BackupDamagedError, match=r"nobody signed digits@1\.0\.0"):
        examining.examined(changed(path, unsigned), PASSPHRASE)


def test_without_chunks_the_backup_is_small_and_names_them(back_up: BackUp) -> None:
    whole, small = back_up("whole"), back_up("small", chunks=False)
    found = examining.examined(small, PASSPHRASE)
    assert found.chunks == set()
    assert found.names == examining.examined(whole, PASSPHRASE).chunks
    assert small.stat().st_size < whole.stat().st_size - 10_000


def test_verify_says_what_is_wrong_and_changes_nothing(back_up: BackUp, tmp_path: Path) -> None:
    path = back_up()
    with pytest.raises(PassphraseError):
        examining.examined(path, "another passphrase")
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    with pytest.raises(BackupDamagedError, match="ends in the middle"):
        examining.examined(path, PASSPHRASE)


def test_a_restored_manager_signs_nothing_before_the_release_keys_did_and_then_goes_above_all_that_devices_know(
    founded: Workshop, tmp_path: Path
) -> None:
    founded.publish("1.0.0")
    file, data = founded.files(digits.train(2))  # after the backup, say: one more of the model, and another model
    founded.asks("model", "publish", "digits", "1.1.0", file, "--reference", data)
    founded.asks("model", "publish", "faces", "1.0.0", file, "--reference", data)
    device(founded, tmp_path)

    async def undo(tx: Any) -> None:
        await tx.execute(text("DELETE FROM releases WHERE version = '1.1.0'"))
        await tx.execute(text("DELETE FROM releases WHERE model = 'faces'"))
        await tx.execute(text("DELETE FROM metadata WHERE role = 'model-digits' AND version = 2"))
        await tx.execute(text("DELETE FROM metadata WHERE role = 'model-faces'"))
        await tx.execute(text("DELETE FROM metadata WHERE role = 'targets' AND version = 3"))
        await tx.execute(text("DELETE FROM metadata WHERE role IN ('snapshot', 'timestamp')"))
        await store.save_document(tx, store.RESTORED, 1_000_000, b"", keep=None)

    founded.write(undo)
    refused = founded.flotilla("model", "publish", "digits", "1.2.0", *_words(founded))
    assert refused.exit_code != 0
    assert "E_RESTORED" in refused.output
    assert founded.asks("init")["changed"]
    assert not founded.asks("init")["changed"]
    updater = device(founded, tmp_path)  # it knows a newer snapshot, with a model that the manager knows nothing of
    assert updater.get_targetinfo("digits/1.0.0/manifest.json")
    assert updater.get_targetinfo("faces/1.0.0/manifest.json") is None
    shown = founded.publish("1.2.0", digits.train(3))
    assert shown["counter"] >= 1_000_000
    assert shown["minimum_counter"] == 1  # so that a fleet can go one back
    updater = device(founded, tmp_path)
    assert updater.get_targetinfo("digits/1.2.0/manifest.json")


def _words(workshop: Workshop) -> list[str]:
    file, data = workshop.files(digits.train(3))
    return [file, "--reference", data]


async def test_a_fleet_without_a_fresh_backup_is_told_and_one_without_devices_is_not(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)

    async def look(tx: Any) -> list[str | None]:
        found = [await backups.worry(tx, NOW)]
        tx.add(Device(id="cam-1", name="c", labels={}, sign_key=b"", box_key=b"", api_key_hash="", enrolled_at=NOW,
                      slots=[], serving={}))  # fmt: skip
        await tx.flush()
        found.append(await backups.worry(tx, NOW))
        await backups.record(tx, actor=system("backup"), body={}, now=NOW)
        return [*found, await backups.worry(tx, NOW), await backups.worry(tx, NOW + timedelta(days=9))]

    assert await inside(settings, look) == [
        None,
        "there is no backup of this manager",
        None,
        "the last backup is 9 days old",
    ]
