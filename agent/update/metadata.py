"""Where python-tuf reads signed documents: by HTTP, then another way, or out of a bundle. Nothing is believed here.

I/O: network.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Final

import httpx2
from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient import FetcherInterface  # type: ignore[attr-defined]  # its stubs list no names

from agent.update import reasons
from agent.update.bundle import MAX_METADATA_BYTES, BundleFolder
from shared import bundle as layout
from shared import signing
from shared.errors import BadInputError, UnavailableError

logger = logging.getLogger(__name__)

TIMEOUT: Final = httpx2.Timeout(30.0, connect=10.0)


class Wire:
    """The connection for all documents of one verification, made with the first: making one costs more processor time
    than all signatures do. Close it."""

    def __init__(self) -> None:
        self._http: httpx2.Client | None = None

    def get(self, url: str) -> bytes:
        """The strict JSON at `url`.

        Raises:
            DownloadError, httpx2.HTTPError, BadInputError: it is not to be had there.
        """
        if self._http is None:
            self._http = httpx2.Client(timeout=TIMEOUT, follow_redirects=False, verify=url.startswith("https:"))
        received = bytearray()
        with self._http.stream("GET", url) as answer:
            if answer.status_code != httpx2.codes.OK:
                raise DownloadHTTPError(f"{url} answered {answer.status_code}", answer.status_code)
            for block in answer.iter_bytes():
                received += block
                if len(received) > MAX_METADATA_BYTES:
                    raise DownloadError(f"{url} does not end")
        signing.strict_json(bytes(received), limit_bytes=MAX_METADATA_BYTES)
        return bytes(received)

    def close(self) -> None:
        """End it. A second call does nothing."""
        if self._http is not None:
            self._http.close()


class MetadataByNetwork(FetcherInterface):
    """Metadata over HTTP; `hint` stands in for `timestamp.json`. Whatever is not strict JSON (a captive
    portal's page) counts as not reached. What is not reached once is from then on asked of `other`, if given."""

    def __init__(self, hint: bytes | None, other: Callable[[str], bytes] | None, wire: Wire) -> None:
        self._hint, self._other, self._wire = hint, other, wire
        self._reachable = True

    def _fetch(self, url: str) -> Iterator[bytes]:
        if self._hint is not None and url.endswith("/timestamp.json"):
            return iter((self._hint,))
        if self._other is None:
            return iter((self._wire.get(url),))
        if self._reachable:
            try:
                return iter((self._wire.get(url),))
            except DownloadHTTPError as error:
                if error.status_code == httpx2.codes.NOT_FOUND:
                    raise
            except (DownloadError, httpx2.HTTPError, BadInputError) as error:
                logger.info("metadata not reached by http, asking elsewhere error=%s", error)
            self._reachable = False
        try:
            data = self._other(url.rsplit("/", 1)[-1])
        except reasons.NotThereError as error:
            raise DownloadHTTPError(error.detail, httpx2.codes.NOT_FOUND) from None
        except UnavailableError as error:
            raise DownloadError(error.detail) from None
        signing.strict_json(data, limit_bytes=MAX_METADATA_BYTES)
        return iter((data,))


class MetadataFromBundle(FetcherInterface):
    """Metadata out of a bundle."""

    def __init__(self, bundle: BundleFolder) -> None:
        self._bundle = bundle

    def _fetch(self, url: str) -> Iterator[bytes]:
        file = url.rsplit("/", 1)[-1]
        data = self._bundle.metadata(file)
        if data is None:
            raise DownloadHTTPError(f"{layout.metadata_path(file)} is not in the bundle", 404)
        signing.strict_json(data, limit_bytes=MAX_METADATA_BYTES)
        return iter((data,))
