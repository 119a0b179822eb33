"""Seccomp: from here on the kernel refuses the system calls that computing an answer never needs.

A filter that refuses what is listed and lets the rest pass: what onnxruntime and GPU drivers call changes with each
version, what they must never call does not. Refused calls fail with EPERM, so that a library which only tries goes
on; calls in another architecture's numbers end the process. Python 3.10 syntax: also runs under the worker's
interpreter.

I/O: disk.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Sequence

_X86_64, _AARCH64 = 0xC000003E, 0xC00000B7  # as <linux/audit.h> names them
_ARCHITECTURES = {"x86_64": (_X86_64, 0), "aarch64": (_AARCH64, 1)}
_X32 = 0x40000000  # on x86_64 the same calls once more, with these bits in their numbers

#: Name -> number on x86_64 and on aarch64.
_Calls = dict[str, tuple[int | None, int | None]]
NEVER: _Calls = {
    # other programs and processes; clone is looked at below
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "move_pages": (279, 239), "migrate_pages": (256, 238),
    # the network, and other ways to strangers
    "connect": (42, 203), "accept": (43, 202), "accept4": (288, 242),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "msgget": (68, 186), "msgsnd": (69, 189),
    "msgrcv": (70, 188), "msgctl": (71, 187), "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191),
    "semtimedop": (220, 192), "mq_open": (240, 180), "mq_unlink": (241, 181),
    # other views of the machine
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "move_mount": (429, 429),
    "open_tree": (428, 428), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "fanotify_init": (300, 262),
    # where kernels were broken into most
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_setup": (206, 0), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "splice": (275, 76), "tee": (276, 77), "vmsplice": (278, 75),
    "personality": (135, 92), "modify_ldt": (154, None), "memfd_secret": (447, 447), "lookup_dcookie": (212, 18),
    # the machine itself
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "syslog": (103, 116),
    "sethostname": (170, 161), "setdomainname": (171, 162), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "adjtimex": (159, 171), "clock_adjtime": (305, 266), "iopl": (172, None), "ioperm": (173, None),
    "vhangup": (153, 58),
}  # fmt: skip
#: Refused as well unless a folder may be written. ftruncate: a shortened arena would kill the front that maps it.
CHANGES: _Calls = {
    "creat": (85, None), "truncate": (76, 45), "ftruncate": (77, 46), "fallocate": (285, 47), "mkdir": (83, None),
    "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None),
    "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37), "symlink": (88, None),
    "symlinkat": (266, 36), "mknod": (133, None), "mknodat": (259, 33), "chmod": (90, None), "fchmod": (91, 52),
    "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None),
    "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None), "futimesat": (261, None),
    "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "setxattrat": (463, 463), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
}  # fmt: skip
#: Refused as well but for GPU drivers, which cannot do without an ear that nobody is let in by: CUDA offers its
#: descriptors to other processes there. What is not made for connections could send to strangers, so it stays refused.
EARS: _Calls = {"bind": (49, 200), "listen": (50, 201)}
#: Looked at more closely, or said not to exist so that the C library takes the older form.
LOOKED_AT: _Calls = {
    "clone": (56, 220), "clone3": (435, 435), "kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261),
    "ioctl": (16, 29), "fcntl": (72, 25), "open": (2, None), "openat": (257, 56), "openat2": (437, 437),
    "socket": (41, 198),
}  # fmt: skip
_CLEARED = ("unlink", "unlinkat")  # CUDA takes away what is not there before it starts, and gives up at EPERM
_SECCOMP = (317, 277)

_THREAD = 0x10000  # clone: more of this process, not another one
_NAMESPACES = 0x7E020000  # clone: new views of mounts, processes, network, users, ...
_CONTROLS = (0x5412, 0x8901, 0x8902)  # ioctl: type for the user (TIOCSTI); signals to others by a descriptor
_COMMANDS = (8, 10, 15, 1033)  # fcntl: the same (F_SETOWN, F_SETSIG, F_SETOWN_EX); seals on the arena (F_ADD_SEALS)
_UNIX, _SEQPACKET = 1, (5, 0x80005)  # socket: domain; type, also with SOCK_CLOEXEC
_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE = 0, 4  # places in what the kernel shows to the filter
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS, _ENOENT = _REFUSE | errno.EPERM, _REFUSE | errno.ENOSYS, _REFUSE | errno.ENOENT
_ALL_THREADS, _KEEP_SPEED = 1, 4  # the latter: before 5.16 a filter slowed all computing down
_SET_FILTER, _BY_PRCTL, _MODE_FILTER = 1, 22, 2

_Line = tuple[int, int, int, int]  # operation, lines to skip when true, when false, operand


class NoSeccompError(Exception):
    """This kernel, or what confines this process already, does not offer it."""


def restrict(*, may_write: bool, devices: bool = False) -> None:
    """Refuse the calls above from now on, in every thread. `no_new_privs` must be set.

    Args:
        may_write: files may be made; which ones, Landlock says.
        devices: what GPU drivers need beside: files may be opened to write, as they do with devices and the names
            of their threads, and again Landlock says which; sockets of one kind.

    Raises:
        NoSeccompError: nothing has changed.
    """
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        raise NoSeccompError(f"the numbers of the calls on {machine} are not known")
    lines = program(machine, pid=os.getpid(), may_write=may_write, devices=devices)
    code = b"".join(struct.pack("HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(code, len(code))
    listing = struct.pack("HxxxxxxP", len(lines), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    call = _SECCOMP[_ARCHITECTURES[machine][1]]
    for flags in (_ALL_THREADS | _KEEP_SPEED, _ALL_THREADS):
        if libc.syscall(call, _SET_FILTER, flags, listing) == 0:
            return
    if libc.prctl(_BY_PRCTL, _MODE_FILTER, listing, 0, 0) != 0:  # where another filter knows only the old way
        raise NoSeccompError(os.strerror(ctypes.get_errno()))


def program(machine: str, *, pid: int, may_write: bool, devices: bool = False) -> Sequence[_Line]:
    """The filter for the process `pid` on `machine`, in classic BPF."""
    architecture, column = _ARCHITECTURES[machine]
    lines: list[_Line] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        lines += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for numbers in (NEVER, {} if may_write else CHANGES, {} if devices else EARS):
        for name, pair in numbers.items():
            why = _ENOENT if devices and name in _CLEARED else _EPERM
            lines += _when(pair[column], [(_RETURN, 0, 0, why)])
    for name, rule in _rules(pid, may_write=may_write, devices=devices):
        lines += _when(LOOKED_AT[name][column], rule)
    return [*lines, (_RETURN, 0, 0, _ALLOW)]


def _rules(pid: int, *, may_write: bool, devices: bool) -> Iterable[tuple[str, Sequence[_Line]]]:
    yield "clone3", [(_RETURN, 0, 0, _ENOSYS)]  # its flags lie in memory, where no filter can look
    yield "clone", [_argument(0), (_ANY_BIT, 0, 1, _THREAD), (_ANY_BIT, 0, 1, _NAMESPACES), *_END]
    yield "kill", _only(0, pid)
    yield "tgkill", _only(0, pid)
    yield "prlimit64", _only(0, 0, pid)
    yield "ioctl", _none_of(1, _CONTROLS)
    yield "fcntl", _none_of(1, _COMMANDS)
    yield "socket", _ear() if devices else [(_RETURN, 0, 0, _EPERM)]
    if not may_write and not devices:
        yield "openat2", [(_RETURN, 0, 0, _ENOSYS)]
        yield "open", [_argument(1), (_ANY_BIT, 0, 1, _TO_WRITE), *_END]
        yield "openat", [_argument(2), (_ANY_BIT, 0, 1, _TO_WRITE), *_END]


def _ear() -> Sequence[_Line]:
    return [_argument(0), (_EQUAL, 1, 0, _UNIX), (_RETURN, 0, 0, _EPERM), *_only(1, *_SEQPACKET)]


_END: Sequence[_Line] = ((_RETURN, 0, 0, _EPERM), (_RETURN, 0, 0, _ALLOW))


def _when(number: int | None, rule: Sequence[_Line]) -> list[_Line]:
    """`rule`, which must return, for the call `number`."""
    return [] if number is None else [(_EQUAL, 0, len(rule), number), *rule]


def _argument(index: int) -> _Line:
    """Look at the lower half of an argument: all that the kernel itself looks at in these calls."""
    return (_LOAD, 0, 0, 16 + 8 * index)


def _only(index: int, *values: int) -> Sequence[_Line]:
    checks = [(_EQUAL, len(values) - at, 0, value) for at, value in enumerate(values)]
    return [_argument(index), *checks, *_END]


def _none_of(index: int, values: Sequence[int]) -> Sequence[_Line]:
    last = len(values) - 1
    checks = [(_EQUAL, last - at, 1 if at == last else 0, value) for at, value in enumerate(values)]
    return [_argument(index), *checks, *_END]
