"""What needs signing keys: set a manager up, publish. Keys stay in their folder on this machine.

I/O: disk, clock.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.rest.calls import Document
from fleet.rest.release_door import ReleaseDoor
from fleet.rest.transport import Transport
from shared.errors import BadInputError

if TYPE_CHECKING:
    from fleet.releases.keystore import Keystore


class FileError(BadInputError):
    """A file that is to be published cannot be read."""

    code = "E_FILE"
    default_remedy = "check the path"


class Signing:
    """`keys`: the folder of signing keys; None: FLOTILLA_KEYS, or ~/.config/flotilla/keys."""

    def __init__(self, transport: Transport, *, keys: Path | None = None) -> None:
        self._door = ReleaseDoor(transport.send)
        self._folder = keys

    def initialise(self, keys: Path | str | None = None, *, threshold: int = 1) -> Document:
        """As `Fleet.initialise`."""
        from fleet.releases import founding

        store = self._keystore(keys)
        done = founding.set_up(store, self._door, threshold=threshold, now=datetime.now(UTC))
        return {**founding.summary(store, done.described), "changed": done.new or done.why is not None}

    def publish(
        self,
        model: str,
        version: str,
        file: Path | str,
        reference: Path | str | None,
        *,
        keys: Path | str | None,
        metrics: Mapping[str, float],
        embedding: str | None = None,
        snap: bool = False,
        **label: Any,
    ) -> Document:
        """As `Fleet.publish`."""
        from fleet.releases import publish
        from fleet.releases.delta.cellar import Cellar
        from fleet.releases.packing import Label
        from fleet.releases.reading import refuse_other_formats
        from fleet.releases.weights import gathered

        onnx = gathered(_read(Path(file)), Path(file).parent)
        refuse_other_formats(Path(file).name, onnx)
        store = self._keystore(keys)
        cellar = Cellar(store.folder)
        found, new, sent = publish.publish(
            publish.Source(
                Path(file).name,
                onnx,
                _read(Path(reference)) if reference is not None else None,
                metrics=metrics,
                embedding=embedding,
                snap=snap,
                bases=cellar.files(model),
            ),
            Label(model, version, **label),
            door=self._door,
            keystore=store,
            teller=_Silent(),
            now=datetime.now(UTC),
        )
        if new:
            cellar.put(model, found["counter"], sent)
        return {**found, "published": new}

    def _keystore(self, keys: Path | str | None) -> "Keystore":
        from fleet.releases.keystore import Keystore, default_folder

        folder = Path(keys) if keys else self._folder or default_folder()
        return Keystore(folder, passphrase=os.environ.get("FLOTILLA_KEYS_PASSPHRASE"))


class _Silent:
    """Progress that nobody watches."""

    def say(self, _text: str) -> None:
        pass

    @contextmanager
    def progress(self, _label: str, _total: int) -> Iterator[Callable[[int], None]]:
        yield lambda _: None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from None
