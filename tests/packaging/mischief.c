/* A storagenode that says its version as it should, after it has tried what it should not be able to do. Each attempt is
 * a line on standard output: `done` or the error, and what it was. What outlives it, or is left behind, is looked for by
 * who runs it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/netlink.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

extern char **environ;

static void said(int result, const char *what, const char *about) {
    printf("%s: %s %s\n", result < 0 ? strerror(errno) : "done", what, about);
    fflush(stdout);
}

static void readable(const char *path) { said(open(path, O_RDONLY), "read", path); }
static void writable(const char *path) { said(open(path, O_WRONLY), "write", path); }

static void creatable(const char *folder) {
    char path[4096];
    snprintf(path, sizeof path, "%s/planted", folder);
    said(open(path, O_WRONLY | O_CREAT, 0666), "create", path);
}

static void reachable(const char *path) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path, path, sizeof to.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    said(fd < 0 ? fd : connect(fd, (struct sockaddr *)&to, sizeof to), "connect", path);
}

static void reachable_by_ip(int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    said(fd < 0 ? fd : connect(fd, (struct sockaddr *)&to, sizeof to), "connect", "127.0.0.1");
}

static void others(void) {
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    int seen = 0;
    char path[300];
    while (processes && (entry = readdir(processes))) {
        int pid = atoi(entry->d_name);
        if (pid <= 0 || pid == getpid()) continue;
        snprintf(path, sizeof path, "/proc/%d/environ", pid);
        if (open(path, O_RDONLY) >= 0 || !kill(pid, 0) || !ptrace(PTRACE_SEIZE, pid, 0, 0)) seen++;
    }
    errno = EPERM;
    said(seen ? 0 : -1, "touch", "other processes");
}

int main(void) {
    struct stat input;
    static const char *secrets[] = {MISCHIEF_READ}, *targets[] = {MISCHIEF_WRITE}, *folders[] = {MISCHIEF_CREATE};
    for (char **variable = environ; *variable; variable++) printf("environment: %s\n", *variable);
    for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++) readable(secrets[i]);
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) writable(targets[i]);
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) creatable(folders[i]);
    said(open("/proc/self/exe", O_WRONLY), "write", "itself");
    if (!fstat(0, &input) && S_ISREG(input.st_mode)) /* elsewhere it may be the /dev/null of everybody */
        said(fchmod(0, 04755), "chmod", "standard input");
    reachable("/run/dbus/system_bus_socket");
    reachable("/run/systemd/private");
    reachable("/run/systemd/notify");
    reachable_by_ip(MISCHIEF_PORT);
    said(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), "talk", "netlink");
    others();
    said(kill(1, SIGTERM), "kill", "1");
    said(setuid(0), "become", "root");
    said(setgroups(0, NULL), "leave", "groups");
    said(unshare(CLONE_NEWUSER), "make", "a user namespace");
    said(mount("none", "/tmp", "tmpfs", 0, NULL), "mount", "/tmp");
    said(chroot("/tmp"), "chroot", "/tmp");
    int forks = 0;
    while (forks < 2000) {
        pid_t child = fork();
        if (child < 0) break;
        if (child == 0) {
            setsid();
            prctl(PR_SET_NAME, "mischief");
            for (int fd = 0; fd < 64; fd++) close(fd);
            sleep(300);
            _exit(0);
        }
        forks++;
    }
    printf("forks: %d\n", forks);
    printf("Release build\nVersion: v1.104.5\n");
    return fflush(stdout) != 0;
}
