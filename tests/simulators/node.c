/* A simulated storagenode: a real executable that answers `version`, refuses to start when it is too old, and serves the
 * node API. Its version is not compiled in: build.py writes it, with an optional misbehaviour, into the slot `stamp`. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS = 128, REQUEST_BYTES = 8192, DOCUMENT_BYTES = 4 << 20 };
#define DEFAULT_NODE_ID "12S5avehqmwSC8Z6o6cQqof7q87eJQJGUm8cB4kjvuaMC5TkEVB"
#define NOT_FOUND "web/storagenode unbuilt, run \"npm install && npm run build\" in web/storagenode.\n"
#define TIME_BYTES 64

static volatile char stamp[512] = "@simulated-storagenode-stamp@"; /* version \n release|dev \n misbehaviour \n */
static char version[64], kind[16], misbehaviour[400];
static char config[1 << 16];
static int signals = -1;

struct semver { long major, minor, patch; char pre[64]; };

static bool parse_version(const char *text, struct semver *v) {
    int end = 0;
    memset(v, 0, sizeof *v);
    if (*text == 'v') text++;
    if (sscanf(text, "%ld.%ld.%ld%n", &v->major, &v->minor, &v->patch, &end) != 3) return false;
    if (text[end] == '-') snprintf(v->pre, sizeof v->pre, "%.63s", text + end);
    return text[end] == '\0' || text[end] == '-';
}

static int compare(const struct semver *a, const struct semver *b) {
    if (a->major != b->major) return a->major < b->major ? -1 : 1;
    if (a->minor != b->minor) return a->minor < b->minor ? -1 : 1;
    if (a->patch != b->patch) return a->patch < b->patch ? -1 : 1;
    if (!*a->pre != !*b->pre) return *a->pre ? -1 : 1; /* a pre-release comes before its release */
    return strcmp(a->pre, b->pre);
}

static void print_version(const char *shown) {
    printf("%s build\nVersion: v%s\nBuild timestamp: 02 Jan 26 03:04 UTC\nGit commit: %040d\n\n",
           strcmp(kind, "dev") ? "Release" : "Development", shown, 0);
}

static int connect_to(const char *address, int timeout_ms);

/* Answer `version`, first doing what the stamp says a bad binary does. A file or address that must be out of reach but
 * is not ends in status 7. */
static int version_command(void) {
    char place[4096] = "/";
    int fd;
    if (!strcmp(misbehaviour, "exit1")) return 1;
    if (!strcmp(misbehaviour, "in-place") && readlink("/proc/self/exe", place, sizeof place - 1) > 0 &&
        !strcmp(strrchr(place, '/'), "/storagenode")) return 1;
    if (!strcmp(misbehaviour, "hang")) for (;;) pause();
    if (!strcmp(misbehaviour, "endless")) for (;;) print_version(version);
    if (!strncmp(misbehaviour, "says:", 5)) return print_version(misbehaviour + 5), 0;
    if (!strncmp(misbehaviour, "read:", 5) || !strncmp(misbehaviour, "connect:", 8)) {
        const char *target = strchr(misbehaviour, ':') + 1;
        fd = *misbehaviour == 'r' ? open(target, O_RDONLY) : connect_to(target, 2000);
        printf("%s %s\n", misbehaviour, fd < 0 ? strerror(errno) : "ok");
        if (fd >= 0) return 7;
    }
    print_version(version);
    return 0;
}

/* One line as upstream's console log has it: time, level, logger if any, message, fields (their keys were spelled
 * differently before 1.146). */
static void line(const char *level, const char *message, const char *fields, ...) {
    struct semver own = {0};
    char now[TIME_BYTES], buffer[1024];
    time_t seconds = time(NULL);
    va_list arguments;
    parse_version(version, &own);
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime(&seconds));
    va_start(arguments, fields);
    vsnprintf(buffer, sizeof buffer, fields, arguments);
    va_end(arguments);
    fprintf(stderr, "%s\t%s\t%s\t{\"%s\": \"storagenode\"%s%s}\n", now, level, message,
            own.major > 1 || own.minor >= 146 ? "process" : "Process", *buffer ? ", " : "", buffer);
}

/* The value of a `key: value` line of config.yaml, in a buffer that the next call reuses. */
static const char *setting(const char *key, const char *otherwise) {
    static char value[4096];
    size_t length = strlen(key), n;
    for (const char *at = config; at && *at; at = strchr(at, '\n'), at = at ? at + 1 : NULL) {
        if (strncmp(at, key, length) || at[length] != ':') continue;
        at += length + 1;
        at += strspn(at, " \t\"'");
        n = strcspn(at, "\n\"'");
        for (const char *hash = at; hash < at + n; hash++) if (!strncmp(hash, " #", 2)) { n = hash - at; break; }
        while (n && (at[n - 1] == ' ' || at[n - 1] == '\r')) n--;
        snprintf(value, sizeof value, "%.*s", (int)n, at);
        return value;
    }
    return otherwise;
}

static long long milliseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static int remaining(long long deadline) {
    long long left = deadline - milliseconds();
    return left < 0 ? 0 : (int)left;
}

static void answer_signals(void) {
    struct signalfd_siginfo info;
    if (read(signals, &info, sizeof info) != sizeof info) return;
    line("INFO", info.ssi_signo == SIGINT ? "Got a signal from the OS: \"interrupt\"" : "Got a signal from the OS: \"terminated\"", "");
    if (!strcmp(setting("sim.ignore-term", "false"), "true")) return;
    exit(atoi(setting("sim.exit-code-on-term", "0")));
}

/* Wait for one descriptor (or for none) until a deadline, answering signals meanwhile. */
static bool ready(int fd, short events, long long deadline) {
    for (;;) {
        struct pollfd p[2] = {{.fd = signals, .events = POLLIN}, {.fd = fd, .events = events}};
        int left = remaining(deadline);
        int n = poll(p, 2, left);
        if (p[0].revents) answer_signals();
        if (n >= 0 && p[1].revents) return true;
        if (left == 0) return false;
    }
}

/* A host:port as an address; only numbers and localhost, so nothing is ever looked up. */
static bool resolve(const char *text, struct sockaddr_in *to) {
    char host[64];
    unsigned port;
    memset(to, 0, sizeof *to);
    if (sscanf(text, "%63[^:/]:%u", host, &port) != 2) {
        if (sscanf(text, ":%u", &port) != 1) return errno = EINVAL, false;
        strcpy(host, "0.0.0.0");
    }
    to->sin_family = AF_INET;
    to->sin_port = htons((unsigned short)port);
    if (inet_pton(AF_INET, strcmp(host, "localhost") ? host : "127.0.0.1", &to->sin_addr) != 1) return errno = EINVAL, false;
    return true;
}

static int connect_to(const char *address, int timeout_ms) {
    struct sockaddr_in to;
    int problem = 0;
    socklen_t size = sizeof problem;
    if (!resolve(address, &to)) return -1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || !connect(fd, (struct sockaddr *)&to, sizeof to)) return fd;
    if (errno == EINPROGRESS) {
        if (!ready(fd, POLLOUT, milliseconds() + timeout_ms)) problem = ETIMEDOUT;
        else getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &size);
        if (!problem) return fd;
        errno = problem;
    }
    problem = errno;
    close(fd);
    errno = problem;
    return -1;
}

/* The version that follows processes.storagenode.minimum.version in the document. */
static bool find_minimum(const char *document, char *found, size_t size) {
    const char *path[] = {"\"processes\"", "\"storagenode\"", "\"minimum\"", "\"version\""};
    for (int i = 0; i < 4; i++) {
        if (!(document = strstr(document, path[i]))) return false;
        document += strlen(path[i]);
    }
    document += strspn(document, " \t\r\n:");
    if (*document++ != '"') return false;
    snprintf(found, size, "%.*s", (int)strcspn(document, "\""), document);
    return true;
}

/* Ask the version server for the minimum; NULL, or what went wrong. Redirects are not followed. */
static const char *fetch_minimum(char *minimum, size_t size) {
    static char document[DOCUMENT_BYTES];
    char address[128], request[256];
    size_t length = 0;
    int status = 0;
    struct semver ignored;
    long long deadline = milliseconds() + 5000;
    const char *url = setting("version.server-address", "https://version.storj.io");
    if (strncmp(url, "http://", 7)) return "only plain http is simulated";
    snprintf(address, sizeof address, "%.*s", (int)strcspn(url + 7, "/"), url + 7);
    int fd = connect_to(address, 5000);
    if (fd < 0) return strerror(errno);
    int n = snprintf(request, sizeof request, "GET / HTTP/1.0\r\nHost: %s\r\nUser-Agent: storagenode\r\n\r\n", address);
    if (send(fd, request, n, MSG_NOSIGNAL) != n) return close(fd), "cannot send";
    for (;;) {
        if (!ready(fd, POLLIN, deadline)) return close(fd), "context deadline exceeded";
        ssize_t got = read(fd, document + length, sizeof document - 1 - length);
        if (got <= 0) break;
        length += got;
    }
    close(fd);
    document[length] = '\0';
    char *body = strstr(document, "\r\n\r\n");
    if (!body || sscanf(document, "HTTP/1.%*d %d", &status) != 1) return "unexpected EOF";
    if (status != 200) return "non-success http status code";
    if (!find_minimum(body, minimum, size) || !parse_version(minimum, &ignored)) return "invalid version document";
    memmove(minimum, minimum + (*minimum == 'v'), strlen(minimum) + (*minimum != 'v'));
    return NULL;
}

static void rfc3339(char *out, struct timespec t) {
    char seconds[TIME_BYTES / 2];
    strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", gmtime(&t.tv_sec));
    snprintf(out, TIME_BYTES, "%s.%09ldZ", seconds, t.tv_nsec);
}

static void answer(int fd, const char *request, const char *started, const char *allowed) {
    char body[2048], head[512], date[TIME_BYTES], pinged[TIME_BYTES];
    struct timespec now;
    struct semver own = {0};
    bool api = !strncmp(request, "GET /api/sno/ ", 14) || !strncmp(request, "GET /api/sno/?", 14);
    clock_gettime(CLOCK_REALTIME, &now);
    rfc3339(pinged, now);
    parse_version(version, &own);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime(&now.tv_sec));
    if (api)
        snprintf(body, sizeof body,
                 "{\"nodeID\":\"%s\",\"wallet\":\"0x0000000000000000000000000000000000000001\",\"walletFeatures\":null,"
                 "\"satellites\":null,\"diskSpace\":{\"used\":0,\"available\":2000000000,\"overused\":0,%s},"
                 "\"bandwidth\":{\"used\":0,\"available\":0},\"lastPinged\":\"%s\",\"version\":\"%s\",\"allowedVersion\":\"%s\","
                 "\"upToDate\":true,\"startedAt\":\"%s\",\"configuredPort\":\"28967\",\"quicStatus\":\"OK\",\"lastQuicPingedAt\":\"%s\"}\n",
                 setting("sim.node-id", DEFAULT_NODE_ID),
                 own.major > 1 || own.minor >= 143 ? "\"allocated\":2000000000,\"trash\":0,\"reclaimable\":0" : "\"trash\":0",
                 pinged, version, allowed, started, pinged);
    else snprintf(body, sizeof body, "%s", NOT_FOUND);
    int n = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Type: %s\r\nReferrer-Policy: same-origin\r\nX-Content-Type-Options: nosniff\r\n"
                     "Date: %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", api ? "200 OK" : "404 Not Found",
                     api ? "application/json" : "text/plain; charset=utf-8", date, strlen(body));
    if (send(fd, head, n, MSG_NOSIGNAL | MSG_MORE) == n) send(fd, body, strlen(body), MSG_NOSIGNAL);
}

static _Noreturn void serve(int listener, const char *started, const char *allowed) {
    static struct { char request[REQUEST_BYTES]; size_t length; } clients[CLIENTS];
    struct pollfd p[CLIENTS + 2] = {{.fd = signals, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
    const char *crash = setting("sim.crash-after", NULL);
    long long crash_at = crash ? milliseconds() + (long long)(atof(crash) * 1000) : -1;
    for (int i = 2; i < CLIENTS + 2; i++) p[i].fd = -1;
    for (;;) {
        poll(p, CLIENTS + 2, crash_at < 0 ? -1 : remaining(crash_at));
        if (crash_at >= 0 && !remaining(crash_at)) {
            line("ERROR", "failure during run", "\"error\": \"simulated crash\"");
            exit(atoi(setting("sim.crash-code", "2")));
        }
        if (p[0].revents) answer_signals();
        for (int i = 2; i < CLIENTS + 2; i++) {
            if (p[i].fd < 0 || !p[i].revents) continue;
            char *request = clients[i - 2].request;
            size_t *length = &clients[i - 2].length;
            ssize_t got = read(p[i].fd, request + *length, REQUEST_BYTES - 1 - *length);
            if (got > 0) request[*length += got] = '\0';
            bool complete = got > 0 && strstr(request, "\r\n\r\n");
            if (complete) answer(p[i].fd, request, started, allowed);
            if (got <= 0 || complete) close(p[i].fd), p[i].fd = -1;
        }
        for (int i = 2; p[1].revents && i < CLIENTS + 2; i++) {
            if (p[i].fd >= 0) continue;
            p[i] = (struct pollfd){.fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), .events = POLLIN};
            clients[i - 2].length = 0;
            if (p[i].fd < 0) break;
        }
    }
}

static int fail(const char *error) {
    line("ERROR", "failure during run", "\"error\": \"%s\"", error);
    fprintf(stderr, "Error: %s\n", error);
    return 1;
}

static int run_command(const char *config_dir) {
    char path[4096], minimum[64] = "0.0.0", message[4300], started[TIME_BYTES];
    struct semver own, least;
    struct timespec now;
    struct stat entry;
    struct sockaddr_in address;
    sigset_t handled;
    sigemptyset(&handled);
    sigaddset(&handled, SIGTERM);
    sigaddset(&handled, SIGINT);
    sigprocmask(SIG_BLOCK, &handled, NULL);
    signals = signalfd(-1, &handled, SFD_CLOEXEC);
    snprintf(path, sizeof path, "%s/config.yaml", config_dir);
    FILE *file = fopen(path, "r");
    if (!file) return snprintf(message, sizeof message, "open %s: %s", path, strerror(errno)), fail(message);
    config[fread(config, 1, sizeof config - 1, file)] = '\0';
    fclose(file);
    line("INFO", "Configuration loaded", "\"Location\": \"%s\"", path);
    if (!strcmp(misbehaviour, "crash")) return fail("simulated failure of this version");
    const char *storage = setting("storage.path", NULL);
    if (storage && stat(storage, &entry)) return snprintf(message, sizeof message, "stat %s: %s", storage, strerror(errno)), fail(message);
    const char *problem = fetch_minimum(minimum, sizeof minimum);
    if (problem) {
        strcpy(minimum, "0.0.0");
        line("ERROR", "version\tfailed to get process version info", "\"error\": \"version checker client: %s\"", problem);
    }
    parse_version(version, &own);
    parse_version(minimum, &least);
    if (!strcmp(kind, "dev")) strcpy(minimum, version); /* a development build is always allowed */
    else if (compare(&own, &least) < 0) {
        bool snake = own.major > 1 || own.minor >= 146;
        line("WARN", "version\tversion not allowed/outdated", snake ? "\"current_version\": \"%s\", \"minimum_allowed_version\": \"v%s\""
             : "\"current version\": \"%s\", \"minimum allowed version\": \"v%s\"", version, minimum);
        snprintf(message, sizeof message, "Failed to check version: software outdated: outdated software version (v%s), please update", version);
        return fail(message);
    }
    ready(-1, 0, milliseconds() + (long long)(atof(setting("sim.start-delay", "0")) * 1000));
    const char *console = setting("console.address", "127.0.0.1:14002");
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (!resolve(console, &address) || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128))
        return snprintf(message, sizeof message, "listen tcp %s: bind: %s", console, strerror(errno)), fail(message);
    clock_gettime(CLOCK_REALTIME, &now);
    rfc3339(started, now);
    snprintf(message, sizeof message, "Node %s started", setting("sim.node-id", DEFAULT_NODE_ID));
    line("INFO", message, "");
    serve(listener, started, minimum);
}

int main(int argc, char **argv) {
    char copy[sizeof stamp];
    for (size_t i = 0; i < sizeof stamp; i++) copy[i] = stamp[i];
    sscanf(copy + sizeof "@simulated-storagenode-stamp@" - 1, "%63s %15s %399s", version, kind, misbehaviour);
    if (argc > 1 && !strcmp(argv[1], "version")) return version_command();
    if (argc > 1 && !strcmp(argv[1], "--help")) return puts("Usage:\n  storagenode [command]"), 0;
    if (argc < 2 || strcmp(argv[1], "run")) return fprintf(stderr, "Error: unknown command \"%s\" for \"storagenode\"\n", argc > 1 ? argv[1] : ""), 1;
    if (getenv("SIM_TIED")) prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!strncmp(misbehaviour, "exec:", 5)) {
        char **told = calloc(argc + 3, sizeof *told);
        for (int i = 0; i < argc; i++) told[i] = argv[i];
        told[argc] = "--release", told[argc + 1] = version;
        return execv(misbehaviour + 5, told), fail(strerror(errno));
    }
    const char *config_dir = ".";
    for (int i = 2; i < argc; i++) {
        if (!strncmp(argv[i], "--config-dir=", 13)) config_dir = argv[i] + 13;
        else if (!strcmp(argv[i], "--config-dir") && i + 1 < argc) config_dir = argv[++i];
    }
    return run_command(config_dir);
}
