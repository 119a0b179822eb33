"""Landlock: from here on this process reaches only the files it is given. No privileges are needed; it lasts.

Asked of the kernel at run time: 5.13 guards files, 6.2 truncation, 6.7 TCP, 6.10 device controls, 6.12 signals and
abstract sockets, later ones all threads at once. Python 3.10 syntax: also runs under the worker's interpreter.

I/O: disk.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_ASK_VERSION = 1
_BENEATH = 1  # a rule about a path and all that lies in it
_TCP = 0b11  # bind, connect
_SCOPED = 0b11  # abstract sockets, signals
_ALL_THREADS = 1 << 3

_WRITE_FILE, _READ_FILE, _READ_FOLDER = 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _DEVICE_CONTROL = 1 << 14, 1 << 15
_ON_FILES = 1 << 0 | _WRITE_FILE | _READ_FILE | _TRUNCATE | _DEVICE_CONTROL  # the other rights are for folders
_READ = _READ_FILE | _READ_FOLDER
_EXECUTE = 1 << 0
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # version -> how many kinds of access it guards
_RIGHTS_SINCE_5 = 16


class NoLandlockError(Exception):
    """This kernel, or what confines this process already, does not offer it."""


def restrict(*, readable: Iterable[str], writable: Iterable[str], devices: Iterable[str]) -> int:
    """Allow no other files from now on, nor TCP, nor signals to others. The version of Landlock that was found.

    Paths that do not exist are left out. Nothing may be executed. Covers this thread and those it starts; every
    thread where the kernel can.

    Raises:
        NoLandlockError: nothing has changed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = int(libc.syscall(_CREATE, None, ctypes.c_size_t(0), _ASK_VERSION))
    if version < 1:
        raise NoLandlockError(os.strerror(ctypes.get_errno()))
    guarded = (1 << _RIGHTS.get(version, _RIGHTS_SINCE_5)) - 1
    attributes = struct.pack("QQQ", guarded, _TCP if version >= 4 else 0, _SCOPED if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8  # older kernels know a shorter form
    ruleset = libc.syscall(_CREATE, attributes, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        raise NoLandlockError(os.strerror(ctypes.get_errno()))
    try:
        for paths, rights in (
            (readable, _READ),
            (writable, guarded & ~_EXECUTE),
            (devices, _READ | _WRITE_FILE | _TRUNCATE | _DEVICE_CONTROL),
        ):
            for path in paths:
                _allow(libc, ruleset, path, rights & guarded)
        if libc.syscall(_RESTRICT, ruleset, _ALL_THREADS if version >= 8 else 0) != 0:
            raise NoLandlockError(os.strerror(ctypes.get_errno()))
    finally:
        os.close(ruleset)
    return version


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _ON_FILES
        if libc.syscall(_ADD, ruleset, _BENEATH, struct.pack("=Qi", rights, descriptor), 0) != 0:
            raise NoLandlockError("{}: {}".format(path, os.strerror(ctypes.get_errno())))
    finally:
        os.close(descriptor)
