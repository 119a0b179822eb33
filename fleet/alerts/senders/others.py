"""Channels that other packages bring: apprise, and handlers by entry point.

A handler is an object that is called as `handler(document, options)`, `document` being what a webhook would get
(docs/alerts.md). What it returns, if anything, goes into the delivery log; any exception means: try again later.

I/O: disk, tasks.
"""

import asyncio
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Final

from fleet.alerts.channels import Apprise, Custom
from fleet.alerts.senders.failures import ChannelDownError, ChannelSetupError
from fleet.alerts.senders.secret_files import secret
from fleet.alerts.senders.threads import in_thread
from fleet.alerts.wording import Message

GROUP: Final = "flotilla.alert_handlers"


async def apprise(settings: Apprise, said: Message) -> str:
    """Hand it to the package `apprise`.

    Raises:
        ChannelSetupError: the package is not installed, or knows none of the URLs.
        ChannelDownError: one of the services did not take it.
    """
    try:
        import apprise as package  # an extra
    except ModuleNotFoundError:
        raise ChannelSetupError(
            "the package apprise is not installed", remedy="pip install 'flotilla-edge[apprise]'"
        ) from None
    post = package.Apprise()
    urls = [url.get_secret_value() for url in settings.urls] or secret(None, settings.urls_file).splitlines()
    for number, url in enumerate(urls, 1):
        if not post.add(url):
            raise ChannelSetupError(f"apprise does not know URL number {number}", remedy="see its documentation")
    try:
        async with asyncio.timeout(settings.timeout_seconds * 2):
            taken = await post.async_notify(title=said.heading, body=said.text)
    except TimeoutError:
        raise ChannelDownError(f"apprise did not end in {settings.timeout_seconds * 2:g} s") from None
    if not taken:
        raise ChannelDownError("apprise could not deliver to each of its URLs")
    return f"taken by {len(urls)} URL{'s' if len(urls) != 1 else ''}"


async def custom(settings: Custom, said: Message) -> str:
    """Call the handler, in a thread.

    Raises:
        ChannelSetupError: no installed package has such a handler, or it cannot be loaded.
        ChannelDownError: it raised, or did not end in time.
    """
    handler = _handler(settings.handler)
    try:
        answer = await in_thread(lambda: handler(dict(said.document), dict(settings.options)), settings.timeout_seconds)
    except TimeoutError:
        raise ChannelDownError(f"the handler did not end in {settings.timeout_seconds:g} s") from None
    except Exception as error:  # foreign code
        raise ChannelDownError(f"the handler raised {type(error).__name__}: {error}"[:300]) from error
    return str(answer)[:200] if answer is not None else "handled"


def _handler(name: str) -> Callable[[dict[str, Any], dict[str, Any]], object]:
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        raise ChannelSetupError(
            f"no installed package has an alert handler {name!r}",
            remedy=f"install it, or name one of: {', '.join(sorted(found)) or 'there is none'}",
        )
    try:
        loaded: Callable[[dict[str, Any], dict[str, Any]], object] = found[name].load()
    except Exception as error:  # foreign code
        raise ChannelSetupError(f"the alert handler {name!r} cannot be loaded: {error}"[:300]) from error
    return loaded
