/* What the programs of this folder share: a port, connections that are associated with it, and busy processors. */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static HANDLE port;
static volatile LONG stop;

static DWORD WINAPI spin(void *unused) {
    while (!stop)
        ;
    return 0;
}

static void begin(int busy) {
    WSADATA data;
    WSAStartup(0x202, &data);
    port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, 0);
    for (int i = 0; i < busy; i++)
        CreateThread(NULL, 0, spin, NULL, 0, NULL);
}

struct connection {
    SOCKET listener, peer, ours;
};

/* The listener stays open, so that its number is not the next one to be given out. */
static struct connection connected(void) {
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int length = sizeof address;
    struct connection made = { socket(AF_INET, SOCK_STREAM, 0), socket(AF_INET, SOCK_STREAM, 0) };
    bind(made.listener, (void *)&address, sizeof address);
    listen(made.listener, 1);
    getsockname(made.listener, (void *)&address, &length);
    connect(made.peer, (void *)&address, sizeof address);
    made.ours = accept(made.listener, NULL, NULL);
    CreateIoCompletionPort((HANDLE)made.ours, port, 1, 0);
    return made;
}
