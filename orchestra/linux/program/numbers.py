"""Numbers of the system calls on x86-64 that programs use."""

from __future__ import annotations


class NR:
    read, write, close, rt_sigaction, rt_sigprocmask, dup2, execve = 0, 1, 3, 13, 14, 33, 59
    chdir, fchdir, fchown, umask, setsid, setgroups, setresuid, setresgid = 80, 81, 93, 95, 112, 116, 117, 119
    capset, pivot_root, prctl, mount, umount2, sethostname, setdomainname = 126, 155, 157, 165, 166, 170, 171
    keyctl, openat, mkdirat, mknodat, fchownat, symlinkat, unshare = 250, 257, 258, 259, 260, 266, 272
    prlimit64, setns, seccomp, open_tree, move_mount, fsopen, fsconfig, fsmount = (
        302,
        308,
        317,
        428,
        429,
        430,
        431,
        432,
    )
    close_range, openat2, faccessat2, mount_setattr = 436, 437, 439, 442
