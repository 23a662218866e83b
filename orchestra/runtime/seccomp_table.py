"""The default system call policy of containers, written as a table: what is allowed, to whom, and why not.

Everything that is not listed fails with EPERM; a call newer than this table with ENOSYS, so that a C
library falls back to an older one. Not listed on purpose:

- kernel keyrings (add_key, keyctl, request_key): not separated by namespaces
- io_uring_*: a second way to most calls that no filter sees, and a long record of holes
- userfaultfd, move_pages, migrate_pages: tools for kernel exploits, or act beyond the container
- kexec_*, swapon, swapoff, pivot_root, nfsservctl, sysfs, ustat, uselib, vm86, obsolete calls
- clone with namespace flags, clone3, unshare, setns, mount and its family: with CAP_SYS_ADMIN only
- sockets of the families AF_VSOCK (reaches the hypervisor) and AF_ALG (kernel crypto), on i386 also
  the multiplexed way (socketcall) to any socket: its arguments lie in memory, where no filter looks
"""

from __future__ import annotations

from typing import Any

# files; memory; processes and identity; signals; waiting and timers; sockets and messages; the rest
ALWAYS = """
_llseek access arm_fadvise64_64 arm_sync_file_range chdir chmod chown chown32 close close_range
copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark
fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr file_getattr
file_setattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
ftruncate ftruncate64 get_thread_area getcwd getdents getdents64 getxattr getxattrat inotify_add_watch
inotify_init inotify_init1 inotify_rm_watch ioctl landlock_create_ruleset lchown lchown32 lgetxattr link
linkat listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 mkdir
mkdirat mknod mknodat name_to_handle_at newfstatat oldfstat oldlstat oldstat open openat openat2
pidfd_open pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readdir readlink
readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir set_thread_area setxattr
setxattrat splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range
syncfs tee truncate truncate64 umask unlink unlinkat vmsplice write writev

brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2
mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free
pkey_mprotect process_mrelease remap_file_pages

arch_prctl breakpoint cacheflush capget capset execve execveat exit exit_group fork get_robust_list
get_tls getcpu getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp
getpid getppid getpriority getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid
getuid getuid32 landlock_add_rule landlock_restrict_self lsm_get_self_attr lsm_list_modules
lsm_set_self_attr modify_ldt nice oldolduname olduname prctl prlimit64 ptrace restart_syscall
riscv_flush_icache rseq sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield seccomp set_robust_list set_tid_address set_tls setfsgid setfsgid32
setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid setregid32
setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 sysinfo
ugetrlimit uname vfork wait4 waitid waitpid

alarm kill pause pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaction
sigaltstack signal signalfd signalfd4 sigpending sigprocmask sigreturn sigsuspend tgkill tkill

_newselect adjtimex clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
clock_nanosleep_time64 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd
eventfd2 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat getitimer
gettimeofday nanosleep poll ppoll ppoll_time64 pselect6 pselect6_time64 sched_rr_get_interval_time64
select setitimer time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64
timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
timerfd_settime64 times utime utimensat utimensat_time64 utimes

accept accept4 bind connect getpeername getsockname getsockopt ipc listen mq_getsetattr mq_notify
mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget
msgrcv msgsnd recv recvfrom recvmmsg recvmmsg_time64 recvmsg semctl semget semop semtimedop
semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget
shutdown socketpair

getrandom io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit
ioprio_get ioprio_set
"""

# Held by few, and only useful with the capability.
BY_CAPABILITY: dict[str, str] = {
    "CAP_SYS_ADMIN": "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount"
    " mount_setattr move_mount open_tree open_tree_attr perf_event_open quotactl quotactl_fd"
    " setdomainname sethostname setns syslog umount umount2 unshare",
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_adjtime clock_adjtime64 clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}

Rule = dict[str, Any]
_ALLOW = "SCMP_ACT_ALLOW"
_LOW = 0xFFFFFFFF  # int arguments: the kernel ignores the upper half, so a filter must too
_NAMESPACES = 0x7E020000  # CLONE_NEWNS NEWCGROUP NEWUTS NEWIPC NEWUSER NEWPID NEWNET
# PER_LINUX, PER_LINUX32, both with UNAME26, and "only tell me"
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
# 0 … 47 without 38 (AF_ALG) and 40 (AF_VSOCK), as (mask, value)
_FAMILIES = (
    (0xFFFFFFE0, 0),
    (0xFFFFFFFC, 32),
    (0xFFFFFFFE, 36),
    (_LOW, 39),
    (_LOW, 41),
    (0xFFFFFFFE, 42),
    (0xFFFFFFFC, 44),
)


def _masked(name: str, mask: int, value: int) -> Rule:
    return {
        "names": [name],
        "action": _ALLOW,
        "args": [{"index": 0, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}],
    }


def rules(capabilities: set[str]) -> list[Rule]:
    """The OCI rules for a container that holds these capabilities."""
    names = set(ALWAYS.split())
    for capability, words in BY_CAPABILITY.items():
        if capability in capabilities:
            names.update(words.split())
    found: list[Rule] = [{"names": sorted(names), "action": _ALLOW}]
    found += [_masked("personality", _LOW, value) for value in _PERSONALITIES]
    found += [_masked("socket", mask, value) for mask, value in _FAMILIES]
    found.append(
        {"names": ["socketcall"], "action": _ALLOW, "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_GT"}]}
    )
    if "CAP_SYS_ADMIN" not in capabilities:
        found.append(_masked("clone", _NAMESPACES, 0))
        found.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38})
    return found
