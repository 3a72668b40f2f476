//! What a client says on the control socket.

use std::sync::OnceLock;

use shiftboss::fuzz::Control;

/// Whatever is said, the answer is HTTP or nothing, and the next client is answered as ever.
pub fn try_out(bytes: &[u8]) {
    static CONTROL: OnceLock<Control> = OnceLock::new();
    let control = CONTROL.get_or_init(Control::new);
    let answer = control.answer(bytes);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{:.80}", String::from_utf8_lossy(&answer));
}
