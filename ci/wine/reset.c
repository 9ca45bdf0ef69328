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
#include "common.h"

static SOCKET receiver;
static volatile LONG issue;
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

int main(int count, char **arguments) {
    int rounds = count > 1 ? atoi(arguments[1]) : 20, busy = count > 2 ? atoi(arguments[2]) : 6, missing = 0;
    begin(busy);
    CreateThread(NULL, 0, issuer, NULL, 0, NULL);
    for (int round = 0; round < rounds; round++) {
        struct connection made = connected();
        receiver = made.ours;
        issue = 1;
        while (issue != 2)
            ;
        struct linger reset = { 1, 0 };
        setsockopt(made.peer, SOL_SOCKET, SO_LINGER, (void *)&reset, sizeof reset);
        closesocket(made.peer);
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
        closesocket(made.listener);
    }
    stop = 1;
    printf("reset: %d of %d times a receive was not ended by the reset\n", missing, rounds);
    return missing != 0;
}
