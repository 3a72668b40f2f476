//! Classic BPF programs that keep new clients out of a socket without touching those already in.
//!
//! A filter on a listening TCP socket sees each segment from its TCP header on (`sk_filter` in `tcp_v4_rcv` and
//! `tcp_v6_rcv`). A dropped SYN is sent again by the client: it waits, it is not refused. See `SO_ATTACH_FILTER` in
//! socket(7) and the kernel's Documentation/networking/filter.rst.

use std::io;

use socket2::{SockFilter, Socket};

/// Drops every SYN; the last ACK of a handshake that had begun passes, so that no client is left half connected.
pub(super) fn drop_new_connections(listener: &Socket) -> io::Result<()> {
    listener.attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, TCP_FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, DROP),
        SockFilter::new(RETURN, 0, 0, PASS),
    ])
}

/// Drops every datagram; those already queued can still be read.
pub(super) fn drop_everything(socket: &Socket) -> io::Result<()> {
    socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, DROP)])
}

/// Takes a filter off again; none there is no error.
pub(super) fn detach(socket: &Socket) -> io::Result<()> {
    match socket.detach_filter() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

// linux/filter.h, linux/bpf_common.h.
const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const DROP: u32 = 0;
const PASS: u32 = u32::MAX;
// RFC 9293, section 3.1.
const TCP_FLAGS: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;
