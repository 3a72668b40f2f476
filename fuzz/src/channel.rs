//! Lines on a worker's channel: framing, and what each line says. The first byte says how the stream is cut on its way
//! and how long a line may be.

use shiftboss_channel::{BadLine, Framer, Heard, Message, call, error_reply, reply};

/// However a stream is cut, the same lines come of it, and of what is left of an unfinished one a successor makes the
/// same as the reader who began it. Whatever a line says, saying it again gives a line that says the same.
pub fn try_out(bytes: &[u8]) {
    let Some((how, stream)) = bytes.split_first() else { return };
    let longest = [1, 8, 64, 1 << 20][usize::from(how >> 6)];
    let piece = 1 + usize::from(how & 0x1f);
    let whole = lines(Framer::new(longest), [stream]);
    let mut cut = Vec::new();
    let mut framer = Framer::new(longest);
    for (at, piece) in stream.chunks(piece).enumerate() {
        framer.feed(piece, |heard| cut.push(owned(&heard)));
        assert!(framer.partial().len() <= longest);
        // Another reader goes on, as long as the beginning of the line is known.
        if how & 0x20 != 0 && at % 3 == 0 && !framer.partial().is_empty() {
            framer = Framer::resume(longest, framer.partial().to_vec());
        }
    }
    assert!(whole == cut, "cut in pieces of {piece} it is something else");
    whole.iter().flatten().for_each(|line| says_the_same_again(line));
}

fn lines<'a>(mut framer: Framer, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Option<Vec<u8>>> {
    let mut seen = Vec::new();
    pieces.into_iter().for_each(|piece| framer.feed(piece, |heard| seen.push(owned(&heard))));
    seen
}

/// None: a line that is too long.
fn owned(heard: &Heard<'_>) -> Option<Vec<u8>> {
    match heard {
        Heard::Line(line) => Some(line.to_vec()),
        Heard::TooLong => None,
    }
}

fn says_the_same_again(line: &[u8]) {
    let again = match Message::of(line) {
        Ok(Message::Call { id, message }) => call(id, message),
        Ok(Message::Reply { id, result: Ok(message) }) => reply(id, message),
        Ok(Message::Reply { id, result: Err(error) }) => error_reply(id, error.get()),
        Ok(Message::Plain(raw) | Message::Ops(raw) | Message::Numbers(raw)) => {
            let mut lines = Vec::new();
            shiftboss_channel::add_line(&mut lines, raw).expect("it is JSON");
            assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
            return assert!(!matches!(Message::of(&lines), Err(BadLine)), "JSON stays JSON");
        }
        Ok(Message::Ready | Message::Unknown) | Err(BadLine) => return,
    };
    assert!(!again.contains(['\n', '\r']));
    let same = match (Message::of(line), Message::of(again.as_bytes())) {
        (Ok(Message::Call { id, .. }), Ok(Message::Call { id: other, .. })) => id == other,
        (Ok(Message::Reply { id, result }), Ok(Message::Reply { id: other, result: same })) => {
            id == other && result.is_ok() == same.is_ok()
        }
        _ => false,
    };
    assert!(same, "{again}");
}
