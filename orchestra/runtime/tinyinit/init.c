/* The init of `init: true` where the machine has no tini, catatonit or dumb-init.
 *
 * usage: init -- PROGRAM [ARGUMENT...]
 *
 * Starts the program as a child in a session group of its own, passes every signal on to it, reaps
 * whatever is orphaned, and exits as the program did (128 + n when a signal n ended it). No C library:
 * a static program of about two kilobytes, for x86-64.
 *
 *   gcc -Os -static -nostdlib -nostartfiles -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables \
 *       -fno-tree-loop-distribute-patterns -fcf-protection=none -Wl,--build-id=none,-z,noseparate-code,-N,-s -o init init.c
 */

typedef unsigned long word;

static long call(long number, long a, long b, long c, long d)
{
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

enum { SYS_WRITE = 1, SYS_IOCTL = 16, SYS_RT_SIGPROCMASK = 14, SYS_FORK = 57, SYS_EXECVE = 59, SYS_EXIT = 60, SYS_WAIT4 = 61,
       SYS_KILL = 62, SYS_SETPGID = 109, SYS_RT_SIGTIMEDWAIT = 128, SYS_RT_SIGACTION = 13 };
enum { SIGCHLD = 17, SIGTTIN = 21, SIGTTOU = 22, WNOHANG = 1, TIOCSPGRP = 0x5410, ENOENT = 2, ENOTDIR = 20 };

struct action { void (*handler)(int); word flags; void (*restorer)(void); word mask; };

__attribute__((noinline, optimize("no-tree-loop-distribute-patterns"))) static word length(const char *text)
{
    word n = 0;
    while (text[n])
        n++;
    return n;
}

static void fail(const char *program, int status)
{
    static const char head[] = "init: cannot run ";
    call(SYS_WRITE, 2, (long)head, sizeof head - 1, 0);
    call(SYS_WRITE, 2, (long)program, length(program), 0);
    call(SYS_WRITE, 2, (long)"\n", 1, 0);
    call(SYS_EXIT, status, 0, 0, 0);
}

static const char *variable(char **environment, const char *name)
{
    word n = length(name);
    for (; *environment; environment++) {
        word i = 0;
        while (i < n && (*environment)[i] == name[i])
            i++;
        if (i == n && (*environment)[n] == '=')
            return *environment + n + 1;
    }
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

static void execute(char **arguments, char **environment)
{
    static char path[4096];
    const char *program = arguments[0], *place = variable(environment, "PATH"), *p;
    long result = -ENOENT, got;
    for (p = program; *p; p++)
        if (*p == '/') {
            result = call(SYS_EXECVE, (long)program, (long)arguments, (long)environment, 0);
            fail(program, result == -ENOENT || result == -ENOTDIR ? 127 : 126);
        }
    while (*place) {
        word n = 0, i;
        while (*place && *place != ':' && n < 2048)
            path[n++] = *place++;
        while (*place && *place != ':')
            place++;
        if (*place)
            place++;
        path[n++] = '/';
        for (i = 0; program[i] && n < sizeof path - 1; i++)
            path[n++] = program[i];
        path[n] = 0;
        got = call(SYS_EXECVE, (long)path, (long)arguments, (long)environment, 0);
        if (got != -ENOENT && got != -ENOTDIR)
            result = got;
    }
    fail(program, result == -ENOENT ? 127 : 126);
}

static int outcome(int status)
{
    return (status & 127) ? 128 + (status & 127) : (status >> 8) & 255;
}

__attribute__((used)) static void begin(word *stack)
{
    long count = stack[0], child, pid;
    char **arguments = (char **)(stack + 1), **environment = arguments + count + 1;
    word all = ~0UL, before = 0;
    int status;
    struct action ignore = { (void (*)(int))1, 0, 0, 0 }, standard = { 0, 0, 0, 0 };

    if (count > 1 && arguments[1][0] == '-' && arguments[1][1] == '-' && !arguments[1][2])
        arguments++, count--;
    if (count < 2)
        call(SYS_EXIT, 2, 0, 0, 0);
    call(SYS_RT_SIGPROCMASK, 0, (long)&all, (long)&before, 8);
    call(SYS_RT_SIGACTION, SIGTTIN, (long)&ignore, 0, 8);
    call(SYS_RT_SIGACTION, SIGTTOU, (long)&ignore, 0, 8);
    child = call(SYS_FORK, 0, 0, 0, 0);
    if (child == 0) {
        int own;
        call(SYS_SETPGID, 0, 0, 0, 0);
        own = (int)call(39, 0, 0, 0, 0); /* getpid */
        call(SYS_IOCTL, 0, TIOCSPGRP, (long)&own, 0);
        call(SYS_RT_SIGACTION, SIGTTIN, (long)&standard, 0, 8);
        call(SYS_RT_SIGACTION, SIGTTOU, (long)&standard, 0, 8);
        call(SYS_RT_SIGPROCMASK, 2, (long)&before, 0, 8);
        execute(arguments + 1, environment);
    }
    for (;;) {
        long signal = call(SYS_RT_SIGTIMEDWAIT, (long)&all, 0, 0, 8);
        if (signal > 0 && signal != SIGCHLD)
            call(SYS_KILL, child, signal, 0, 0);
        while ((pid = call(SYS_WAIT4, -1, (long)&status, WNOHANG, 0)) > 0)
            if (pid == child)
                call(SYS_EXIT, outcome(status), 0, 0, 0);
        if (pid == -10) /* ECHILD: nothing is left */
            call(SYS_EXIT, 255, 0, 0, 0);
    }
}

__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall begin\n");
