"""Who answered instead of the source: a captive portal, a server with a certificate that proves nothing.

I/O: network.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

import httpx2

from agent.update.reasons import CaptivePortalError, CertificateError, SourceUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGE: Final = (b"<!doctype html", b"<html")


def redirected(answer: httpx2.Response, name: str) -> httpx2.URL | None:
    """Where the source says that the thing called `name` lies, if `answer` is a redirect; None: it is not.

    Raises:
        CaptivePortalError: it leads to another host, and not to anything of this name.
        SourceUnavailableError: it leads nowhere.
    """
    if not answer.is_redirect:
        return None
    try:
        target = answer.url.join(answer.headers["location"])
    except httpx2.InvalidURL:
        raise SourceUnavailableError(f"{answer.url} redirects to no address") from None
    if target.path.rpartition("/")[2] == name and target.scheme in {"http", "https"}:
        return target
    if target.host != answer.url.host:
        raise CaptivePortalError(f"{answer.url.host} sends us to {target.host}, which is not what was asked for")
    raise SourceUnavailableError(f"{answer.url.path} answered {answer.status_code}")


def refuse_page(answer: httpx2.Response) -> None:
    """Nothing, unless `answer` is a web page: no source has any.

    Raises:
        CaptivePortalError: it is.
    """
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    asked_to_sign_in = answer.status_code == httpx2.codes.NETWORK_AUTHENTICATION_REQUIRED
    if asked_to_sign_in or (answer.is_success and kind in {"text/html", "application/xhtml+xml"}):
        raise CaptivePortalError(f"a web page came instead of {answer.url.path} of {answer.url.host}")


def is_page(data: bytes | bytearray) -> bool:
    """Whether `data` begins as web pages do, whatever its type was said to be."""
    return data[:64].lstrip().lower().startswith(_PAGE)


def unreachable(url: str, error: httpx2.HTTPError) -> SourceUnavailableError:
    """Why nothing came from `url`, in words of ours."""
    host = httpx2.URL(url).host
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            match cause.verify_code:
                case 10:  # X509_V_ERR_CERT_HAS_EXPIRED
                    return CertificateError(f"the certificate of {host} has expired")
                case 9:  # X509_V_ERR_CERT_NOT_YET_VALID
                    return CertificateError(f"the certificate of {host} is not valid yet")
                case _:
                    return CertificateError(f"the certificate of {host} proves nothing: {cause.verify_message}")
    return SourceUnavailableError(f"{url}: {type(error).__name__} {error}".rstrip())


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
