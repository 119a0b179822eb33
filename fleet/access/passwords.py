"""Passwords of people: what a new one must be, and argon2id, off the event loop and a few at a time.

What is hashed is the password's keyed digest (`Pepper`), so that a copy of the database alone allows no guessing.

I/O: chance, tasks.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from shared.errors import BadInputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleet.access.secrets import Pepper

LEAST_CHARACTERS: Final = 12
MOST_CHARACTERS: Final = 256
#: Fewer different characters than this are a pattern, however long.
LEAST_DIFFERENT: Final = 5
MEMORY_KIB: Final = 64 * 1024
PASSES: Final = 3
#: So many are computed at the same time, each with `MEMORY_KIB`; so many more may wait for their turn.
AT_ONCE: Final = 2
WAITING: Final = 16
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32

Found = TypeVar("Found")


class PasswordError(BadInputError):
    """This password cannot be chosen."""

    code = "E_PASSWORD"
    default_remedy = f"choose {LEAST_CHARACTERS} characters or more, such as four words that do not belong together"


class BusyError(UnavailableError):
    """More people sign in at this moment than the manager has memory for."""

    code = "E_SIGN_IN_BUSY"
    status: ClassVar[int] = 503
    default_remedy = "try again in a few seconds"


def check_new(password: str, name: str) -> None:
    """Return if `name` may choose this password.

    Raises:
        PasswordError: it is too short or too easy to guess.
    """
    plain = _plain(password)
    if len(plain) < LEAST_CHARACTERS:
        raise PasswordError(f"the password has {len(plain)} characters")
    if len(plain) > MOST_CHARACTERS:
        raise PasswordError(f"the password has more than {MOST_CHARACTERS} characters", remedy="choose a shorter one")
    if len(set(plain)) < LEAST_DIFFERENT:
        raise PasswordError("the password repeats very few characters")
    if name.lower() in plain.lower():
        raise PasswordError("the password contains the name")


class Passwords:
    """Hashes and compares. One for each manager; its threads are made when first needed."""

    def __init__(self, pepper: Pepper) -> None:
        self._pepper = pepper
        self._threads: ThreadPoolExecutor | None = None
        self._busy = 0

    async def hashed(self, password: str) -> str:
        """What is stored of a password.

        Raises:
            BusyError: too many at once.
        """
        return await self._aside(lambda: _hasher().hash(self._keyed(password)))

    async def fits(self, password: str, stored: str | None) -> bool:
        """True when `stored` is of this password. Without one (nobody has that name) it takes as long, and is False.

        Raises:
            BusyError: too many at once.
        """
        compared = stored if stored is not None else nobodys()
        right = await self._aside(lambda: _verified(compared, self._keyed(password)))
        return right and stored is not None

    def check_room(self) -> None:
        """Return if one more may be compared.

        Raises:
            BusyError: too many at once.
        """
        if self._busy >= AT_ONCE + WAITING:
            raise BusyError("too many people sign in at this moment")

    def _keyed(self, password: str) -> str:
        return self._pepper.digest(f"password: {_plain(password)}")

    async def _aside(self, work: Callable[[], Found]) -> Found:
        self.check_room()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="password")
        self._busy += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._busy -= 1


def nobodys() -> str:
    """A stored form that no password fits, as costly to compare with as any other."""
    salt, made = (
        base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (_SALT_BYTES, _HASH_BYTES)
    )
    return f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p=1${salt}${made}"


def _hasher() -> Any:
    from argon2 import PasswordHasher  # only where people sign in with passwords

    return PasswordHasher(
        time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=1, hash_len=_HASH_BYTES, salt_len=_SALT_BYTES
    )


def _verified(stored: str, keyed: str) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return bool(_hasher().verify(stored, keyed))
    except (VerificationError, InvalidHashError):
        return False


def _plain(password: str) -> str:
    """The same characters however a keyboard composes them."""
    return unicodedata.normalize("NFKC", password)
