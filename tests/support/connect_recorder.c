/* Writes down every TCP connection that a process begins, before it begins: what was refused has no line. Loaded with
 * LD_PRELOAD by tests; see connects.rs. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void record(int socket, const struct sockaddr *address) {
    const char *path = getenv("CONNECTS_FILE");
    int type = 0;
    socklen_t length = sizeof type;
    if (path == NULL || getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_STREAM) {
        return;
    }
    char text[INET6_ADDRSTRLEN];
    char line[INET6_ADDRSTRLEN + 16];
    int size = 0;
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
        inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
        size = snprintf(line, sizeof line, "%s:%u\n", text, ntohs(v4->sin_port));
    } else if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
        inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
        size = snprintf(line, sizeof line, "[%s]:%u\n", text, ntohs(v6->sin6_port));
    }
    int file = size > 0 ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (file >= 0) {
        /* One write, so that lines of threads do not mix. */
        if (write(file, line, size) != size) {
            abort();
        }
        close(file);
    }
}

int connect(int socket, const struct sockaddr *address, socklen_t length) {
    static int (*next)(int, const struct sockaddr *, socklen_t);
    if (next == NULL) {
        *(void **)&next = dlsym(RTLD_NEXT, "connect");
    }
    int before = errno;
    record(socket, address);
    errno = before;
    return next(socket, address, length);
}
