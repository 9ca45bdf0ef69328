//! The system's calls, with what each needs said once. All `unsafe` that is about arguments alone stands here.

use super::Handle;
use super::errno::EINVAL;
use crate::sys::RawBuffer;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::OnceLock;
use windows_sys::Win32::Foundation as base;
use windows_sys::Win32::Networking::WinSock as ws;
use windows_sys::Win32::Storage::FileSystem as fs;
use windows_sys::Win32::System::IO as ov;
use windows_sys::Win32::System::Threading as threads;

pub(crate) use ov::{OVERLAPPED, OVERLAPPED_ENTRY};

#[allow(unsafe_code)]
mod nt {
    use super::base::{HANDLE, NTSTATUS};
    use std::ffi::c_void;

    #[link(name = "ntdll", kind = "raw-dylib")]
    unsafe extern "system" {
        pub(crate) fn NtQueryIoCompletion(
            port: HANDLE,
            class: u32,
            information: *mut c_void,
            length: u32,
            returned: *mut u32,
        ) -> NTSTATUS;
        pub(crate) fn NtSetInformationFile(
            file: HANDLE,
            status: *mut c_void,
            information: *const c_void,
            length: u32,
            class: u32,
        ) -> NTSTATUS;
        pub(crate) fn NtQueryInformationFile(
            file: HANDLE,
            status: *mut c_void,
            information: *mut c_void,
            length: u32,
            class: u32,
        ) -> NTSTATUS;
    }
}

/// What an issuing call came to.
#[derive(Debug)]
pub(crate) enum Called {
    /// A packet will come.
    Pending,
    /// It has succeeded, with so many bytes; whether a packet comes is a matter of the device's mode.
    Now(usize),
    /// No packet will come.
    Failed(i32),
}

pub(crate) fn handle(handle: Handle) -> base::HANDLE {
    std::ptr::with_exposed_provenance_mut(handle as usize)
}

pub(crate) fn number(handle: base::HANDLE) -> Handle {
    handle.expose_provenance() as Handle
}

fn socket(handle: Handle) -> ws::SOCKET {
    handle as ws::SOCKET
}

pub(crate) fn last_error() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(EINVAL)
}

#[allow(unsafe_code)]
fn socket_error() -> i32 {
    // SAFETY: it reads a number of the thread's own.
    unsafe { ws::WSAGetLastError() }
}

/// What a Winsock call with an OVERLAPPED structure returned.
fn called(failed: bool, bytes: u32) -> Called {
    if !failed {
        return Called::Now(bytes as usize);
    }
    match socket_error() {
        ws::WSA_IO_PENDING => Called::Pending,
        error => Called::Failed(error),
    }
}

/// The Win32 code of a status.
#[allow(unsafe_code)]
pub(crate) fn code_of(status: u32) -> u32 {
    // SAFETY: a function of numbers.
    unsafe { base::RtlNtStatusToDosError(status.cast_signed()) }
}

/// A status whose code this is, of those that this crate makes itself: the form that carries a Win32 code.
pub(crate) fn status_of(code: i32) -> usize {
    // Facility 7, Win32, of an error: `RtlNtStatusToDosError` takes the code out again.
    (0xC007_0000_u32 | (code.cast_unsigned() & 0xFFFF)) as usize
}

// --- The port ---

/// A port's handle. Closed when dropped.
#[derive(Debug)]
pub(crate) struct Completions(base::HANDLE);

#[allow(unsafe_code)]
// SAFETY: the kernel's object may be used by any thread at any time; the handle is closed once, by the owner.
unsafe impl Send for Completions {}
#[allow(unsafe_code)]
// SAFETY: as above.
unsafe impl Sync for Completions {}

/// How a wait ended that brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPacket {
    TimedOut,
    /// A call was queued to the thread (see [`interrupt`]), or the port is gone.
    Interrupted,
}

impl Completions {
    #[allow(unsafe_code)]
    pub(crate) fn new(concurrency: usize) -> io::Result<Completions> {
        let limit = u32::try_from(concurrency).unwrap_or(u32::MAX);
        // SAFETY: without a file no handle is read (row P-01).
        let port = unsafe { ov::CreateIoCompletionPort(base::INVALID_HANDLE_VALUE, std::ptr::null_mut(), 0, limit) };
        if port.is_null() { Err(io::Error::last_os_error()) } else { Ok(Completions(port)) }
    }

    #[allow(unsafe_code)]
    pub(crate) fn associate(&self, file: Handle, key: usize) -> Result<(), i32> {
        // SAFETY: the port's handle is open; that of the file is the caller's, and a bad one is refused.
        let port = unsafe { ov::CreateIoCompletionPort(handle(file), self.0, key, 0) };
        if port.is_null() { Err(last_error()) } else { Ok(()) }
    }

    /// Queues a packet. It fails when the kernel has no memory for it.
    #[allow(unsafe_code)]
    pub(crate) fn post(&self, bytes: u32, key: usize, token: usize) -> bool {
        // SAFETY: the port's handle is open; the address is a number for the kernel, which does not look behind it.
        unsafe { ov::PostQueuedCompletionStatus(self.0, bytes, key, std::ptr::with_exposed_provenance(token)) != 0 }
    }

    /// Waits for packets; returns how many came. `None`: as long as it takes.
    #[allow(unsafe_code)]
    pub(crate) fn get(&self, into: &mut [OVERLAPPED_ENTRY], wait_ms: Option<u32>) -> Result<usize, NoPacket> {
        let mut count = 0;
        let most = u32::try_from(into.len()).unwrap_or(u32::MAX);
        let wait = wait_ms.unwrap_or(threads::INFINITE);
        // SAFETY: the slice has room for as many entries as are said; the handle is open.
        let got =
            unsafe { ov::GetQueuedCompletionStatusEx(self.0, into.as_mut_ptr(), most, &raw mut count, wait, 1) != 0 };
        if got && count > 0 {
            return Ok(count as usize);
        }
        // Wine's answers to a time-out and to a call are as documented; anything else is looked at again by the caller.
        match last_error().cast_unsigned() {
            base::WAIT_TIMEOUT if !got => Err(NoPacket::TimedOut),
            _ => Err(NoPacket::Interrupted),
        }
    }

    /// How many packets are queued.
    #[allow(unsafe_code)]
    pub(crate) fn depth(&self) -> usize {
        let mut depth: u32 = 0;
        // SAFETY: class 0 (IoCompletionBasicInformation) writes one LONG.
        let status = unsafe { nt::NtQueryIoCompletion(self.0, 0, (&raw mut depth).cast(), 4, std::ptr::null_mut()) };
        if status >= 0 { depth as usize } else { 0 }
    }

    pub(crate) fn number(&self) -> Handle {
        number(self.0)
    }
}

impl Drop for Completions {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the handle is ours, and nobody waits: who waits holds what owns this.
        unsafe { base::CloseHandle(self.0) };
    }
}

/// Takes a file out of its port. Systems before Windows 8.1 cannot.
#[allow(unsafe_code)]
pub(crate) fn dissociate(it: Handle) {
    const REPLACE_COMPLETION: u32 = 61;
    // FILE_COMPLETION_INFORMATION: no port, no key.
    let (mut status, nothing) = ([0_usize; 2], [0_usize; 2]);
    let length = size_of_val(&nothing) as u32;
    // SAFETY: both live through the call, with the sizes that the class has.
    unsafe {
        nt::NtSetInformationFile(
            handle(it),
            (&raw mut status).cast(),
            (&raw const nothing).cast(),
            length,
            REPLACE_COMPLETION,
        );
    }
}

// --- Threads ---

/// A handle of a thread, by which its wait can be ended.
#[derive(Debug)]
pub(crate) struct Thread {
    handle: base::HANDLE,
    pub(crate) number: u32,
}

#[allow(unsafe_code)]
// SAFETY: as for `Completions`.
unsafe impl Send for Thread {}
#[allow(unsafe_code)]
// SAFETY: as for `Completions`.
unsafe impl Sync for Thread {}

impl Thread {
    /// The calling one.
    #[allow(unsafe_code)]
    pub(crate) fn here() -> Thread {
        // SAFETY: functions of the calling thread; a failure gives a null handle, which is looked at.
        let (handle, number) = unsafe {
            let number = threads::GetCurrentThreadId();
            (threads::OpenThread(threads::THREAD_SET_CONTEXT, 0, number), number)
        };
        Thread { handle, number }
    }

    /// Ends the thread's present alertable wait, or its next one.
    #[allow(unsafe_code)]
    pub(crate) fn interrupt(&self) {
        unsafe extern "system" fn nothing(_: usize) {}
        if !self.handle.is_null() {
            // SAFETY: the handle is open, and the function does nothing.
            unsafe { threads::QueueUserAPC(Some(nothing), self.handle, 0) };
        }
    }
}

impl Drop for Thread {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: the handle is ours.
            unsafe { base::CloseHandle(self.handle) };
        }
    }
}

// --- Addresses ---

/// A socket address as the system has it: large enough for both families.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Address(ws::SOCKADDR_STORAGE);

impl Address {
    #[allow(unsafe_code)]
    pub(crate) fn none() -> Address {
        // SAFETY: plain numbers, for which zero is a value.
        Address(unsafe { std::mem::zeroed() })
    }

    /// With its length.
    #[allow(unsafe_code)]
    pub(crate) fn of(address: &SocketAddr) -> (Address, i32) {
        let mut it = Address::none();
        // SAFETY: the storage is as large and as strictly aligned as either form of an address.
        let length = unsafe {
            match address {
                SocketAddr::V4(v4) => {
                    let to = &mut *(&raw mut it.0).cast::<ws::SOCKADDR_IN>();
                    to.sin_family = ws::AF_INET;
                    to.sin_port = v4.port().to_be();
                    to.sin_addr.S_un.S_addr = u32::from_ne_bytes(v4.ip().octets());
                    size_of::<ws::SOCKADDR_IN>()
                }
                SocketAddr::V6(v6) => {
                    let to = &mut *(&raw mut it.0).cast::<ws::SOCKADDR_IN6>();
                    to.sin6_family = ws::AF_INET6;
                    to.sin6_port = v6.port().to_be();
                    to.sin6_flowinfo = v6.flowinfo();
                    to.sin6_addr.u.Byte = v6.ip().octets();
                    to.Anonymous.sin6_scope_id = v6.scope_id();
                    size_of::<ws::SOCKADDR_IN6>()
                }
            }
        };
        (it, length as i32)
    }

    #[allow(unsafe_code)]
    pub(crate) fn get(&self) -> Option<SocketAddr> {
        // SAFETY: as in `of`; which form it has is looked at first, and every bit pattern is one of plain numbers.
        unsafe {
            match self.0.ss_family {
                ws::AF_INET => {
                    let from = &*(&raw const self.0).cast::<ws::SOCKADDR_IN>();
                    let ip = from.sin_addr.S_un.S_addr.to_ne_bytes();
                    Some(SocketAddrV4::new(ip.into(), u16::from_be(from.sin_port)).into())
                }
                ws::AF_INET6 => {
                    let from = &*(&raw const self.0).cast::<ws::SOCKADDR_IN6>();
                    let (port, flow) = (u16::from_be(from.sin6_port), from.sin6_flowinfo);
                    let scope = from.Anonymous.sin6_scope_id;
                    Some(SocketAddrV6::new(from.sin6_addr.u.Byte.into(), port, flow, scope).into())
                }
                _ => None,
            }
        }
    }
}

/// Where the kernel puts who sent a datagram.
#[repr(C)]
pub(crate) struct FromRoom {
    pub(crate) address: Address,
    length: i32,
    flags: u32,
}

impl FromRoom {
    pub(crate) fn new() -> Box<FromRoom> {
        Box::new(FromRoom { address: Address::none(), length: size_of::<Address>() as i32, flags: 0 })
    }
}

/// Bytes for one address in an accept: 16 more than the address needs (row A-08).
const ROOM: usize = size_of::<Address>() + 16;

/// A connection's socket, and where an accept puts its addresses.
#[repr(C)]
pub(crate) struct AcceptRoom {
    room: [u8; 2 * ROOM],
    pub(crate) socket: Handle,
}

impl Drop for AcceptRoom {
    fn drop(&mut self) {
        if self.socket != NO_SOCKET {
            close_socket(self.socket);
        }
    }
}

const NO_SOCKET: Handle = Handle::MAX;

impl AcceptRoom {
    pub(crate) fn new(family: u16) -> Result<Box<AcceptRoom>, i32> {
        let socket = open_socket(family)?;
        Ok(Box::new(AcceptRoom { room: [0; 2 * ROOM], socket }))
    }

    /// The connection, with its other end, once the accept has succeeded; `None` if it is gone already.
    #[allow(unsafe_code)]
    pub(crate) fn take(mut self: Box<Self>, listener: Handle) -> Option<(Handle, SocketAddr)> {
        let value = socket(listener);
        // SAFETY: the option takes a socket's number, which lives through the call.
        let taken = unsafe {
            ws::setsockopt(
                socket(self.socket),
                ws::SOL_SOCKET,
                ws::SO_UPDATE_ACCEPT_CONTEXT,
                (&raw const value).cast(),
                size_of::<ws::SOCKET>() as i32,
            )
        };
        let peer = peer_of(self.socket).or_else(|| self.peer())?;
        if taken != 0 {
            return None;
        }
        Some((std::mem::replace(&mut self.socket, NO_SOCKET), peer))
    }

    /// The peer's address as the accept has left it here.
    #[allow(unsafe_code)]
    fn peer(&self) -> Option<SocketAddr> {
        let (mut local, mut remote) = (std::ptr::null_mut(), std::ptr::null_mut());
        let (mut local_length, mut remote_length) = (0, 0);
        // SAFETY: the room is the one that the accept was given, with the same lengths; the pointers that come back
        // point into it.
        unsafe {
            ws::GetAcceptExSockaddrs(
                self.room.as_ptr().cast(),
                0,
                ROOM as u32,
                ROOM as u32,
                &raw mut local,
                &raw mut local_length,
                &raw mut remote,
                &raw mut remote_length,
            );
        }
        let length = usize::try_from(remote_length).ok().filter(|&length| length <= size_of::<Address>())?;
        if remote.is_null() {
            return None;
        }
        let mut address = Address::none();
        // SAFETY: `length` bytes lie there, and fit.
        unsafe { std::ptr::copy_nonoverlapping(remote.cast::<u8>(), (&raw mut address.0).cast::<u8>(), length) };
        address.get()
    }
}

// --- Sockets ---

pub(crate) fn family_of(address: &SocketAddr) -> u16 {
    if address.is_ipv4() { ws::AF_INET } else { ws::AF_INET6 }
}

/// A stream socket that can be associated, not inherited, in non-blocking mode.
#[allow(unsafe_code)]
pub(crate) fn open_socket(family: u16) -> Result<Handle, i32> {
    let flags = ws::WSA_FLAG_OVERLAPPED | ws::WSA_FLAG_NO_HANDLE_INHERIT;
    // SAFETY: numbers only.
    let made =
        unsafe { ws::WSASocketW(i32::from(family), ws::SOCK_STREAM, ws::IPPROTO_TCP, std::ptr::null(), 0, flags) };
    if made == ws::INVALID_SOCKET {
        return Err(socket_error());
    }
    let mut on = 1;
    // SAFETY: the socket is open, and the number lives through the call.
    unsafe { ws::ioctlsocket(made, ws::FIONBIO, &raw mut on) };
    Ok(made as Handle)
}

/// std starts Winsock when it makes its first socket; so it makes one.
pub(crate) fn start_winsock() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| drop(std::net::UdpSocket::bind("127.0.0.1:0")));
}

#[allow(unsafe_code)]
pub(crate) fn close_socket(handle: Handle) {
    // SAFETY: called once, by the owner.
    unsafe { ws::closesocket(socket(handle)) };
}

#[allow(unsafe_code)]
pub(crate) fn close_handle(it: Handle) {
    // SAFETY: called once, by the owner.
    unsafe { base::CloseHandle(handle(it)) };
}

/// Cancels all operations on a handle, or one.
#[allow(unsafe_code)]
pub(crate) fn cancel(it: Handle, one: Option<*mut OVERLAPPED>) -> bool {
    // SAFETY: the structure's address is a name for the kernel; the handle is open, or refused.
    unsafe { ov::CancelIoEx(handle(it), one.unwrap_or(std::ptr::null_mut())) != 0 }
}

/// Whether the kernel has not written down yet how an operation has ended. It does so before it queues the packet.
///
/// # Safety
///
/// The structure is alive.
#[allow(unsafe_code)]
pub(crate) unsafe fn is_pending(overlapped: *const OVERLAPPED) -> bool {
    // SAFETY: by the contract; the kernel may write at the same time, so it is read as it is in memory.
    let status = unsafe { (&raw const (*overlapped).Internal).read_volatile() };
    status == base::STATUS_PENDING as usize
}

/// From now on a success inside the issuing call queues no packet.
#[allow(unsafe_code)]
pub(crate) fn skip_on_success(it: Handle) -> bool {
    // FILE_SKIP_COMPLETION_PORT_ON_SUCCESS
    // SAFETY: numbers only.
    unsafe { fs::SetFileCompletionNotificationModes(handle(it), 1) != 0 }
}

#[allow(unsafe_code)]
fn name_of(
    it: Handle,
    of: unsafe extern "system" fn(ws::SOCKET, *mut ws::SOCKADDR, *mut i32) -> i32,
) -> Option<SocketAddr> {
    let mut address = Address::none();
    let mut length = size_of::<Address>() as i32;
    // SAFETY: the room is as large as said.
    let result = unsafe { of(socket(it), (&raw mut address.0).cast(), &raw mut length) };
    if result == 0 { address.get() } else { None }
}

pub(crate) fn address_of(it: Handle) -> Option<SocketAddr> {
    name_of(it, ws::getsockname)
}

pub(crate) fn peer_of(it: Handle) -> Option<SocketAddr> {
    name_of(it, ws::getpeername)
}

/// Binds to an address, or to any of a family.
#[allow(unsafe_code)]
pub(crate) fn bind(it: Handle, address: &SocketAddr) -> Result<(), i32> {
    let (address, length) = Address::of(address);
    // SAFETY: the address is as long as said.
    let result = unsafe { ws::bind(socket(it), (&raw const address.0).cast(), length) };
    if result == 0 { Ok(()) } else { Err(socket_error()) }
}

/// A function that Winsock gives out for a socket.
#[allow(unsafe_code)]
fn extension(it: Handle, id: &windows_sys::core::GUID) -> Result<*const (), i32> {
    let mut function: *const () = std::ptr::null();
    let mut bytes = 0;
    // SAFETY: in goes a GUID, out comes an address; both live through the call.
    let result = unsafe {
        ws::WSAIoctl(
            socket(it),
            ws::SIO_GET_EXTENSION_FUNCTION_POINTER,
            (&raw const *id).cast(),
            size_of::<windows_sys::core::GUID>() as u32,
            (&raw mut function).cast(),
            size_of::<*const ()>() as u32,
            &raw mut bytes,
            std::ptr::null_mut(),
            None,
        )
    };
    if result == 0 && !function.is_null() { Ok(function) } else { Err(socket_error()) }
}

/// Starts to connect a bound socket.
///
/// # Safety
///
/// `overlapped` stays valid until its packet.
#[allow(unsafe_code)]
pub(crate) unsafe fn connect(it: Handle, peer: &SocketAddr, overlapped: *mut OVERLAPPED) -> Called {
    let function = match extension(it, &ws::WSAID_CONNECTEX) {
        Ok(function) => function,
        Err(error) => return Called::Failed(error),
    };
    // SAFETY: Winsock gave the address for this function's identifier.
    let function: ws::LPFN_CONNECTEX = unsafe { std::mem::transmute(function) };
    let Some(function) = function else { return Called::Failed(EINVAL) };
    let (address, length) = Address::of(peer);
    // SAFETY: the address is as long as said; for the structure by the contract.
    let done = unsafe {
        function(
            socket(it),
            (&raw const address.0).cast(),
            length,
            std::ptr::null(),
            0,
            std::ptr::null_mut(),
            overlapped,
        )
    };
    called(done == 0, 0)
}

/// A connect has succeeded: from now on the socket knows its names.
#[allow(unsafe_code)]
pub(crate) fn connected(it: Handle) {
    // SAFETY: the option has no value (row N-08).
    unsafe { ws::setsockopt(socket(it), ws::SOL_SOCKET, ws::SO_UPDATE_CONNECT_CONTEXT, std::ptr::null(), 0) };
}

/// Ends the sending side, at once and without a packet: all that was sent before has gone to the system then, so that
/// `DisconnectEx` would have nothing to wait for (docs/decisions/0009-disconnect.md).
#[allow(unsafe_code)]
pub(crate) fn shut_sending(it: Handle) -> Called {
    // SAFETY: numbers only.
    match unsafe { ws::shutdown(socket(it), ws::SD_SEND) } {
        0 => Called::Now(0),
        _ => Called::Failed(socket_error()),
    }
}

/// # Safety
///
/// `overlapped` and `room` stay valid until the packet.
#[allow(unsafe_code)]
pub(crate) unsafe fn accept(listener: Handle, room: *mut AcceptRoom, overlapped: *mut OVERLAPPED) -> Called {
    let mut bytes = 0;
    // SAFETY: the room has two addresses' lengths; by the contract it and the structure stay.
    let done = unsafe {
        ws::AcceptEx(
            socket(listener),
            socket((*room).socket),
            (&raw mut (*room).room).cast(),
            0,
            ROOM as u32,
            ROOM as u32,
            &raw mut bytes,
            overlapped,
        )
    };
    called(done == 0, bytes)
}

/// The kernel's form of memory. A length beyond what it can say is cut: a receive may be short, and a send goes on.
fn pieces(buffers: &[RawBuffer]) -> Vec<ws::WSABUF> {
    let of =
        |piece: &RawBuffer| ws::WSABUF { len: u32::try_from(piece.length).unwrap_or(u32::MAX / 2), buf: piece.pointer };
    buffers.iter().map(of).collect()
}

/// # Safety
///
/// `overlapped` and the memory stay valid until the packet.
#[allow(unsafe_code)]
pub(crate) unsafe fn receive(it: Handle, into: &[RawBuffer], urgent: bool, overlapped: *mut OVERLAPPED) -> Called {
    let pieces = pieces(into);
    let (mut bytes, mut flags) = (0, if urgent { ws::MSG_OOB as u32 } else { 0 });
    // SAFETY: the array is read during the call; the rest by the contract.
    let result = unsafe {
        ws::WSARecv(socket(it), pieces.as_ptr(), pieces.len() as u32, &raw mut bytes, &raw mut flags, overlapped, None)
    };
    called(result != 0, bytes)
}

/// Receives what is there, without waiting.
///
/// # Safety
///
/// The memory is valid for writing.
#[allow(unsafe_code)]
pub(crate) unsafe fn receive_now(it: Handle, into: &[RawBuffer]) -> Result<usize, i32> {
    let pieces = pieces(into);
    let (mut bytes, mut flags) = (0, 0);
    // SAFETY: by the contract. The socket is in non-blocking mode.
    let result = unsafe {
        let count = pieces.len() as u32;
        ws::WSARecv(socket(it), pieces.as_ptr(), count, &raw mut bytes, &raw mut flags, std::ptr::null_mut(), None)
    };
    if result == 0 { Ok(bytes as usize) } else { Err(socket_error()) }
}

/// Sends what there is space for, without waiting.
///
/// # Safety
///
/// The memory is valid for reading, and initialised.
#[allow(unsafe_code)]
pub(crate) unsafe fn send_now(it: Handle, from: &[RawBuffer]) -> Result<usize, i32> {
    let pieces = pieces(from);
    let mut bytes = 0;
    // SAFETY: by the contract. The socket is in non-blocking mode.
    let result = unsafe {
        let count = pieces.len() as u32;
        ws::WSASend(socket(it), pieces.as_ptr(), count, &raw mut bytes, 0, std::ptr::null_mut(), None)
    };
    if result == 0 { Ok(bytes as usize) } else { Err(socket_error()) }
}

/// # Safety
///
/// As for [`receive`].
#[allow(unsafe_code)]
pub(crate) unsafe fn send(it: Handle, from: &[RawBuffer], overlapped: *mut OVERLAPPED) -> Called {
    let pieces = pieces(from);
    let mut bytes = 0;
    // SAFETY: as in `receive`.
    let result =
        unsafe { ws::WSASend(socket(it), pieces.as_ptr(), pieces.len() as u32, &raw mut bytes, 0, overlapped, None) };
    called(result != 0, bytes)
}

/// # Safety
///
/// As for [`receive`], and `from` stays valid, too.
#[allow(unsafe_code)]
pub(crate) unsafe fn receive_from(
    it: Handle,
    into: &[RawBuffer],
    from: *mut FromRoom,
    overlapped: *mut OVERLAPPED,
) -> Called {
    let pieces = pieces(into);
    let mut bytes = 0;
    // SAFETY: as in `receive`.
    let result = unsafe {
        (*from).length = size_of::<Address>() as i32;
        (*from).flags = 0;
        ws::WSARecvFrom(
            socket(it),
            pieces.as_ptr(),
            pieces.len() as u32,
            &raw mut bytes,
            &raw mut (*from).flags,
            (&raw mut (*from).address).cast(),
            &raw mut (*from).length,
            overlapped,
            None,
        )
    };
    match called(result != 0, bytes) {
        // It has filled the buffers, and a packet says so once more (row O-05).
        Called::Failed(ws::WSAEMSGSIZE | 234) => Called::Pending,
        other => other,
    }
}

/// # Safety
///
/// As for [`receive`].
#[allow(unsafe_code)]
pub(crate) unsafe fn send_to(
    it: Handle,
    from: &[RawBuffer],
    to: Option<&SocketAddr>,
    overlapped: *mut OVERLAPPED,
) -> Called {
    let Some(to) = to else {
        // SAFETY: by the contract.
        return unsafe { send(it, from, overlapped) };
    };
    let pieces = pieces(from);
    let (address, length) = Address::of(to);
    let mut bytes = 0;
    // SAFETY: as in `receive`; the address is read during the call.
    let result = unsafe {
        ws::WSASendTo(
            socket(it),
            pieces.as_ptr(),
            pieces.len() as u32,
            &raw mut bytes,
            0,
            (&raw const address.0).cast(),
            length,
            overlapped,
            None,
        )
    };
    called(result != 0, bytes)
}

/// Whether refusals of datagrams fail later receives.
#[allow(unsafe_code)]
pub(crate) fn report_refusals(it: Handle, on: bool) -> Result<(), i32> {
    let on: u32 = on.into();
    let mut bytes = 0;
    // SAFETY: in goes a BOOL, which lives through the call.
    let result = unsafe {
        ws::WSAIoctl(
            socket(it),
            ws::SIO_UDP_CONNRESET,
            (&raw const on).cast(),
            4,
            std::ptr::null_mut(),
            0,
            &raw mut bytes,
            std::ptr::null_mut(),
            None,
        )
    };
    if result == 0 { Ok(()) } else { Err(socket_error()) }
}

/// Memory that is sent before and behind a file. Nothing says that the kernel reads it during the call only, so it
/// stays.
pub(crate) struct Around(ws::TRANSMIT_FILE_BUFFERS);

impl Around {
    pub(crate) fn new(head: &RawBuffer, tail: &RawBuffer) -> Box<Around> {
        Box::new(Around(ws::TRANSMIT_FILE_BUFFERS {
            Head: head.pointer.cast(),
            HeadLength: head.length as u32,
            Tail: tail.pointer.cast(),
            TailLength: tail.length as u32,
        }))
    }
}

/// Sends bytes of a file from the structure's offset on, with memory before and behind them.
///
/// # Safety
///
/// `overlapped`, `around` and the memory stay valid until the packet.
#[allow(unsafe_code)]
pub(crate) unsafe fn transmit(
    it: Handle,
    file: Handle,
    bytes: u32,
    around: *const Around,
    overlapped: *mut OVERLAPPED,
) -> Called {
    // SAFETY: by the contract.
    let done = unsafe { ws::TransmitFile(socket(it), handle(file), bytes, 0, overlapped, &raw const (*around).0, 0) };
    called(done == 0, 0)
}

// --- Files ---

fn file_called(done: i32, bytes: u32) -> Called {
    if done != 0 {
        return Called::Now(bytes as usize);
    }
    match last_error().cast_unsigned() {
        base::ERROR_IO_PENDING => Called::Pending,
        error => Called::Failed(error.cast_signed()),
    }
}

/// # Safety
///
/// `overlapped` and the memory stay valid until the packet.
#[allow(unsafe_code)]
pub(crate) unsafe fn read(it: Handle, into: &RawBuffer, overlapped: *mut OVERLAPPED) -> Called {
    let mut bytes = 0;
    // SAFETY: by the contract.
    let done = unsafe { fs::ReadFile(handle(it), into.pointer.cast(), into.length as u32, &raw mut bytes, overlapped) };
    file_called(done, bytes)
}

/// # Safety
///
/// As for [`read`].
#[allow(unsafe_code)]
pub(crate) unsafe fn write(it: Handle, from: &RawBuffer, overlapped: *mut OVERLAPPED) -> Called {
    let mut bytes = 0;
    // SAFETY: by the contract.
    let done =
        unsafe { fs::WriteFile(handle(it), from.pointer.cast(), from.length as u32, &raw mut bytes, overlapped) };
    file_called(done, bytes)
}

/// Writes what the cache holds of a file to the disk; it takes as long as that takes.
#[allow(unsafe_code)]
pub(crate) fn flush(it: Handle) -> i32 {
    // SAFETY: numbers only.
    if unsafe { fs::FlushFileBuffers(handle(it)) } != 0 { 0 } else { last_error() }
}

#[allow(unsafe_code)]
pub(crate) fn is_disk_file(it: Handle) -> bool {
    // SAFETY: numbers only.
    unsafe { fs::GetFileType(handle(it)) == fs::FILE_TYPE_DISK }
}

#[allow(unsafe_code)]
pub(crate) fn file_length(it: Handle) -> Result<u64, i32> {
    let mut length = 0;
    // SAFETY: the number lives through the call.
    if unsafe { fs::GetFileSizeEx(handle(it), &raw mut length) } == 0 {
        return Err(last_error());
    }
    Ok(length.cast_unsigned())
}

/// One number that the kernel keeps of a file: with which rights (class 8) or in which mode (class 16) it was opened.
#[allow(unsafe_code)]
fn file_number(it: Handle, class: u32) -> Option<u32> {
    let mut status = [0_usize; 2];
    let mut number: u32 = 0;
    // SAFETY: the classes that are asked for write one ULONG; the first argument is an IO_STATUS_BLOCK, two words.
    let result =
        unsafe { nt::NtQueryInformationFile(handle(it), (&raw mut status).cast(), (&raw mut number).cast(), 4, class) };
    (result >= 0).then_some(number)
}

/// The rights that a file was opened with.
pub(crate) fn file_rights(it: Handle) -> Option<u32> {
    file_number(it, 8)
}

/// Whether a file's operations wait: it was not opened for overlapped use.
pub(crate) fn waits(it: Handle) -> bool {
    const SYNCHRONOUS: u32 = 0x10 | 0x20;
    file_number(it, 16).is_none_or(|mode| mode & SYNCHRONOUS != 0)
}

/// Another handle for the same file, with the same rights, for operations that do not wait, or for those that do.
#[allow(unsafe_code)]
pub(crate) fn reopen(it: Handle, overlapped: bool) -> Result<Handle, i32> {
    const NO_INTERMEDIATE_BUFFERING: u32 = 8;
    const WRITE_THROUGH: u32 = 2;
    let rights = file_rights(it).ok_or_else(last_error)?;
    let mode = file_number(it, 16).unwrap_or(0);
    let mut flags = if overlapped { fs::FILE_FLAG_OVERLAPPED } else { 0 };
    if mode & NO_INTERMEDIATE_BUFFERING != 0 {
        flags |= fs::FILE_FLAG_NO_BUFFERING;
    }
    if mode & WRITE_THROUGH != 0 {
        flags |= fs::FILE_FLAG_WRITE_THROUGH;
    }
    let share = fs::FILE_SHARE_READ | fs::FILE_SHARE_WRITE | fs::FILE_SHARE_DELETE;
    // SAFETY: numbers only.
    let made = unsafe { fs::ReOpenFile(handle(it), rights, share, flags) };
    if made == base::INVALID_HANDLE_VALUE { Err(last_error()) } else { Ok(number(made)) }
}

// --- Processes, and the system's pool of threads ---

/// How a process ended.
#[allow(unsafe_code)]
pub(crate) fn exit_code(process: Handle) -> u32 {
    let mut code = 0;
    // SAFETY: the number lives through the call.
    unsafe { threads::GetExitCodeProcess(handle(process), &raw mut code) };
    code
}

#[allow(unsafe_code)]
pub(crate) fn terminate(process: Handle) -> Result<(), i32> {
    // SAFETY: numbers only.
    if unsafe { threads::TerminateProcess(handle(process), 1) } != 0 { Ok(()) } else { Err(last_error()) }
}

/// Has one of the system's threads call `call` when the process has ended.
#[allow(unsafe_code)]
pub(crate) fn when_ended(
    process: Handle,
    call: unsafe extern "system" fn(*mut std::ffi::c_void, bool),
    context: usize,
) -> Result<usize, i32> {
    let mut wait: base::HANDLE = std::ptr::null_mut();
    // SAFETY: the function is called at most once, with the context, which is a number here.
    let done = unsafe {
        threads::RegisterWaitForSingleObject(
            &raw mut wait,
            handle(process),
            Some(call),
            std::ptr::with_exposed_provenance(context),
            threads::INFINITE,
            threads::WT_EXECUTEONLYONCE,
        )
    };
    if done != 0 { Ok(wait.expose_provenance()) } else { Err(last_error()) }
}

/// Ends such a wait, whether `call` was called or not, and waits for a call that is under way. True: there is none, and
/// will be none. Not to be called by `call` itself.
#[allow(unsafe_code)]
pub(crate) fn end_wait(wait: usize) -> bool {
    let wait = std::ptr::with_exposed_provenance_mut(wait);
    // SAFETY: the wait was registered, and is ended once. The second value is no event, it asks to wait for the call.
    unsafe { threads::UnregisterWaitEx(wait, base::INVALID_HANDLE_VALUE) != 0 }
}

/// Has one of the system's threads call `call`.
#[allow(unsafe_code)]
pub(crate) fn in_another_thread(call: unsafe extern "system" fn(*mut std::ffi::c_void) -> u32, context: usize) -> bool {
    // SAFETY: the function is called once, with the context, which is a number here.
    unsafe {
        threads::QueueUserWorkItem(
            Some(call),
            std::ptr::with_exposed_provenance(context),
            threads::WT_EXECUTELONGFUNCTION,
        ) != 0
    }
}

/// An address of the same family that means any.
pub(crate) fn any_of(peer: &SocketAddr) -> SocketAddr {
    let any: IpAddr = if peer.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    SocketAddr::new(any, 0)
}
