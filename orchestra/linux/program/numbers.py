"""Numbers of the system calls on x86-64 that programs use."""

from __future__ import annotations


class NR:
    # fmt: off
    read, write, close, rt_sigaction, rt_sigprocmask, dup2, recvfrom, clone, execve = 0, 1, 3, 13, 14, 33, 45, 56, 59
    chdir, fchdir, fchown, umask, setsid, setgroups, setresuid, setresgid = 80, 81, 93, 95, 112, 116, 117, 119
    capset, pivot_root, prctl, mount, umount2, sethostname, setdomainname = 126, 155, 157, 165, 166, 170, 171
    exit_group, keyctl, openat, mkdirat, mknodat, fchownat, symlinkat = 231, 250, 257, 258, 259, 260, 266
    unshare, prlimit64, setns, seccomp, open_tree, move_mount = 272, 302, 308, 317, 428, 429
    fsopen, fsconfig, fsmount, close_range, openat2, faccessat2, mount_setattr = 430, 431, 432, 436, 437, 439, 442
    # fmt: on
