/* What Wine 8 does with a send whose thread has ended. Win32 calls only; see ci/windows-expected.
 *
 * Three threads issue large sends on one connection and end; the peer reads all of it. A send of a socket that is associated
 * with a port outlives its thread, so each packet is due with all of its bytes.
 *
 * Wine asks the thread that issued a send to move its bytes.
 *
 * Prints how often a send succeeds with fewer bytes. Arguments: rounds, threads that keep the processors busy. */
#include "common.h"

enum { SENDS = 8, THREADS = 3, BYTES = 200000 };

static char bytes[BYTES];
static struct connection made;
static OVERLAPPED sends[THREADS][SENDS];

static DWORD WINAPI sender(void *own) {
    OVERLAPPED *each = own;
    for (int i = 0; i < SENDS; i++) {
        WSABUF from = { BYTES, bytes };
        memset(&each[i], 0, sizeof each[i]);
        if (WSASend(made.ours, &from, 1, NULL, 0, &each[i], NULL) != 0 && WSAGetLastError() != WSA_IO_PENDING)
            exit(2);
    }
    return 0;
}

static DWORD WINAPI reader(void *unused) {
    static char into[65536];
    while (recv(made.peer, into, sizeof into, 0) > 0)
        ;
    return 0;
}

int main(int count, char **arguments) {
    int rounds = count > 1 ? atoi(arguments[1]) : 60, busy = count > 2 ? atoi(arguments[2]) : 0, less = 0, none = 0;
    begin(busy);
    for (int round = 0; round < rounds; round++) {
        made = connected();
        int small = 1;
        setsockopt(made.ours, SOL_SOCKET, SO_SNDBUF, (void *)&small, sizeof small);
        HANDLE threads[THREADS + 1];
        for (int i = 0; i < THREADS; i++)
            threads[i] = CreateThread(NULL, 0, sender, sends[i], 0, NULL);
        threads[THREADS] = CreateThread(NULL, 0, reader, NULL, 0, NULL);
        for (int i = 0; i < THREADS * SENDS; i++) {
            DWORD moved = 0;
            ULONG_PTR key;
            OVERLAPPED *packet = NULL;
            BOOL well = GetQueuedCompletionStatus(port, &moved, &key, &packet, 5000);
            if (!packet) {
                none++;
                break;
            }
            if (well && moved < BYTES) {
                less++;
                printf("round %d: a send succeeded with %lu of %d bytes, status %#llx\n", round, moved, BYTES,
                       (unsigned long long)packet->Internal);
            }
        }
        closesocket(made.ours);
        WaitForMultipleObjects(THREADS + 1, threads, TRUE, 5000);
        closesocket(made.peer);
        closesocket(made.listener);
    }
    stop = 1;
    printf("exit: %d sends succeeded with fewer bytes in %d rounds; %d packets were missing\n", less, rounds, none);
    return less != 0;
}
