//! Messages on a worker's channel: framing, and what each says. The first byte says how the stream is made of messages,
//! how it is cut on its way and how long a message may be.

use shiftboss_channel::advanced::{self, Unreadable};
use shiftboss_channel::node::Said;
use shiftboss_channel::{BadLine, Framer, Framing, Heard, Message, call, error_reply, promoted, reply};

/// However a stream is cut, the same messages come of it, and of what is left of an unfinished one a successor makes the
/// same as the reader who began it. Whatever a message says, saying it again gives one that says the same.
pub fn try_out(bytes: &[u8]) {
    let Some((how, stream)) = bytes.split_first() else { return };
    let longest = [1, 8, 64, 1 << 20][usize::from(how >> 6)];
    let framing = if how & 0x10 == 0 { Framing::Lines } else { Framing::Frames };
    let piece = 1 + usize::from(how & 0x0f);
    let mut whole = Vec::new();
    Framer::new(framing, longest).feed(stream, |heard| whole.push(owned(&heard)));
    let mut cut = Vec::new();
    let mut framer = Framer::new(framing, longest);
    for (at, piece) in stream.chunks(piece).enumerate() {
        framer.feed(piece, |heard| cut.push(owned(&heard)));
        // With what a frame begins with, or what says how much of one is passed over.
        let beside = if framing == Framing::Frames { 8 } else { 0 };
        assert!(framer.partial().len() <= longest + beside);
        // Another reader goes on, as long as the beginning of the message is known.
        if how & 0x20 != 0 && at % 3 == 0 && !framer.partial().is_empty() {
            framer = Framer::resume(framing, longest, framer.partial().to_vec());
        }
    }
    assert!(whole == cut, "cut in pieces of {piece} it is something else");
    whole.iter().flatten().for_each(|line| says_the_same_again(line));
    if framing == Framing::Frames {
        // One payload, which need not have its length before it.
        if let Ok(line) = advanced::decode(stream) {
            is_the_same_in_a_frame(&line);
        }
    }
}

/// Or why it is no line.
fn owned(heard: &Heard<'_>) -> Result<Vec<u8>, Option<Unreadable>> {
    match heard {
        Heard::Line(line) => Ok(line.to_vec()),
        Heard::TooLong => Err(None),
        Heard::Unreadable(why) => Err(Some(*why)),
    }
}

fn is_the_same_in_a_frame(line: &str) {
    assert!(Message::of(line.as_bytes()).is_ok() || is_ours(line), "what a frame says is JSON: {line}");
    if let Ok(frame) = advanced::encode(line) {
        let again = advanced::decode(&frame[4..]).expect("a frame of ours is read");
        assert_eq!(again, line);
    }
}

/// In our words it may say what cannot be.
fn is_ours(line: &str) -> bool {
    line.contains("cmd")
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
        Ok(Message::Promoted { slot }) => promoted(slot),
        Ok(Message::Node(raw)) => return drop(Said::of(raw)),
        Ok(Message::Ready | Message::Standby | Message::Unknown) | Err(BadLine) => return,
    };
    assert!(!again.contains(['\n', '\r']));
    let same = match (Message::of(line), Message::of(again.as_bytes())) {
        (Ok(Message::Promoted { slot }), Ok(Message::Promoted { slot: same })) => slot == same,
        (Ok(Message::Call { id, .. }), Ok(Message::Call { id: other, .. })) => id == other,
        (Ok(Message::Reply { id, result }), Ok(Message::Reply { id: other, result: same })) => {
            id == other && result.is_ok() == same.is_ok()
        }
        _ => false,
    };
    assert!(same, "{again}");
}
