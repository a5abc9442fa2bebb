/* Random answers to the hand-over client, in one process: ANSWERS SEED COUNT.

   The client is included as it is; its system calls are replaced by the functions below. After each run it is decided here,
   by another way of reading the answers, what it may have done: status 0 only for `end 0 ...` after the descriptor was sent,
   Python only before. The first run that did anything else is printed, and ends this program with 1. */

#define _GNU_SOURCE
#include <setjmp.h>
#include <stdlib.h>

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

enum { LEFT = 1, BECAME, ANSWERS = 4, LONGEST = 1200 };

static jmp_buf end;
static int left_with, sent, given, answers;
static char answer_texts[ANSWERS][LONGEST + 1];
static size_t lengths[ANSWERS], printed;

static unsigned long long state;

static unsigned chance(unsigned below)
{
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(state >> 33) % below;
}

static _Noreturn void fake_exit(int status)
{
    left_with = status;
    longjmp(end, LEFT);
}

static int fake_execv(const char *path, char **words)
{
    if (strcmp(path, "/python") || strcmp(words[0], "/python") || strncmp(words[1], "-Xpipehandler_started=", 22) ||
        strcmp(words[2], "-I") || strcmp(words[4], "CODE") || words[11])
        abort();
    longjmp(end, BECAME);
}

static int fake_poll(struct pollfd *one, nfds_t count, int milliseconds)
{
    if (count != 1 || milliseconds < 1000)
        abort();
    one->revents = POLLIN;
    return chance(50) ? 1 : (int)chance(2) - 1;
}

static ssize_t fake_recv(int socket, void *buffer, size_t size, int flags)
{
    size_t length;

    (void)socket;
    (void)flags;
    if (given == answers || chance(60) == 0)
        return -(ssize_t)chance(2);
    length = lengths[given];
    memcpy(buffer, answer_texts[given], length < size ? length : size);
    given++;
    return (ssize_t)length;
}

static ssize_t fake_send(int socket, const void *packet, size_t length, int flags)
{
    (void)socket;
    (void)flags;
    if (length < 20 || memcmp(packet, "deliver", 8))
        abort();
    return chance(100) ? (ssize_t)length : -1;
}

static ssize_t fake_sendmsg(int socket, const struct msghdr *message, int flags)
{
    (void)socket;
    (void)message;
    (void)flags;
    if (chance(50) == 0)
        return -1;
    sent = given;
    return 2;
}

static ssize_t fake_writev(int file, const struct iovec *parts, int count)
{
    if (file != 1 || count != 2 || memchr(parts[0].iov_base, '\n', parts[0].iov_len))
        abort();
    return (ssize_t)(printed = parts[0].iov_len + 1);
}

static int fake_getsockopt(int socket, int level, int name, void *value, socklen_t *size)
{
    (void)socket;
    (void)level;
    (void)name;
    (void)size;
    ((struct ucred *)value)->uid = chance(50) ? geteuid() : 12345;
    return 0;
}

#define _exit fake_exit
#define execv fake_execv
#define poll(one, count, milliseconds) fake_poll(one, count, milliseconds)
#define recv fake_recv
#define send fake_send
#define sendmsg fake_sendmsg
#define writev fake_writev
#define getsockopt fake_getsockopt
#define socket(family, kind, protocol) (chance(100) ? 5 : 2)
#define connect(server, name, size) (chance(100) ? 0 : -1)
#define alarm(seconds) ((seconds) > 100000 ? abort() : (void)0)
#define signal(number, handler) ((void)(handler))
#define sigprocmask(how, set, old) ((void)(set))
#define main client_main
#include "handover.c"
#undef main
#undef signal

/* One answer: one of the service's, or nearly, or noise. */
static size_t invent(char *text)
{
    static const char *const WORDS[] = {"go ", "go ", "go ", "wait ", "end ", "end ", "cold", "go", "end", "", "endless "};
    static const char *const NUMBERS[] = {"0", "75", "0 2.0.0 stored", "75 4.3.0 x", "256 x", "65536 x", "-1 x", "00 x", "4294967296 x",
                                          "999999999", "43200", "43201", "5", "63", "+5", " 5", "5 ", "0x5", "18446744073709551616 x"};
    size_t length = (size_t)sprintf(text, "%s%s", WORDS[chance(11)], NUMBERS[chance(19)]);

    if (chance(4) == 0)
        length = (size_t)sprintf(text, "%s%u%s", WORDS[chance(11)], chance(300), chance(2) ? "" : " 2.0.0 stored");
    if (chance(20) == 0)
        while (length < LONGEST - 1 && chance(400))
            text[length++] = (char)(' ' + chance(95));
    if (chance(30) == 0)
        length = 998 + chance(5), memset(text + 10, 'x', LONGEST - 10);
    for (unsigned change = chance(8); change > 5 && length; change--)
        text[chance((unsigned)length)] = (char)chance(256);
    if (chance(20) == 0)
        length = chance((unsigned)length + 1);
    text[length] = 0;
    return length;
}

/* Return the status of `end STATUS LINE`; -1 if the answer is none. */
static long status_of(int which)
{
    char *rest;
    long found;

    if (which < 0 || lengths[which] > 1000 || strlen(answer_texts[which]) != lengths[which] ||
        strncmp(answer_texts[which], "end ", 4) || strspn(answer_texts[which] + 4, "0123456789") > 9)
        return -1;
    for (const char *each = answer_texts[which]; *each; each++)
        if ((unsigned char)*each < 32 || (unsigned char)*each > 126)
            return -1;
    found = strtol(answer_texts[which] + 4, &rest, 10);
    return rest > answer_texts[which] + 4 && *rest == ' ' && strspn(answer_texts[which] + 4, "0123456789") && found <= 255 ? found : -1;
}

static int right(int how)
{
    long status = status_of(given - 1);

    if (sent && strncmp(answer_texts[sent - 1], "go ", 3))
        return 0;
    if (how == BECAME)
        return !sent;
    if (!printed || printed > 1001)
        return 0;
    if (!sent)
        return left_with > 0 && left_with == status;
    return left_with == 75 || (given > sent && left_with == status);
}

/* Run the client once; return how it ended. */
static int run(void)
{
    static const char *const COMMAND[] = {"client", "--packages=" PACKAGE, "/python", "-I", "-c", "CODE", PACKAGE, "deliver",
                                          "--socket=/s", "--sender=a", "--", "b", NULL};
    static char *words[sizeof COMMAND / sizeof *COMMAND];
    int how;

    memcpy(words, COMMAND, sizeof words);
    how = setjmp(end);
    if (!how)
        client_main((int)(sizeof words / sizeof *words) - 1, words);
    return how;
}

int main(int argc, char **argv)
{
    long count = argc > 2 ? atol(argv[2]) : 0;
    long ends[2] = {0}, successes = 0;

    state = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    for (long each = 0; each < count; each++) {
        int how;

        sent = given = 0;
        printed = 0;
        left_with = -1;
        answers = (int)chance(ANSWERS + 1);
        for (int which = 0; which < answers; which++)
            lengths[which] = invent(answer_texts[which]);
        for (int which = 0, polite = chance(3) ? 1 + !chance(3) : 0; which < polite && which < answers; which++)
            lengths[which] = (size_t)sprintf(answer_texts[which], which + 1 < polite ? "wait 30" : "go 63");
        how = run();
        if (!right(how)) {
            printf("run %ld: %s %d, sent after %d, given %d:", each, how == LEFT ? "left with" : "became Python", left_with, sent, given);
            for (int which = 0; which < answers; which++)
                printf(" [%s]", answer_texts[which]);
            puts("");
            return 1;
        }
        ends[how == BECAME]++;
        successes += how == LEFT && left_with == 0;
    }
    printf("%ld left, %ld became Python, %ld left with 0\n", ends[0], ends[1], successes);
    return 0;
}
