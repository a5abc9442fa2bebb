/* The hand-over client: what fence.py and handover.py do for a resident worker, without the start of an interpreter.

       LOADER CLIENT --packages=FOLDER PYTHON -I -S -X utf8 -c CODE FOLDER deliver --socket=... -- RECIPIENT...

   The dynamic loader starts it, and refuses an empty or truncated file; execvp(3) runs an empty one with sh: status 0.
   On any doubt this process becomes PYTHON with the words that follow and one option, -Xpipehandler_started=SECONDS:
   the delivery began then, and the service was asked. handover.py describes the packets.

   The commit point of the hand-over is sendmsg(2). Before it no other process has seen the message, and nothing was
   read: deliver cold. After it, never: the worker's answer, or 75. Status 0 comes from such an answer alone. */

#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    LARGEST = 131072, /* octets of a packet, as in handover.py */
    DEAF = 1,         /* seconds without an answer after which the socket counts as unattended */
    SPARE = 1,        /* seconds added to what the server announces */
    LAST_SPARE = 60,  /* seconds until the last alarm: enough to deliver cold if that becomes necessary */
    LAST_ALARM = 120, /* seconds; until the entrypoint knows its deadline */
    AFTERWARDS = 2,   /* seconds to write the line */
    TEMPFAIL = 75,    /* sysexits(3) */
};

static const char FAULT[] = "4.3.0 internal fault", MISCONFIGURED[] = "4.3.5 mail system incorrectly configured";
static const char PACKAGES[] = "--packages=", SOCKET[] = "--socket=";
static char packet[LARGEST], answer[1001], started[64];
static volatile sig_atomic_t status = TEMPFAIL;

static void stop(int signal)
{
    _exit(signal ? status : TEMPFAIL);
}

/* Write the one line for pipe(8), and leave; a reader that is gone or does not read changes no status. */
static _Noreturn void leave(int with, const char *line)
{
    struct iovec parts[] = {{(void *)line, strlen(line)}, {"\n", 1}};

    status = with;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, stop);
    alarm(AFTERWARDS);
    (void)!writev(STDOUT_FILENO, parts, 2);
    _exit(status);
}

/* Return the number at `text`, of one to nine digits and up to `end`; -1 if there is none. */
static long number(const char *text, char end)
{
    long value = 0;
    int digits = 0;

    for (; digits < 9 && *text >= '0' && *text <= '9'; digits++)
        value = 10 * value + (*text++ - '0');
    return digits && *text == end ? value : -1;
}

/* Receive one answer within `seconds`; return whether it is one line of printable ASCII. */
static int receive(int server, long seconds)
{
    struct pollfd readable = {server, POLLIN, 0};
    ssize_t length;

    alarm((unsigned)seconds + LAST_SPARE); /* death by signal defers */
    length = poll(&readable, 1, (int)seconds * 1000) == 1 ? recv(server, answer, sizeof answer - 1, MSG_TRUNC) : -1;
    if (length <= 0 || length >= (ssize_t)sizeof answer)
        return 0;
    answer[length] = 0;
    for (ssize_t each = 0; each < length; each++)
        if (answer[each] < ' ' || answer[each] > '~')
            return 0;
    return 1;
}

/* Return the seconds in an answer of `word` and a number; -1 for any other answer, and for more than half a day. */
static long announced(const char *word)
{
    long seconds = strncmp(answer, word, strlen(word)) ? -1 : number(answer + strlen(word), 0);

    return seconds > 43200 ? -1 : seconds;
}

/* Return the status of the answer `end STATUS LINE`, and its line; -1 for any other answer. */
static int ended(const char **line)
{
    long found = strncmp(answer, "end ", 4) ? -1 : number(answer + 4, ' ');

    *line = found < 0 || found > 255 ? FAULT : strchr(answer + 4, ' ') + 1;
    return found > 255 ? -1 : (int)found;
}

/* Connect to the socket of a service that root or our own account runs; -1 if there is none. */
static int reach(const char *path)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t size = sizeof peer;
    int server = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (server <= STDERR_FILENO || !*path || strlen(path) >= sizeof name.sun_path)
        return -1; /* if a standard descriptor was closed, the entrypoint has to open something in its place */
    strcpy(name.sun_path, path);
    if (connect(server, (struct sockaddr *)&name, sizeof name) ||
        getsockopt(server, SOL_SOCKET, SO_PEERCRED, &peer, &size))
        return -1;
    return peer.uid == 0 || peer.uid == geteuid() ? server : -1;
}

/* Return the length of the first packet, made of the words after `deliver`; 0 if it cannot be made. */
static size_t make_packet(const char *packages, char **words)
{
    struct stat file;
    unsigned long long nanoseconds;
    size_t length = (size_t)snprintf(packet, sizeof packet, "%s/pipehandler/handover.py", packages);

    if (length >= sizeof packet || stat(packet, &file))
        return 0;
    nanoseconds = file.st_mtim.tv_sec * 1000000000ULL + file.st_mtim.tv_nsec;
    length = (size_t)snprintf(packet, sizeof packet, "deliver%c%llx.%llx.%llx%c%ld%c%s", 0, file.st_dev + 0ULL,
                              file.st_ino + 0ULL, nanoseconds, 0, (long)getppid(), 0, started);
    for (size_t octets; *words; words++, length += octets) {
        octets = strlen(*words) + 1;
        if (octets > sizeof packet - length)
            return 0;
        packet[length] = 0;
        memcpy(packet + length + 1, *words, octets - 1);
    }
    return length;
}

/* Let a worker deliver the message on fd 0, and leave with its answer. Returns if none has taken it. */
static void hand_over(const char *packages, char **words)
{
    struct {
        struct cmsghdr head;
        int descriptor; /* 0: stdin */
    } part = {{.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}, 0};
    struct iovec text = {"fd", 2};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = &part, .msg_controllen = sizeof part};
    const char *path = "", *line;
    size_t length;
    long seconds;
    int server, with;

    for (char **each = words; *each && strcmp(*each, "--") && !*path; each++)
        if (!strncmp(*each, SOCKET, sizeof SOCKET - 1))
            path = *each + sizeof SOCKET - 1;
    server = reach(path);
    length = server < 0 ? 0 : make_packet(packages, words);
    if (!length || send(server, packet, length, MSG_NOSIGNAL) != (ssize_t)length || !receive(server, DEAF))
        return;
    if ((seconds = announced("wait ")) >= 0 && !receive(server, seconds + SPARE))
        return;
    if ((with = ended(&line)) > 0) /* never a success: no worker has the message */
        leave(with, line);
    if ((seconds = announced("go ")) < 0)
        return;
    if (sendmsg(server, &message, MSG_NOSIGNAL) < 0)
        return;
    /* From here on the message is the worker's. */
    if (!receive(server, seconds + SPARE) || (with = ended(&line)) < 0)
        leave(TEMPFAIL, FAULT);
    leave(with, line);
}

int main(int argc, char **argv)
{
    struct timespec now;
    sigset_t alarms;
    int deliver = 6;

    signal(SIGALRM, SIG_DFL);
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    sigprocmask(SIG_UNBLOCK, &alarms, NULL); /* the parent's mask is inherited */
    alarm(LAST_ALARM);
    /* Only the form that ends with 75 whatever Python's own files do (CODE in postfix/templates.py) is ever started. */
    while (deliver < argc && (strcmp(argv[deliver], "deliver") || strcmp(argv[deliver - 3], "-c")))
        deliver++;
    if (deliver >= argc || strncmp(argv[1], PACKAGES, sizeof PACKAGES - 1) || clock_gettime(CLOCK_MONOTONIC, &now))
        leave(TEMPFAIL, MISCONFIGURED);
    snprintf(started, sizeof started, "%lld.%09ld", (long long)now.tv_sec, now.tv_nsec);
    hand_over(argv[1] + sizeof PACKAGES - 1, argv + deliver + 1);

    argv[1] = argv[2];
    argv[2] = packet;
    snprintf(packet, sizeof packet, "-Xpipehandler_started=%s", started);
    execv(argv[1], argv + 1);
    leave(TEMPFAIL, FAULT);
}
