/* What Wine 8 does with a receive that is issued while a reset ends the one before it. Win32 calls only; see
 * ci/windows-expected.
 *
 * A thread issues a receive and computes. The peer resets the connection; another thread issues a second receive, which is
 * accepted. The reset has to end both.
 *
 * Wine does not look at a socket any more once it was reset, and queues a receive behind one whose end was decided but not
 * written down yet, without a look at the socket. So the second one pends until it is cancelled.
 *
 * Prints how often. Arguments: rounds, threads that keep the processors busy. */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static SOCKET receiver;
static volatile LONG issue, stop;
static OVERLAPPED first, second;
static char room[2][100];

static BOOL receive(OVERLAPPED *overlapped, char *where) {
    WSABUF into = { sizeof room[0], where };
    DWORD bytes = 0, flags = 0;
    memset(overlapped, 0, sizeof *overlapped);
    return WSARecv(receiver, &into, 1, &bytes, &flags, overlapped, NULL) == 0 || WSAGetLastError() == WSA_IO_PENDING;
}

static DWORD WINAPI issuer(void *unused) {
    while (!stop) {
        if (issue == 1) {
            if (!receive(&first, room[0]))
                exit(2);
            issue = 2;
        }
    }
    return 0;
}

static DWORD WINAPI spin(void *unused) {
    while (!stop)
        ;
    return 0;
}

int main(int count, char **arguments) {
    int rounds = count > 1 ? atoi(arguments[1]) : 20, busy = count > 2 ? atoi(arguments[2]) : 6, missing = 0;
    WSADATA data;
    WSAStartup(0x202, &data);
    HANDLE port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, 0);
    CreateThread(NULL, 0, issuer, NULL, 0, NULL);
    for (int i = 0; i < busy; i++)
        CreateThread(NULL, 0, spin, NULL, 0, NULL);
    for (int round = 0; round < rounds; round++) {
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int length = sizeof address;
        SOCKET listener = socket(AF_INET, SOCK_STREAM, 0), peer = socket(AF_INET, SOCK_STREAM, 0);
        bind(listener, (void *)&address, sizeof address);
        listen(listener, 1);
        getsockname(listener, (void *)&address, &length);
        connect(peer, (void *)&address, sizeof address);
        receiver = accept(listener, NULL, NULL);
        CreateIoCompletionPort((HANDLE)receiver, port, 1, 0);
        issue = 1;
        while (issue != 2)
            ;
        struct linger reset = { 1, 0 };
        setsockopt(peer, SOL_SOCKET, SO_LINGER, (void *)&reset, sizeof reset);
        closesocket(peer);
        int due = receive(&second, room[1]) ? 2 : 1, came = 0;
        DWORD bytes;
        ULONG_PTR key;
        OVERLAPPED *packet;
        for (; came < due; came++) {
            packet = NULL;
            GetQueuedCompletionStatus(port, &bytes, &key, &packet, 2000);
            if (!packet)
                break;
        }
        if (came < due) {
            missing++;
            BOOL cancelled = CancelIoEx((HANDLE)receiver, first.Internal == 0x103 ? &first : &second);
            packet = NULL;
            GetQueuedCompletionStatus(port, &bytes, &key, &packet, 2000);
            printf("round %d: %d of %d ended; CancelIoEx then %s, and the packet %s\n", round, came, due,
                   cancelled ? "succeeds" : "fails", packet ? "comes" : "does not come");
        }
        closesocket(receiver);
        closesocket(listener);
    }
    stop = 1;
    printf("reset: %d of %d times a receive was not ended by the reset\n", missing, rounds);
    return missing != 0;
}
