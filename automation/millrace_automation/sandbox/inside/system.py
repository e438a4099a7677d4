"""System calls that Python does not offer, by ctypes. Numbers are those of x86-64 and of the kernel's generic table (aarch64)."""

import _signal
import ctypes
import os
import platform
import struct

IS_ARM = platform.machine() == 'aarch64'
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_CLONE_VM, _CLONE_FILES, _CLONE_PIDFD = 0x100, 0x400, 0x1000
WAIT_ALL = 0x40000000  # __WALL: also for children that end without a signal

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38

_SYS_CLONE = 220 if IS_ARM else 56
_SYS_PIVOT_ROOT = 41 if IS_ARM else 155
_SYS_CAPSET = 91 if IS_ARM else 126
_SYS_CLOSE_RANGE, _SYS_MOUNT_SETATTR = 436, 442
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV, _MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000

# the library calls keep Python's lock: every process here has one thread, and a clone must not lose it half-way
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype, _libc.syscall.argtypes = ctypes.c_long, [ctypes.c_void_p] * 7
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_pause = ctypes.cast(_libc.pause, ctypes.c_void_p)
Argument = int | bytes | ctypes.Array | ctypes.c_void_p | None


def _checked(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), what)
    return result


def syscall(
    what: str, number: int, a: Argument = 0, b: Argument = 0, c: Argument = 0, d: Argument = 0, e: Argument = 0, f: Argument = 0
) -> int:
    """Raises OSError with `what` in place of a file name."""
    return _checked(_libc.syscall(number, a, b, c, d, e, f), what)


def prctl(option: int, argument: int = 0, pointer: ctypes.Array | None = None) -> int:
    second = ctypes.c_void_p(None) if pointer is None else pointer
    return _checked(_libc.prctl(option, ctypes.c_ulong(argument), second, ctypes.c_ulong(0), ctypes.c_ulong(0)), f'prctl {option}')


_pidfd = ctypes.c_int()


def clone(flags: int) -> tuple[int, int]:
    """A fork with clone's flags: the child's pid (0 in the child), and its pidfd. Its end sends no signal: wait for it with WAIT_ALL. See
    `fork` for what is left out; the C library's care is left out too, so the child runs code of this package only.
    """
    pid = syscall('clone', _SYS_CLONE, flags | _CLONE_PIDFD, 0, _pointer(_pidfd), 0, 0)
    return pid, _pidfd.value


def clone_pausing(flags: int, stack_end: int) -> tuple[int, int]:
    """The same, but the child has this process's memory and descriptors instead of a copy, and only calls the C library's pause()."""
    flags |= _CLONE_VM | _CLONE_FILES | _CLONE_PIDFD
    pid = _libc.clone(_pause, ctypes.c_void_p(stack_end), ctypes.c_int(flags), None, ctypes.byref(_pidfd))
    return _checked(pid, 'clone'), _pidfd.value


def _pointer(value: ctypes.c_int) -> ctypes.c_void_p:
    return ctypes.cast(ctypes.byref(value), ctypes.c_void_p)


def fork() -> int:
    """The C library's fork: 0 in the child. The caller must have one thread.

    os.fork would also make all of Python's locks anew and forget its threads: with one thread nothing of that is amiss, and it costs
    half a millisecond of copied pages. What else it does, a new random seed, is the child's to do.
    """
    return _checked(_libc.fork(), 'fork')


def unshare(flags: int) -> None:
    _checked(_libc.unshare(flags), 'unshare')


def enter(descriptor: int, kinds: int) -> None:
    """The namespaces of a process, by its pidfd, or the one that the descriptor stands for. 0: whichever it is."""
    _checked(_libc.setns(descriptor, kinds), 'setns')


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    given = _libc.mount(source.encode(), target.encode(), kind and kind.encode(), flags, options and options.encode())
    _checked(given, f'mount {target}')


def protect_mount(target: str) -> None:
    """Makes a bound tree and all mounts below it read-only, without devices and set-user-id programs."""
    try:
        _set_mount_attributes(target, _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV)
    except OSError:  # before Linux 5.12: the topmost mount only, where Landlock and the user's rights still hold
        mount('', target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)


def protect_device(target: str) -> None:
    try:
        _set_mount_attributes(target, _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NOEXEC)
    except OSError:
        mount('', target, None, MS_BIND | MS_REMOUNT | MS_NOSUID | MS_NOEXEC)


def _set_mount_attributes(target: str, wanted: int) -> None:
    attributes = struct.pack('=QQQQ', wanted, 0, 0, 0)
    syscall(f'mount_setattr {target}', _SYS_MOUNT_SETATTR, _AT_FDCWD, target.encode(), _AT_RECURSIVE, attributes, len(attributes))


def pivot_to_here() -> None:
    """Makes the working directory, a mount point, the root and forgets the old one."""
    syscall('pivot_root', _SYS_PIVOT_ROOT, b'.', b'.')
    _checked(_libc.umount2(b'.', MNT_DETACH), 'umount of the old root')


_prctl = ctypes.PyDLL(None).prctl
_prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


def drop_bounding_capabilities() -> None:
    """Those that an exec could give back. What this process has now, it keeps."""
    for capability in range(64):
        if _prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # one beyond the last, or no right to: then no_new_privs keeps exec from giving any


def drop_capabilities() -> None:
    """What this process has, for ever. Clears the ambient set with it."""
    syscall('capset', _SYS_CAPSET, struct.pack('Ii', 0x20080522, 0), bytes(24))


def close_from(lowest: int) -> None:
    try:
        syscall('close_range', _SYS_CLOSE_RANGE, lowest, 0xFFFFFFFF, 0)
    except OSError:  # before Linux 5.9
        os.closerange(lowest, os.sysconf('SC_OPEN_MAX'))


def take_descriptors(null: int, descriptors: tuple[int, ...]) -> None:
    """Puts them at 1 and on, `null` at 0, and closes whatever else the parent had. They all lie above that: see `keep_low`."""
    os.dup2(null, 0)
    for number, descriptor in enumerate(descriptors, 1):
        os.dup2(descriptor, number)
    close_from(len(descriptors) + 1)


def keep_low(count: int) -> int:
    """Fills the lowest descriptor numbers, so that what is opened from now on lies above. The last of them, all to /dev/null."""
    while (null := os.open('/dev/null', os.O_RDWR | os.O_CLOEXEC)) < count:
        pass
    return null


def unblock_signals() -> None:
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def write_file(path: str, text: str, folder: int | None = None) -> None:
    """In a single write, as kernel files want it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.write(descriptor, text.encode())
    except OSError as fault:
        raise OSError(fault.errno, fault.strerror, path) from None
    finally:
        os.close(descriptor)
