"""After the sandbox is entered: what a hostile model could want fails, what a worker needs works."""

import ctypes
import errno
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from agent.serving import worker_seccomp
from tests.agent.serving.kit import children_of, endpoint, model_file

ROOT = Path(__file__).resolve().parents[3]
SHARED_MACHINES = ("x86_64", "aarch64")


def landlock_version() -> int:
    return int(ctypes.CDLL(None, use_errno=True).syscall(444, None, ctypes.c_size_t(0), 1))


needs_landlock = pytest.mark.skipif(landlock_version() < 1, reason="this kernel offers no Landlock")
needs_seccomp = pytest.mark.skipif(
    os.uname().machine not in SHARED_MACHINES, reason="seccomp's call numbers are known for x86_64 and aarch64"
)


def confined(before: str, after: str, *, folder: Path, **chosen: Any) -> Any:
    """Run `before`, enter the sandbox with `folder` readable, run `after`: what it put into `found`."""
    script = (
        "import json, os, sys\nfrom agent.serving import worker_sandbox\nfound = {}\n"
        "def tried(name, call, *arguments):\n"
        "    try: call(*arguments); found[name] = 'done'\n"
        "    except OSError as error: found[name] = error.errno\n"
        f"{textwrap.dedent(before)}\n"
        f"found['missing'] = list(worker_sandbox.enter(readable=[{str(folder)!r}], **{chosen!r}))\n"
        f"{textwrap.dedent(after)}\n"
        "os.write(1, json.dumps(found).encode())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def slot(tmp_path: Path) -> Path:
    folder = tmp_path / "state" / "slot"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"model")
    (folder.parent / "secret").write_bytes(b"secret")
    (folder / "link").symlink_to("../secret")
    return folder


@needs_landlock
def test_reads_outside_the_models_folder_work_before_and_fail_after(slot: Path) -> None:
    before = f"""
        def attempt(when):
            for path in ('{slot}/model.onnx', '{slot}/../secret', '{slot}/link', '/etc/passwd', '/proc/1/environ'):
                tried(when + path.rpartition('/')[2], lambda: open(path, 'rb').read(1))
            tried(when + 'listing', os.listdir, '{slot.parent}')
        attempt('before ')
    """
    found = confined(before, "attempt('after ')", folder=slot)
    assert found["missing"] == []
    assert {found[f"before {name}"] for name in ("model.onnx", "secret", "link", "passwd", "listing")} == {"done"}
    assert found["after model.onnx"] == "done"
    assert {found[f"after {name}"] for name in ("secret", "link", "passwd", "environ", "listing")} == {errno.EACCES}


@needs_landlock
def test_a_folder_on_the_path_that_holds_the_models_is_not_opened(slot: Path) -> None:
    found = confined(f"sys.path.append('{slot.parent}')", f"tried('secret', open, '{slot}/../secret')", folder=slot)
    assert found["secret"] == errno.EACCES


FORBIDDEN = """
    import ctypes, socket, signal, fcntl, resource
    libc = ctypes.CDLL(None, use_errno=True)
    def call(number, *arguments):
        if libc.syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), 'refused')
    tried('exec', os.execv, '/bin/true', ['true'])
    tried('fork', os.fork)
    tried('spawn', os.posix_spawn, '/bin/true', ['true'], {})
    tried('socket', socket.socket)
    tried('connect', connected.connect, address)
    tried('kill', os.kill, os.getppid(), signal.SIGCONT)
    tried('signal by descriptor', fcntl.fcntl, arena, fcntl.F_SETOWN, os.getppid())
    tried('pidfd', os.pidfd_open, os.getppid())
    tried('shorten the arena', os.ftruncate, arena, 0)
    tried('seal the arena', fcntl.fcntl, arena, 1033, 1)
    tried('limits of others', resource.prlimit, os.getppid(), resource.RLIMIT_CORE)
    tried('chmod', os.chmod, model, 0o666)
    tried('rename', os.rename, model, model + '.old')
    tried('unlink', os.unlink, model)
    tried('write', open, model, 'ab')
    tried('make', open, model + '.new', 'wb')
    tried('ptrace', call, {'x86_64': 101, 'aarch64': 117}[os.uname().machine], 16, os.getppid(), 0, 0)
    tried('unshare', libc_unshare)
    tried('io_uring', call, 425, 1, 0)
    tried('bpf', call, {'x86_64': 321, 'aarch64': 280}[os.uname().machine], 0, 0, 0)
"""


@needs_seccomp
def test_calls_that_no_answer_needs_are_refused(slot: Path) -> None:
    before = f"""
        import ctypes, socket
        model = '{slot}/model.onnx'
        listener = socket.socket()
        listener.bind(('127.0.0.1', 0))
        listener.listen()
        address, connected = listener.getsockname(), socket.socket()
        arena = os.memfd_create('arena', os.MFD_ALLOW_SEALING)
        os.ftruncate(arena, 4096)
        def libc_unshare():
            if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):
                raise OSError(ctypes.get_errno(), 'refused')
    """
    found = confined(before, FORBIDDEN, folder=slot)
    assert found.pop("missing") == []
    assert set(found.values()) <= {errno.EPERM, errno.EACCES}, found
    assert len(found) == 20


@needs_seccomp
def test_calls_in_other_numbers_end_the_process(slot: Path) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("only x86_64 has a second set of numbers")
    script = (
        "import ctypes\nfrom agent.serving import worker_sandbox\n"
        f"worker_sandbox.enter(readable=[{str(slot)!r}])\nctypes.CDLL(None).syscall(0x40000000 + 39)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, timeout=60)
    assert done.returncode == -31  # SIGSYS


def test_what_a_worker_needs_works(slot: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (slot / "model.onnx").write_bytes(made.SerializeToString())
    before = """
        import mmap, signal, socket, threading
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arena = os.memfd_create('arena')
        os.ftruncate(arena, 4096)
        socket.send_fds(theirs, [b'attach'], [arena])
    """
    after = f"""
        message, descriptors, _, _ = socket.recv_fds(ours, 100, 1)
        memory = mmap.mmap(descriptors[0], 0)
        memory[:5] = b'hello'
        thread = threading.Thread(target=lambda: found.update(thread=bytes(memory[:5]).decode()))
        thread.start()
        thread.join()
        tried('nicer', os.setpriority, os.PRIO_PROCESS, 0, 5)
        tried('batch', os.sched_setscheduler, 0, os.SCHED_BATCH, os.sched_param(0))
        tried('own signal', signal.raise_signal, signal.SIGCHLD)
        import numpy as np
        from agent.serving import worker_session
        session = worker_session.load('{slot}/model.onnx', providers=[worker_session.CPU], threads=4)
        found['answer'] = session.run({{'x': np.array([-1, 2], np.float32)}})['y'].tolist()
        found['threads'] = len(os.listdir('/proc/self/task'))
        ours.send(b'reply')
        found['sent'] = theirs.recv(100).decode()
    """
    found = confined(before, after, folder=slot)
    assert found["thread"] == "hello"
    assert (found["nicer"], found["batch"], found["own signal"]) == ("done", "done", "done")
    assert found["answer"] == [0, 2]
    assert found["threads"] > 2
    assert found["sent"] == "reply"


@needs_landlock
def test_a_folder_for_compiled_engines_can_be_written_and_nothing_else(slot: Path, tmp_path: Path) -> None:
    engines = tmp_path / "engines"
    engines.mkdir()
    after = f"""
        def write(path):
            with open(path, 'wb') as file: file.write(b'engine')
        tried('engine', write, '{engines}/engine')
        tried('rename', os.rename, '{engines}/engine', '{engines}/engine.2')
        tried('model', write, '{slot}/model.onnx')
        tried('elsewhere', write, '{tmp_path}/elsewhere')
        found['driver'] = os.environ['CUDA_CACHE_PATH']
    """
    found = confined("", after, folder=slot, writable=[str(engines)], accelerator=True)
    assert (found["engine"], found["rename"]) == ("done", "done")
    assert (found["model"], found["elsewhere"]) == (errno.EACCES, errno.EACCES)
    assert found["driver"] == f"{engines}/driver"


DRIVER = """
    import socket, threading, ctypes
    def number(path):
        with open(path, 'w') as file: file.write('cuda')
    def sending():
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    tried('device', os.open, '/dev/full', os.O_RDWR)
    tried('name', number, f'/proc/self/task/{threading.get_native_id()}/comm')
    tried('library', open, LIBRARY, 'rb')
    def ear():
        global heard
        heard = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        heard.bind(chr(0) + f'cuda-uvmfd-{os.getpid()}')
        heard.listen()
    tried('ear', ear)
    tried('model', os.open, MODEL, os.O_RDWR)
    tried('new file', os.open, MODEL + '.new', os.O_RDWR | os.O_CREAT)
    tried('elsewhere', os.open, '/dev/zero', os.O_RDWR)
    tried('sending', sending)
    tried('network', socket.socket)
    tried('asking', lambda: heard.connect(chr(0) + 'stranger'))
    tried('letting in', lambda: heard.accept())
    tried('shorten', os.ftruncate, arena, 0)
    tried('unlink', os.unlink, MODEL)
"""


@needs_seccomp
@needs_landlock
def test_what_a_gpus_driver_asks_for_works_with_an_accelerator_and_nothing_beside_it(
    slot: Path, tmp_path: Path
) -> None:
    """As the driver of an NVIDIA H100 did: strace, and CUDA failure 304 where one of them was refused."""
    library = tmp_path / "driver" / "libcuda.so.1"
    library.parent.mkdir()
    library.write_bytes(b"library")
    cache = tmp_path / "cache"
    cache.write_bytes(b"glibc-ld.so.cache1.1 libcuda.so.1\0" + os.fsencode(library) + b"\0")
    before = f"""
        arena = os.memfd_create('arena')
        LIBRARY, MODEL = '{library}', '{slot}/model.onnx'
        worker_sandbox._LIBRARY_CACHE = '{cache}'
        worker_sandbox._DEVICES = ('/dev/full',)
    """
    found = confined(before, DRIVER, folder=slot, accelerator=True)
    assert found.pop("missing") == []
    assert [found.pop(name) for name in ("device", "name", "library", "ear")] == ["done"] * 4
    assert found.pop("unlink") == errno.ENOENT  # and it is still there
    assert (slot / "model.onnx").exists()
    assert set(found.values()) <= {errno.EPERM, errno.EACCES}, found
    assert len(found) == 8
    before += "\n        heard = socket = __import__('socket').socketpair()[0]"
    without = confined(before, DRIVER, folder=slot)
    assert "done" not in without.values(), without


def test_a_kernel_without_the_means_is_told_and_the_rest_still_holds(slot: Path) -> None:
    before = """
        from agent.serving import worker_landlock, worker_seccomp
        worker_landlock._CREATE = 9999
        worker_seccomp._ARCHITECTURES.clear()
    """
    found = confined(before, f"tried('make', lambda: open('{slot}/new', 'wb').write(b'x' * 9000))", folder=slot)
    assert [text.partition(" ")[0] for text in found["missing"]] == ["Landlock", "seccomp"]
    assert found["make"] == errno.EFBIG  # by the limit of file sizes


async def test_only_the_worker_is_confined_not_the_fork_server_nor_the_next_worker_twice(
    tmp_path: Path, digits_model: Path
) -> None:
    def fact(pid: int, name: str) -> str:
        found = re.search(rf"^{name}:\s+(\S+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        assert found
        return found[1]

    def limits(pid: int) -> str:
        return Path(f"/proc/{pid}/limits").read_text()

    def without_core(text: str) -> str:
        return re.sub(r"^Max core file size.*$", "", text, flags=re.MULTILINE)

    async with endpoint(tmp_path) as running:
        for version in ("1.0.0", "2.0.0"):
            await running.serving.load(model_file(digits_model, version))
        everyone = children_of(os.getpid())
        (forks,) = [pid for pid, line in everyone.items() if "fork_server" in line and len(children_of(pid)) == 2]
        workers = list(children_of(forks))
        assert (fact(forks, "NoNewPrivs"), fact(forks, "Seccomp")) == (
            fact(os.getpid(), "NoNewPrivs"),
            fact(os.getpid(), "Seccomp"),
        )
        # But for core files, which no child of the agent writes.
        assert without_core(limits(forks)) == without_core(limits(os.getpid()))
        for worker in workers:
            assert fact(worker, "NoNewPrivs") == "1"
            assert fact(worker, "Seccomp") == "2"
            assert fact(worker, "Seccomp_filters") == "1"
            assert re.search(r"Max core file size +0 +0", limits(worker))
            assert re.search(r"Max file size +0 +0", limits(worker))


@pytest.mark.parametrize(
    ("machine", "header", "pattern"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"__NR_(\w+) (\d+)"),
        ("aarch64", "/usr/include/asm-generic/unistd.h", r"__NR(?:3264)?_(\w+) (\d+)"),
    ],
)
def test_the_numbers_of_the_calls_are_the_kernels(machine: str, header: str, pattern: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"{header} (linux-libc-dev) is not installed")
    kernels = dict(re.findall(rf"#define {pattern}", Path(header).read_text()))
    column = SHARED_MACHINES.index(machine)
    known = {**worker_seccomp.NEVER, **worker_seccomp.CHANGES, **worker_seccomp.EARS, **worker_seccomp.LOOKED_AT}
    compared = {name: (pair[column], int(kernels[name])) for name, pair in known.items() if name in kernels}
    assert {name: pair for name, pair in compared.items() if pair[0] != pair[1]} == {}
    assert len(compared) > 100


@pytest.mark.parametrize("machine", SHARED_MACHINES)
@pytest.mark.parametrize("may_write", [False, True])
@pytest.mark.parametrize("devices", [False, True])
def test_every_jump_of_the_filter_lands_inside_and_every_path_ends(
    machine: str, may_write: bool, devices: bool
) -> None:
    lines = worker_seccomp.program(machine, pid=42, may_write=may_write, devices=devices)
    assert len(lines) < 4096  # the kernel's limit
    for at, (operation, true, false, _) in enumerate(lines):
        assert at + 1 + max(true, false) < len(lines) or operation == 0x06
    assert lines[-1][0] == 0x06
