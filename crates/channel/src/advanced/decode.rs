//! A payload becomes JSON.
//!
//! In one pass, without a tree: a value that is named again is a piece of what was written, and copied from there. What a
//! `Map` holds is not in its JSON, but may be named again outside: it is written too, and put aside. Values within values
//! are a stack of our own, so that no payload can exhaust the thread's.

mod small;

use super::read::Bytes;
use super::text::Json;
use super::{DEEPEST, HEADER, Unreadable, number, tag};
use crate::LONGEST;

/// The JSON that `JSON.stringify` makes of the value which this payload, a frame without its length, holds.
///
/// # Errors
/// [`Unreadable`]: no payload, or JSON cannot hold it.
pub fn decode(payload: &[u8]) -> Result<String, Unreadable> {
    let rest = payload.strip_prefix(&HEADER).ok_or(Unreadable::Version)?;
    let mut decoder = Decoder {
        bytes: Bytes(rest),
        json: Json::new(LONGEST),
        stack: Vec::new(),
        hidden: 0,
        places: Vec::new(),
        visible: Vec::new(),
        asides: Vec::new(),
    };
    decoder.value()?;
    while let Some(frame) = decoder.stack.pop() {
        decoder.go_on(frame)?;
    }
    if decoder.bytes.0.is_empty() {
        Ok(decoder.json.text)
    } else {
        Err(Unreadable::Wrong("more than one value"))
    }
}

struct Decoder<'a> {
    bytes: Bytes<'a>,
    json: Json,
    /// Values that are not complete, the innermost last.
    stack: Vec<Frame>,
    /// How many of them are [`Inside::Hidden`].
    hidden: usize,
    /// Where the JSON of each object is, by its number.
    places: Vec<Place>,
    /// Objects whose JSON is in the text itself, in order.
    visible: Vec<usize>,
    /// JSON that belongs to nothing but what names it.
    asides: Vec<String>,
}

#[derive(Clone, Copy)]
enum Place {
    /// Not complete.
    Open,
    Text {
        from: usize,
        to: usize,
    },
    Aside {
        number: usize,
        from: usize,
        to: usize,
    },
    Never(&'static str),
}

struct Frame {
    inside: Inside,
    object: usize,
    from: usize,
    /// Values that were begun in it; of an object, members.
    count: u32,
    /// It holds what JSON cannot, which matters if it is named where it can be seen.
    never: Option<&'static str>,
}

enum Inside {
    /// Where the last member began: one that is undefined is taken back.
    Object {
        member: usize,
    },
    Dense {
        length: u32,
    },
    /// Elements are written up to here.
    Sparse {
        length: u32,
        next: u32,
    },
    /// A value that stands for an object of the other program's own.
    Host,
    /// Its JSON is written; what comes up to its end is not part of it.
    Hidden {
        kind: Hidden,
        visible: usize,
    },
}

#[derive(Clone, Copy)]
enum Hidden {
    Map,
    Set,
    Error,
    /// Members of an array that are no elements, and its length.
    Members {
        end: u8,
        length: u32,
    },
}

impl Decoder<'_> {
    /// One value: writes it, or begins to.
    fn value(&mut self) -> Result<(), Unreadable> {
        let tag = self.bytes.tag()?;
        match tag {
            tag::UNDEFINED => self.undefined(),
            tag::NULL => self.json.push("null"),
            tag::TRUE => self.json.push("true"),
            tag::FALSE => self.json.push("false"),
            tag::INT32 => {
                let number = self.bytes.int32()?;
                self.json.push(&number.to_string())
            }
            b'U' => {
                let number = self.bytes.varint()?;
                self.json.push(&number.to_string())
            }
            tag::DOUBLE => {
                let number = self.bytes.double()?;
                self.json.number(number)
            }
            b'Z' => {
                self.bytes.pass_big_integer()?;
                self.never(BIG_INTEGER)
            }
            tag::ONE_BYTE_STRING | tag::TWO_BYTE_STRING | b'S' => {
                let text = self.bytes.text(tag)?;
                self.json.string(text)
            }
            b'^' => self.named_again(),
            tag::OBJECT => self.open(Inside::Object { member: self.json.len() }, "{"),
            tag::DENSE_ARRAY => {
                let length = self.bytes.varint()?;
                self.open(Inside::Dense { length }, "[")
            }
            b'a' => {
                let length = self.bytes.varint()?;
                self.open(Inside::Sparse { length, next: 0 }, "[")
            }
            b';' => self.open_hidden(Hidden::Map),
            b'\'' => self.open_hidden(Hidden::Set),
            b'r' => self.open_hidden(Hidden::Error),
            b'\\' => self.host_object(),
            b'D' | b'x' | b'y' | b'n' | b'z' | b's' | b'R' | b'B' | b'~' => self.small_object(tag),
            tag => Err(Unreadable::Tag(tag)),
        }
    }

    fn undefined(&mut self) -> Result<(), Unreadable> {
        match self.stack.last() {
            Some(Frame { inside: Inside::Object { member }, .. }) => {
                self.json.text.truncate(*member);
                Ok(())
            }
            Some(_) => self.json.push("null"),
            None => Err(Unreadable::NoJson("undefined")),
        }
    }

    fn named_again(&mut self) -> Result<(), Unreadable> {
        let object = self.bytes.length()?;
        if matches!(self.stack.last(), Some(Frame { inside: Inside::Hidden { .. }, .. })) {
            // Nobody can name it by this place.
            return Ok(());
        }
        let text = match self.places.get(object) {
            Some(Place::Text { from, to }) => self.json.text[*from..*to].to_owned(),
            Some(Place::Aside { number, from, to }) => self.asides[*number][*from..*to].to_owned(),
            Some(Place::Open) => return self.never("an object within itself"),
            Some(Place::Never(why)) => return self.never(why),
            None => return Err(Unreadable::Wrong("an object that is not there")),
        };
        self.json.push(&text)
    }

    /// What JSON cannot hold is an error, unless it cannot be seen.
    fn never(&mut self, why: &'static str) -> Result<(), Unreadable> {
        if self.hidden == 0 {
            return Err(Unreadable::NoJson(why));
        }
        if let Some(frame) = self.stack.last_mut() {
            frame.never = Some(why);
        }
        Ok(())
    }

    /// The next object's number, and where it begins.
    fn number(&mut self) -> (usize, usize) {
        let object = self.places.len();
        self.places.push(Place::Open);
        self.visible.push(object);
        (object, self.json.len())
    }

    fn open(&mut self, inside: Inside, text: &str) -> Result<(), Unreadable> {
        let (object, from) = self.number();
        self.json.push(text)?;
        self.push(Frame { inside, object, from, count: 0, never: None })
    }

    fn open_hidden(&mut self, kind: Hidden) -> Result<(), Unreadable> {
        let (object, from) = self.number();
        self.json.push("{}")?;
        self.places[object] = Place::Text { from, to: self.json.len() };
        self.hide(kind, object)
    }

    /// What comes now is not seen.
    fn hide(&mut self, kind: Hidden, object: usize) -> Result<(), Unreadable> {
        self.hidden += 1;
        let inside = Inside::Hidden { kind, visible: self.visible.len() };
        self.push(Frame { inside, object, from: self.json.len(), count: 0, never: None })
    }

    fn push(&mut self, frame: Frame) -> Result<(), Unreadable> {
        if self.stack.len() >= DEEPEST {
            return Err(Unreadable::TooDeep);
        }
        self.stack.push(frame);
        Ok(())
    }

    /// One step within the innermost value: its next value, or its end.
    fn go_on(&mut self, mut frame: Frame) -> Result<(), Unreadable> {
        match &mut frame.inside {
            Inside::Object { member } => {
                if self.ends(tag::OBJECT_END)? {
                    self.counts(frame.count)?;
                    self.json.push("}")?;
                    return self.close(&frame);
                }
                *member = self.json.len();
                self.json.separate('{')?;
                self.name()?;
                self.json.push(":")?;
            }
            Inside::Dense { length } if frame.count == *length => {
                let (end, length) = (tag::DENSE_ARRAY_END, *length);
                self.json.push("]")?;
                self.close(&frame)?;
                return self.hide(Hidden::Members { end, length }, frame.object);
            }
            Inside::Dense { .. } => {
                self.json.separate('[')?;
                if self.ends(b'-')? {
                    self.json.push("null")?;
                    frame.count += 1;
                    self.stack.push(frame);
                    return Ok(());
                }
            }
            Inside::Sparse { length, next } => match self.element(*length, *next)? {
                Some(at) => {
                    self.nulls(at - *next)?;
                    self.json.separate('[')?;
                    *next = at + 1;
                }
                None => {
                    self.nulls(*length - *next)?;
                    let (members, length) = (frame.count, *length);
                    self.json.push("]")?;
                    self.close(&frame)?;
                    self.hide(Hidden::Members { end: b'@', length }, frame.object)?;
                    if let Some(hidden) = self.stack.last_mut() {
                        hidden.count = members;
                    }
                    return Ok(());
                }
            },
            Inside::Host if frame.count == 1 => return self.close(&frame),
            Inside::Host => {}
            Inside::Hidden { kind, visible } => {
                if self.passes_hidden(*kind, frame.count)? {
                    self.put_aside(frame.from, *visible);
                    self.hidden -= 1;
                    return Ok(());
                }
            }
        }
        frame.count = frame.count.saturating_add(1);
        self.stack.push(frame);
        self.value()
    }

    /// The name of an object's member.
    fn name(&mut self) -> Result<(), Unreadable> {
        match self.bytes.tag()? {
            tag @ (tag::INT32 | tag::DOUBLE | b'U') => {
                let name = self.numeric_name(tag)?;
                self.json.push(&format!("\"{name}\""))
            }
            tag => {
                let name = self.bytes.text(tag)?;
                self.json.string(name)
            }
        }
    }

    fn numeric_name(&mut self, tag: u8) -> Result<String, Unreadable> {
        match tag {
            tag::INT32 => Ok(self.bytes.int32()?.to_string()),
            tag::DOUBLE => match self.bytes.double()? {
                name if name.is_finite() => Ok(number::text(name)),
                _ => Err(Unreadable::Wrong("a name that is no number")),
            },
            _ => Ok(self.bytes.varint()?.to_string()),
        }
    }

    /// The place of a sparse array's next element; None if what comes is no element.
    fn element(&mut self, length: u32, next: u32) -> Result<Option<u32>, Unreadable> {
        let mut ahead = self.bytes;
        let at = match ahead.tag()? {
            tag::INT32 => u32::try_from(ahead.int32()?).ok(),
            b'U' => Some(ahead.varint()?),
            tag::DOUBLE => {
                let at = ahead.double()?;
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let whole = at as u32;
                (f64::from(whole) == at).then_some(whole)
            }
            _ => None,
        };
        match at {
            Some(at) if at < next || at >= length => Err(Unreadable::Wrong("an element out of place")),
            Some(at) => {
                self.bytes = ahead;
                Ok(Some(at))
            }
            None => Ok(None),
        }
    }

    fn nulls(&mut self, times: u32) -> Result<(), Unreadable> {
        if times == 0 {
            return Ok(());
        }
        self.json.separate('[')?;
        self.json.push("null")?;
        self.json.repeat(",null", times as usize - 1)
    }

    /// Passes what is not a value in what cannot be seen. Whether that was its end.
    fn passes_hidden(&mut self, kind: Hidden, count: u32) -> Result<bool, Unreadable> {
        match kind {
            Hidden::Map if count % 2 == 1 => Ok(false),
            Hidden::Map => self.ends_counted(b':', count),
            Hidden::Set => self.ends_counted(b',', count),
            Hidden::Members { end, length } => {
                if self.ends_counted(end, count)? {
                    self.counts(length)?;
                    return Ok(true);
                }
                match self.bytes.tag()? {
                    tag @ (tag::INT32 | tag::DOUBLE | b'U') => self.numeric_name(tag).map(|_| false),
                    tag => self.bytes.text(tag).map(|_| false),
                }
            }
            Hidden::Error => loop {
                match self.bytes.byte()? {
                    b'E' | b'R' | b'F' | b'S' | b'T' | b'U' => {}
                    b'm' | b's' => {
                        self.bytes.tagged_text()?;
                    }
                    b'c' => return Ok(false),
                    b'.' => return Ok(true),
                    tag => return Err(Unreadable::Tag(tag)),
                }
            },
        }
    }

    fn ends(&mut self, end: u8) -> Result<bool, Unreadable> {
        let ends = self.bytes.peek_tag()? == end;
        if ends {
            self.bytes.byte()?;
        }
        Ok(ends)
    }

    fn ends_counted(&mut self, end: u8, count: u32) -> Result<bool, Unreadable> {
        let ends = self.ends(end)?;
        if ends {
            self.counts(count)?;
        }
        Ok(ends)
    }

    /// It says itself how much it had.
    fn counts(&mut self, want: u32) -> Result<(), Unreadable> {
        if self.bytes.varint()? == want {
            Ok(())
        } else {
            Err(Unreadable::Wrong("another count than it says"))
        }
    }

    /// A value is complete.
    fn close(&mut self, frame: &Frame) -> Result<(), Unreadable> {
        self.places[frame.object] = match frame.never {
            Some(why) => Place::Never(why),
            None => Place::Text { from: frame.from, to: self.json.len() },
        };
        frame.never.map_or(Ok(()), |why| self.never(why))
    }

    /// Cuts what cannot be seen off the text, and keeps it if it can be named.
    fn put_aside(&mut self, from: usize, visible: usize) {
        let objects = self.visible.split_off(visible);
        if objects.is_empty() {
            self.json.text.truncate(from);
            return;
        }
        let number = self.asides.len();
        self.asides.push(self.json.text.split_off(from));
        for object in objects {
            if let Place::Text { from: begins, to } = self.places[object] {
                self.places[object] = Place::Aside { number, from: begins - from, to: to - from };
            }
        }
    }
}

const BIG_INTEGER: &str = "a BigInt";
