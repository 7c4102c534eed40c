"""What a PKCS#11 module's process may not do, for nobody knows what is in one: limits and a system call filter."""

import errno
import os
import resource
import signal
from collections.abc import Iterator

try:
    import seccomp
except ImportError:  # it comes from the distribution (Debian: python3-seccomp), for its own Python
    seccomp = None

_MAX_FILE_BYTES = 1 << 20  # SoftHSM and OpenSC write small files
_MAX_OPEN_FILES = 128
_MAX_ADDRESS_SPACE_BYTES = 2 << 30

# No other program, no other process, no other name space, nothing that changes the machine.
_DENIED = """
    execve execveat
    ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp move_pages migrate_pages
    pidfd_open pidfd_getfd pidfd_send_signal tkill
    bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register fanotify_init lookup_dcookie
    mount umount umount2 mount_setattr move_mount open_tree fsopen fsconfig fsmount fspick pivot_root chroot
    unshare setns open_by_handle_at quotactl quotactl_fd swapon swapoff acct
    add_key request_key keyctl
    kexec_load kexec_file_load init_module finit_module delete_module reboot
    settimeofday clock_settime clock_adjtime adjtimex stime sethostname setdomainname
    iopl ioperm modify_ldt vm86 vm86old syslog vhangup uselib personality
"""

_AF_UNIX, _AF_NETLINK, _NETLINK_KOBJECT_UEVENT = 1, 16, 15
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
# CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_CLONE_NEW = (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
_INT = 0xFFFFFFFF  # the kernel takes the lower half of such an argument


def confine() -> bool:
    """Limit this process for good; tell whether the kernel took the filter.

    Call it with a single thread, with no_new_privs set, and before the module is loaded. What is denied fails with
    EPERM; it does not kill, for a module may well live without it.
    """
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_FILE_BYTES, _MAX_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MAX_OPEN_FILES, _MAX_OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_ADDRESS_SPACE_BYTES, _MAX_ADDRESS_SPACE_BYTES))
    if seccomp is None:
        return False
    try:
        _filter().load()
    except (OSError, RuntimeError):  # a kernel without filters
        return False
    return True


def _filter() -> "seccomp.SyscallFilter":
    denied = seccomp.ERRNO(errno.EPERM)
    found = seccomp.SyscallFilter(seccomp.ALLOW)
    found.set_attr(seccomp.Attr.ACT_BADARCH, denied)  # 32-bit system calls would go around the rules
    for name in _DENIED.split():
        if seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) != -1:  # an older library does not know the newest
            found.add_rule(denied, name)
    for name, argument in _conditions():
        found.add_rule(denied, name, argument)
    found.add_rule(
        denied,
        "socket",
        seccomp.Arg(0, seccomp.EQ, _AF_NETLINK),
        seccomp.Arg(2, seccomp.NE, _NETLINK_KOBJECT_UEVENT),
    )
    # Its flags are out of a filter's sight; without it, the C library uses clone.
    found.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    return found


def _conditions() -> Iterator[tuple[str, "seccomp.Arg"]]:
    """System calls that are denied for some values of one argument."""
    # Sockets: to pcscd, and for libusb to hear of devices (netlink, see above).
    for family in range(_AF_NETLINK):
        if family != _AF_UNIX:
            yield "socket", seccomp.Arg(0, seccomp.EQ, family)
    yield "socket", seccomp.Arg(0, seccomp.GT, _AF_NETLINK)
    for flag in _CLONE_NEW:
        yield "clone", seccomp.Arg(0, seccomp.MASKED_EQ, flag, flag)
    for number in (_TIOCSTI, _TIOCLINUX):
        yield "ioctl", seccomp.Arg(1, seccomp.MASKED_EQ, _INT, number)
    # Signals and limits: its own only. The agent is of the same user.
    for name in ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        yield name, seccomp.Arg(0, seccomp.NE, os.getpid())
    yield "prlimit64", seccomp.Arg(0, seccomp.NE, 0)
