/* What Wine 8 does with a receive that is closed while its bytes are on their way. Win32 calls only; see ci/windows-expected.
 *
 * A thread issues a receive and computes. A byte comes; at the same moment another thread cancels the receive, closes the
 * socket, and opens a datagram socket that nobody sends to. Exactly one packet is due, whatever wins.
 *
 * Wine has the thread that issued the receive move the byte, by the handle's number, when it is scheduled next. Until then
 * CancelIoEx knows nothing of it (1168). If the number belongs to another socket meanwhile that one is read; it has nothing, the
 * receive is to wait on, and there is nothing left for it to wait at: its status stays 0x103, and no packet comes.
 *
 * Prints how often. Arguments: rounds, threads that keep the processors busy. */
#include "common.h"

static SOCKET receiver;
static volatile LONG issue;
static OVERLAPPED overlapped;
static char room[100];

static DWORD WINAPI issuer(void *unused) {
    while (!stop) {
        if (issue == 1) {
            WSABUF into = { sizeof room, room };
            DWORD bytes = 0, flags = 0;
            memset(&overlapped, 0, sizeof overlapped);
            if (WSARecv(receiver, &into, 1, &bytes, &flags, &overlapped, NULL) != 0 && WSAGetLastError() != WSA_IO_PENDING)
                exit(2);
            issue = 2;
        }
    }
    return 0;
}

int main(int count, char **arguments) {
    int rounds = count > 1 ? atoi(arguments[1]) : 60, busy = count > 2 ? atoi(arguments[2]) : 6, missing = 0, reused = 0;
    begin(busy);
    CreateThread(NULL, 0, issuer, NULL, 0, NULL);
    for (int round = 0; round < rounds; round++) {
        struct connection made = connected();
        receiver = made.ours;
        issue = 1;
        while (issue != 2)
            ;
        send(made.peer, "x", 1, 0);
        BOOL cancelled = CancelIoEx((HANDLE)receiver, &overlapped);
        DWORD why = cancelled ? 0 : GetLastError();
        SOCKET was = receiver;
        closesocket(receiver);
        SOCKET other = socket(AF_INET, SOCK_DGRAM, 0);
        reused += other == was;
        DWORD bytes;
        ULONG_PTR key;
        OVERLAPPED *packet = NULL;
        GetQueuedCompletionStatus(port, &bytes, &key, &packet, 2000);
        if (!packet) {
            missing++;
            printf("round %d: no packet; CancelIoEx said %lu, the status is %#llx, the handle was %s\n", round, why,
                   (unsigned long long)overlapped.Internal, other == was ? "used again" : "not used again");
        }
        closesocket(other);
        closesocket(made.peer);
        closesocket(made.listener);
    }
    stop = 1;
    printf("close: %d of %d receives were never reported; %d handles were used again\n", missing, rounds, reused);
    return missing != 0;
}
