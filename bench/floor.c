/* What the kernel takes for the steps of a container's start, in microseconds.
 *
 * usage: floor OVERLAY-OPTIONS MOUNTPOINT [CGROUP...]      (the last: directories that do not exist yet, one a hierarchy)
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
static char stack[1 << 16], at[4096];
static char **a;
static int argc, groups;
static double began, last;
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e6 + t.tv_nsec / 1e3; }
static void step(const char *name) { double t = now(); printf("%s\t%.1f\n", name, t - last); last = now(); }
static void need(int failed, const char *what) { if (failed) { perror(what); fflush(stdout); _exit(1); } }
static const char *group(int i, const char *file) { snprintf(at, sizeof at, "%s/%s", a[3 + i], file); return at; }

/* what a start does in the kernel, and nothing else: see `floor` */
static int child(void *unused) {
    need(unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS), "unshare");
    step("namespaces");
    need(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL), "propagation");
    need(mount("overlay", a[2], "overlay", 0, a[1]) || chdir(a[2]), "overlay");
    const char *mounts[][4] = {{"proc", "proc", "", ""}, {"tmpfs", "dev", "", "mode=755"}, {"devpts", "dev/pts", "x", "newinstance,ptmxmode=0666"},
        {"tmpfs", "dev/shm", "x", "mode=1777"}, {"mqueue", "dev/mqueue", "x", ""}, {"sysfs", "sys", "", ""}};
    for (int i = 0; i < 6; i++) {
        if (*mounts[i][2]) need(mkdir(mounts[i][1], 0755), "mkdir");
        need(mount(mounts[i][0], mounts[i][1], mounts[i][0], 0, mounts[i][3]), mounts[i][1]);
    }
    int minors[] = {3, 5, 7, 8, 9};
    for (int i = 0; i < 5; i++) { snprintf(at, sizeof at, "dev/%d", i); need(mknod(at, S_IFCHR | 0666, makedev(1, minors[i])), "mknod"); }
    if (groups) need(mount("tmpfs", "sys/fs/cgroup", "tmpfs", 0, "mode=755"), "cgroup tmpfs");
    for (int i = 0; i < groups; i++) {
        snprintf(at, sizeof at, "sys/fs/cgroup/%d", i);
        need(mkdir(at, 0755) || mount(a[3 + i], at, NULL, MS_BIND, NULL), "cgroup bind");
    }
    step("root and mounts");
    for (int i = 0; i < groups; i++) {
        int fd = open(group(i, "tasks"), O_WRONLY);
        if (fd < 0) fd = open(group(i, "cgroup.procs"), O_WRONLY);
        need(fd < 0 || write(fd, "0", 1) != 1, "join");
        close(fd);
    }
    need(unshare(CLONE_NEWCGROUP), "cgroup namespace");
    step("cgroup, joined");
    const char *covered[] = {"proc/kcore", "proc/keys", "proc/timer_list"}, *locked[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys"};
    for (int i = 0; i < 3; i++) mount("/dev/null", covered[i], NULL, MS_BIND, NULL);
    for (int i = 0; i < 4; i++) { mount(locked[i], locked[i], NULL, MS_BIND | MS_REC, NULL); mount(NULL, locked[i], NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL); }
    step("masked and read-only paths");
    need(syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH), "pivot_root");
    step("pivot_root");
    execl("/bin/sleep", "sleep", "0.05", NULL);
    _exit(1);
}
static char *add(char *to, int kind, const void *data, int size) {
    struct rtattr *r = (void *)to;
    r->rta_type = kind; r->rta_len = RTA_LENGTH(size);
    memcpy(RTA_DATA(r), data, size);
    return to + RTA_SPACE(size);
}
static void cable(int pid) {
    static int count;
    char name[16], message[1024] = {0}, info[512] = {0}, inner[256] = {0}, peer[256] = {0}, answer[1024], *m = message, *p = peer;
    snprintf(name, sizeof name, "obf%d-%d", getpid() % 10000, count++);
    struct nlmsghdr *h = (void *)m;
    m += NLMSG_HDRLEN + sizeof(struct ifinfomsg);
    m = add(m, IFLA_IFNAME, name, strlen(name) + 1);
    p += sizeof(struct ifinfomsg);
    p = add(p, IFLA_IFNAME, "eth0", 5);
    p = add(p, IFLA_NET_NS_PID, &pid, 4);
    char *i = add(inner, VETH_INFO_PEER, peer, p - peer);
    char *k = add(info, IFLA_INFO_KIND, "veth", 5);
    k = add(k, IFLA_INFO_DATA, inner, i - inner);
    m = add(m, IFLA_LINKINFO, info, k - info);
    h->nlmsg_len = m - message; h->nlmsg_type = RTM_NEWLINK; h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    need(send(s, message, h->nlmsg_len, 0) < 0 || recv(s, answer, sizeof answer, 0) < 0, "netlink");
    struct nlmsgerr *e = NLMSG_DATA((struct nlmsghdr *)answer);
    if (e->error) { fprintf(stderr, "veth: %d\n", e->error); exit(1); }
    close(s);
}
static void inherit(int i, const char *name) {  /* an empty cpuset takes nobody */
    char value[256];
    int fd = open(group(i, name), O_WRONLY), from;
    if (fd < 0) return;
    snprintf(at, sizeof at, "%s/../%s", a[3 + i], name);
    from = open(at, O_RDONLY);
    int size = read(from, value, sizeof value);
    need(size < 1 || write(fd, value, size) < 0, name);
    close(from); close(fd);
}
int main(int n, char **v) {
    a = v; argc = n; groups = n - 3;
    int status;
    began = last = now();
    for (int i = 0; i < groups; i++) { need(mkdir(a[3 + i], 0755), "mkdir of the cgroup"); inherit(i, "cpuset.cpus"); inherit(i, "cpuset.mems"); }
    step("cgroup, made");
    int pid = clone(child, stack + sizeof stack, CLONE_VM | CLONE_VFORK | CLONE_NEWPID | SIGCHLD, NULL);
    step("execve");
    cable(pid);
    step("cable");
    waitpid(pid, &status, 0);
    for (int i = 0; i < groups; i++) rmdir(a[3 + i]);
    return status != 0;
}
