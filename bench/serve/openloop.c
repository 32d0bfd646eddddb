/* Open-loop HTTP/1.1 load. Requests are due at the times of a Poisson process, and latency counts from when a request
 * was due, so a server that stalls is charged for all it kept waiting (no coordinated omission).
 *
 *   openloop PORT RATE SECONDS CONNECTIONS REQUESTS
 *
 * REQUESTS is a file of whole requests, each behind its length (4 bytes, little-endian). One second of warm-up comes
 * before the SECONDS. Prints one JSON object; times are in microseconds. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP_S 1.0
#define GRACE_S 10.0
#define PIECE 65536
#define SHOWN 5

typedef struct {
    int fd, busy, status;
    double due;
    const char *unsent;
    size_t unsent_bytes, received, room, expected;
    char *answer;
} Connection;

typedef struct {
    char *bytes;
    uint32_t size;
} Text;

static int poller, port;
static long wrong, broken;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static int ascending(const void *one, const void *other) {
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void dial(Connection *connection) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int one = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connection->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connection->fd < 0 || connect(connection->fd, (void *)&address, sizeof address)) fail("connect");
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    epoll_ctl(poller, EPOLL_CTL_ADD, connection->fd, &event);
}

static void send_more(Connection *connection) {
    while (connection->unsent_bytes) {
        ssize_t sent = send(connection->fd, connection->unsent, connection->unsent_bytes, MSG_NOSIGNAL);
        if (sent <= 0) break;
        connection->unsent += sent;
        connection->unsent_bytes -= (size_t)sent;
    }
    struct epoll_event event = {.events = EPOLLIN | (connection->unsent_bytes ? EPOLLOUT : 0), .data.ptr = connection};
    epoll_ctl(poller, EPOLL_CTL_MOD, connection->fd, &event);
}

/* Whether the answer is whole: by its Content-Length, or its last chunk (expected == SIZE_MAX). */
static int whole(Connection *connection) {
    if (!connection->expected) {
        char *end = memmem(connection->answer, connection->received, "\r\n\r\n", 4);
        if (!end) return 0;
        char kept = *end;
        *end = 0;
        connection->status = atoi(connection->answer + 9);
        char *length = strcasestr(connection->answer, "\r\ncontent-length:");
        size_t head = (size_t)(end - connection->answer) + 4;
        if (length) connection->expected = head + strtoul(length + 17, NULL, 10);
        else connection->expected = strcasestr(connection->answer, "chunked") ? SIZE_MAX : head;
        *end = kept;
    }
    if (connection->expected == SIZE_MAX)
        return connection->received >= 5 && !memcmp(connection->answer + connection->received - 5, "0\r\n\r\n", 5);
    return connection->received >= connection->expected;
}

/* Reads what is there; 1 when the request in hand is over, answered or not. */
static int receive(Connection *connection) {
    for (;;) {
        if (connection->received + PIECE > connection->room) {
            connection->room *= 2;
            connection->answer = realloc(connection->answer, connection->room);
        }
        ssize_t got = recv(connection->fd, connection->answer + connection->received, PIECE, 0);
        if (got < 0 && errno == EAGAIN) return 0;
        if (got <= 0) {
            int was_busy = connection->busy;
            if (was_busy && broken++ < SHOWN) fprintf(stderr, "%.3f: broken after %zu bytes\n", now(), connection->received);
            close(connection->fd);
            dial(connection);
            connection->unsent_bytes = 0;
            connection->status = 0;
            return was_busy;
        }
        connection->received += (size_t)got;
        if (connection->busy && whole(connection)) {
            if (connection->status / 100 != 2 && wrong++ < SHOWN)
                fprintf(stderr, "%.3f: %.*s\n", now(), (int)(connection->received > 600 ? 600 : connection->received),
                        connection->answer);
            return 1;
        }
    }
}

int main(int count, char **words) {
    if (count != 6) return fprintf(stderr, "openloop PORT RATE SECONDS CONNECTIONS REQUESTS\n"), 2;
    port = atoi(words[1]);
    double rate = atof(words[2]), seconds = atof(words[3]);
    int many = atoi(words[4]), texts_count = 0, idle_count = 0;
    Text texts[4096];
    FILE *file = fopen(words[5], "rb");
    if (!file) fail(words[5]);
    for (uint32_t size; texts_count < 4096 && fread(&size, 4, 1, file) == 1; texts_count++) {
        texts[texts_count] = (Text){malloc(size), size};
        if (fread(texts[texts_count].bytes, 1, size, file) != size) return 1;
    }
    poller = epoll_create1(0);
    Connection *connections = calloc((size_t)many, sizeof(Connection)), **idle = malloc(sizeof(void *) * (size_t)many);
    for (int i = 0; i < many; i++) {
        connections[i].room = 2 * PIECE;
        connections[i].answer = malloc(connections[i].room);
        dial(&connections[i]);
        idle[idle_count++] = &connections[i];
    }
    size_t most = (size_t)(rate * (seconds + WARM_UP_S) * 1.3) + 10000, measured = 0, first = 0, last = 0, in_time = 0;
    double *latency = malloc(sizeof(double) * most), *due = malloc(sizeof(double) * most);
    double next = now() + 0.01, warm = next + WARM_UP_S, end = warm + seconds;
    long sent = 0;
    srand48(7);
    for (;;) {
        double time = now();
        for (; next <= time && next < end && last < most; next -= log(1 - drand48()) / rate) due[last++] = next;
        while (first < last && idle_count) {
            Connection *connection = idle[--idle_count];
            Text *text = &texts[sent++ % texts_count];
            connection->due = due[first++];
            connection->busy = 1;
            connection->unsent = text->bytes;
            connection->unsent_bytes = text->size;
            connection->received = connection->expected = 0;
            send_more(connection);
        }
        if ((time >= end && first == last && idle_count == many) || time > end + GRACE_S) break;
        struct epoll_event events[256];
        int ready = epoll_wait(poller, events, 256, next < end && next - time < 0.002 ? 0 : 1);
        for (int i = 0; i < ready; i++) {
            Connection *connection = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) send_more(connection);
            if (!(events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) || !receive(connection)) continue;
            double done = now();
            if (connection->status && connection->due >= warm && measured < most) {
                latency[measured++] = done - connection->due;
                in_time += done <= end;
            }
            connection->busy = 0;
            idle[idle_count++] = connection;
        }
    }
    qsort(latency, measured, sizeof(double), ascending);
#define AT(share) (measured ? latency[(size_t)((double)(measured - 1) * (share))] * 1e6 : 0)
    printf("{\"rate\":%.1f,\"per_s\":%.1f,\"p50_us\":%.1f,\"p95_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,\"failed\":%ld,\"unsent\":%ld}\n", rate,
           (double)in_time / seconds, AT(.5), AT(.95), AT(.99), AT(1.0), wrong + broken + (long)(last - first) + many - idle_count,
           (long)(last - first));
    return 0;
}
