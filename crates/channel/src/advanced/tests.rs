use std::fmt::Write as _;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

/// A payload of a value whose tags are written as they are.
fn payload(value: &[u8]) -> Vec<u8> {
    [&HEADER, value].concat()
}

/// Small random numbers, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    /// A value as `JSON.stringify` writes it, without names that are numbers.
    fn json(&mut self, depth: usize, out: &mut String) {
        match self.roll(if depth == 0 { 6 } else { 8 }) {
            0 => out.push_str(["null", "true", "false"][self.roll(3)]),
            1 => write!(out, "{}", i64::try_from(self.roll(1 << 20)).unwrap() - (1 << 19)).unwrap(),
            2 => out.push_str(
                ["2147483647", "-2147483648", "2147483648", "1e+21", "-0.5", "5e-324"][self.roll(6)],
            ),
            3..6 => self.string(out),
            6 => {
                out.push('[');
                for at in 0..self.roll(5) {
                    out.push_str(if at == 0 { "" } else { "," });
                    self.json(depth - 1, out);
                }
                out.push(']');
            }
            _ => {
                out.push('{');
                for at in 0..self.roll(5) {
                    write!(out, "{}\"{at}-", if at == 0 { "" } else { "," }).unwrap();
                    let mut name = String::new();
                    self.string(&mut name);
                    write!(out, "{}:", &name[1..]).unwrap();
                    self.json(depth - 1, out);
                }
                out.push('}');
            }
        }
    }

    fn string(&mut self, out: &mut String) {
        const PIECES: [&str; 10] = ["a", "\\\"", "\\\\", "\\u0000", "\\n", "é", "ÿ", "日本", "😀", "\\ud800"];
        let plain = self.roll(2) == 0;
        out.push('"');
        for _ in 0..self.roll(40) {
            out.push_str(PIECES[if plain { 0 } else { self.roll(PIECES.len()) }]);
        }
        out.push('"');
    }
}

/// What Node writes of several values, and what `JSON.stringify` makes of them.
const OF_NODE: [(&str, &str); 24] = [
    ("49 02", "1"),
    ("5f", "null in []"),
    ("6f 22 01 61 49 02 22 01 62 5f 22 01 63 54 7b 03", r#"{"a":1,"c":true}"#),
    ("6f 22 01 61 5f 7b 01", "{}"),
    ("41 03 49 02 5f 46 24 00 03", "[1,null,false]"),
    ("61 03 49 00 49 02 49 04 49 06 22 01 78 49 02 40 03 03", "[1,null,3]"),
    ("41 01 49 02 22 01 78 6f 7b 00 24 01 01", "[1]"),
    ("44 00 00 00 00 00 00 00 00", r#""1970-01-01T00:00:00.000Z""#),
    ("44 00 00 00 00 00 00 f8 7f", "null"),
    ("3b 49 02 22 01 62 3a 02", "{}"),
    ("27 49 02 2c 01", "{}"),
    ("5c 00 0a 02 61 62", r#"{"type":"Buffer","data":[97,98]}"#),
    ("5c 00 03 04 01 00 ff ff", r#"{"0":1,"1":-1}"#),
    ("5c 00 07 04 00 00 c0 7f", r#"{"0":null}"#),
    ("5c 00 0b 00", "{}"),
    ("5c 01 6f 22 01 61 49 02 7b 01", r#"{"a":1}"#),
    ("6f 22 01 61 6f 22 01 78 49 02 7b 01 22 01 62 5e 01 7b 02", r#"{"a":{"x":1},"b":{"x":1}}"#),
    ("52 22 01 61 03", "{}"),
    ("72 54 6d 22 01 78 63 6f 22 01 61 49 02 7b 01 73 22 02 73 74 2e", "{}"),
    ("6e 00 00 00 00 00 00 f8 3f", "1.5"),
    ("73 22 01 73", "\"s\""),
    ("22 02 e9 0a", "\"é\\n\""),
    ("63 04 3d d8 00 de", "\"😀\""),
    ("63 02 3d d8", "\"\\ud83d\""),
];

#[test]
fn what_node_writes_becomes_what_it_would_have_written_as_json() {
    for (hex, want) in OF_NODE {
        let (value, want) = match want.strip_suffix(" in []") {
            Some(want) => ([&b"A\x01"[..], &bytes(hex), b"$\0\x01"].concat(), format!("[{want}]")),
            None => (bytes(hex), want.to_owned()),
        };
        assert_eq!(decode(&payload(&value)), Ok(want), "{hex}");
    }
}

#[test]
fn an_object_that_is_named_again_is_there_again_also_one_that_only_a_map_has() {
    // { m: new Map([[1, { o: 5 }]]), again: that, map: the map }
    let value = b"o\"\x01m;I\x02o\"\x01oI\x0a{\x01:\x02\"\x05again^\x02\"\x03map^\x01{\x03";
    assert_eq!(decode(&payload(value)).unwrap(), r#"{"m":{},"again":{"o":5},"map":{}}"#);
    // A map within an object within a map: [Map{1: {in: Map{2: {x: 1}}}}, the outer, the inner].
    let value = b"A\x03;I\x02o\"\x02in;I\x04o\"\x01xI\x02{\x01:\x02{\x01:\x02^\x02^\x04$\0\x03";
    assert_eq!(decode(&payload(value)).unwrap(), r#"[{},{"in":{}},{"x":1}]"#);
}

#[test]
fn what_json_cannot_hold_is_said_unless_json_would_not_show_it() {
    assert_eq!(decode(&payload(b"Z\x10\x01\0\0\0\0\0\0\0")), Err(Unreadable::NoJson("a BigInt")));
    assert_eq!(decode(&payload(b"_")), Err(Unreadable::NoJson("undefined")));
    assert_eq!(decode(&payload(b"o\"\x01a^\0{\x01")), Err(Unreadable::NoJson("an object within itself")));
    assert_eq!(decode(&payload(b";I\x02Z\0:\x02")).unwrap(), "{}");
    assert_eq!(decode(&payload(b";I\x02o\"\x01a^\x01{\x01:\x02")).unwrap(), "{}");
    assert_eq!(decode(&payload(b";I\x02^\0:\x02")).unwrap(), "{}");
    // The same, and then it is shown: [Map{1: {a: 0n}}, that].
    let value = b"A\x02;I\x02o\"\x01aZ\0{\x01:\x02^\x02$\0\x02";
    assert_eq!(decode(&payload(value)), Err(Unreadable::NoJson("a BigInt")));
}

#[test]
fn a_frame_is_what_node_writes() {
    for (json, hex) in [
        ("null", "30"),
        (" [ 1 , [] , {} ] ", "41 03 49 02 41 00 24 00 00 6f 7b 00 24 00 03"),
        (
            r#"{"a":-1,"7":1.5,"4294967294":0}"#,
            "6f 22 01 61 49 01 49 0e 4e 000000000000f83f 4e 0000c0ffffffef41 49 00 7b 03",
        ),
        (r#"["\u20ac","é"]"#, "41 02 63 02 ac20 22 01 e9 24 00 02"),
        (r#""\u20ac""#, "63 02 ac20"),
        (r#"{"ab":"\u20ac"}"#, "6f 22 02 61 62 00 63 02 ac20 7b 01"),
    ] {
        let want = payload(&bytes(hex));
        let length = u32::try_from(want.len()).unwrap().to_be_bytes();
        assert_eq!(encode(json).unwrap(), [&length[..], &want].concat(), "{json}");
    }
}

#[test]
fn a_text_that_is_no_message_becomes_no_frame() {
    for json in ["", "{", "[1,]", "1 2", "\"\\x\"", "nul"] {
        assert_eq!(encode(json), Err(Unsendable::NoJson), "{json}");
    }
    assert_eq!(encode(r#"[{"a":1,"b":2,"\u0061":3}]"#), Err(Unsendable::TwoMembers));
    // One of these names begins at an odd place.
    for (first, second) in [("日", "日"), ("日", "\\u65e5"), ("é日", "é日")] {
        for before in ["", r#""a":1,"#, r#""ab":1,"#] {
            let json = format!(r#"{{{before}"{first}":1,"{second}":2}}"#);
            assert_eq!(encode(&json), Err(Unsendable::TwoMembers), "{json}");
        }
    }
    assert!(encode(r#"[{"a":{"a":1}},{"a":2}]"#).is_ok());
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(encode(&deep(1001)), Err(Unsendable::TooDeep));
    assert_eq!(encode(&deep(fewer(1_000_000))), Err(Unsendable::TooDeep));
    assert!(encode(&deep(1000)).is_ok());
}

#[test]
fn what_is_sent_is_what_is_heard() {
    let mut dice = Dice(1);
    for round in 0..fewer(5000) {
        let mut json = String::new();
        dice.json(round % 7, &mut json);
        let frame = encode(&json).unwrap();
        assert_eq!(decode(&frame[4..]).as_ref(), Ok(&json));
        let spaced = json.replace("\":", "\" :\n").replace("[", "[ ").replace("]", "\t]");
        assert_eq!(encode(&spaced).unwrap(), frame, "{json}");
    }
}

#[test]
fn a_payload_that_is_cut_anywhere_is_no_message() {
    for (hex, _) in OF_NODE {
        let whole = payload(&bytes(hex));
        for length in 0..whole.len() {
            decode(&whole[..length]).unwrap_err();
        }
        decode(&[&whole[..], &b"0"[..]].concat()).unwrap_err();
    }
}

#[test]
#[cfg_attr(miri, ignore = "large on purpose")]
fn no_payload_costs_more_than_it_may() {
    let deep = |begin: &[u8]| payload(&begin.repeat(100_000));
    for begin in [&b"A\x01"[..], b"o\"\0", b";", b"\\\x01", b"'", b"rc", b"a\x01I\0"] {
        assert_eq!(decode(&deep(begin)), Err(Unreadable::TooDeep), "{}", begin.escape_ascii());
    }
    // Lengths that nothing stands behind.
    for value in [&b"A\xff\xff\xff\xff\x0f"[..], b"\"\xff\xff\xff\xff\x0f", b"\\\0\x0a\xff\xff\xff\xff\x0fx"]
    {
        assert_eq!(decode(&payload(value)), Err(Unreadable::Cut));
    }
    assert_eq!(decode(&payload(b"a\xff\xff\xff\xff\x0f@\0\xff\xff\xff\xff\x0f")), Err(Unreadable::TooLong));
    assert_eq!(decode(&payload(b"a\xff\xff\xff\xff\x0fI\xfe\xff\xff\xff\x0fT")), Err(Unreadable::TooLong));
    // Each holds the one before ten times: 10^11 values, where they are seen and where they are not.
    assert_eq!(decode(&payload(&growing(1))), Err(Unreadable::TooLong));
    assert_eq!(decode(&payload(&[&b";I\0"[..], &growing(2), b":\x02"].concat())), Err(Unreadable::TooLong));
    let many = [&b"A\xff\xff\xff\x07"[..], &b"y".repeat(6 << 20)].concat();
    assert_eq!(decode(&payload(&many)), Err(Unreadable::TooLong));
}

/// An array of arrays that each hold the one before ten times; `first` is the number of the first.
fn growing(first: u8) -> Vec<u8> {
    let mut value = b"A\x0cA\x01T$\0\x01".to_vec();
    for level in 0..11 {
        value.extend(b"A\x0a");
        value.extend([b'^', first + level].repeat(10));
        value.extend(b"$\0\x0a");
    }
    value.extend(b"$\0\x0c");
    value
}

#[test]
fn garbage_is_unreadable_and_nothing_worse() {
    const TAGS: &[u8] = b"_0TFIUNZ\"cS^oA$a@{;:',r\\DxynzsRB~-?VtmE.c\0\x01\x02\x03";
    let (mut dice, mut read) = (Dice(7), 0);
    for _ in 0..fewer(100_000) {
        let count = dice.roll(60);
        let value: Vec<u8> = (0..count)
            .map(|_| match dice.roll(5) {
                0 => u8::try_from(dice.roll(256)).unwrap(),
                _ => TAGS[dice.roll(TAGS.len())],
            })
            .collect();
        if let Ok(json) = decode(&payload(&value)) {
            assert!(serde_json::from_str::<&serde_json::value::RawValue>(&json).is_ok(), "{json}");
            read += 1;
        }
    }
    assert!(read > 100 || cfg!(miri), "{read}");
    // One byte is another one.
    for (hex, _) in OF_NODE {
        let whole = payload(&bytes(hex));
        for at in 2..whole.len() {
            for byte in (0..=255).step_by(if cfg!(miri) { 85 } else { 1 }) {
                let mut other = whole.clone();
                other[at] = byte;
                if let Ok(json) = decode(&other) {
                    assert!(serde_json::from_str::<&serde_json::value::RawValue>(&json).is_ok(), "{json}");
                }
            }
        }
    }
}

/// Miri looks at each step, and has seen enough sooner.
fn fewer(rounds: usize) -> usize {
    if cfg!(miri) { rounds / 250 } else { rounds }
}
