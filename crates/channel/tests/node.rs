//! Real Nodes at the other end, with `serialization: 'advanced'`: the one in `PATH`, or those of `SHIFTBOSS_TEST_NODES`
//! (paths, a colon between).

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};

use shiftboss_channel::{
    Descriptors, Framing, Heard, Incoming, LONGEST, Outgoing, Reading, advanced, node, socket,
};

/// A Node that runs this, with its channel.
struct Peer {
    child: Child,
    ours: OwnedFd,
    incoming: Incoming,
}

impl Peer {
    fn start(node: &str, script: &str) -> Peer {
        let (ours, theirs) = socket::pair().unwrap();
        let child = Command::new(node)
            .args(["-e", script])
            .env("NODE_CHANNEL_FD", "0")
            .env("NODE_CHANNEL_SERIALIZATION_MODE", "advanced")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let incoming = Incoming::new(ours.as_fd(), Framing::Frames, LONGEST, false).unwrap();
        Peer { child, ours, incoming }
    }

    /// A worker of a cluster, which says what it has open.
    fn worker(node: &str, framing: Framing) -> Peer {
        let (ours, theirs) = socket::pair().unwrap();
        let child = Command::new(node)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/worker.js"))
            .env("NODE_CHANNEL_FD", "0")
            .env("NODE_UNIQUE_ID", "1")
            .env(
                "NODE_CHANNEL_SERIALIZATION_MODE",
                if framing == Framing::Lines { "json" } else { "advanced" },
            )
            .stdin(Stdio::from(theirs))
            .spawn()
            .unwrap();
        let incoming = Incoming::new(ours.as_fd(), framing, LONGEST, false).unwrap();
        Peer { child, ours, incoming }
    }

    /// Hears up to the first line with these words.
    fn until(&mut self, outgoing: &mut Outgoing, words: &str) -> String {
        let (mut found, mut buffer) = (None, vec![0; 64 * 1024]);
        while found.is_none() {
            self.flush_now(outgoing);
            let reading = self.incoming.hear(self.ours.as_fd(), &mut buffer, |said, _| {
                let Heard::Line(line) = said else { panic!("{said:?}") };
                let line = String::from_utf8(line.to_vec()).unwrap();
                if line.contains("NODE_HANDLE_ACK") {
                    outgoing.arrived();
                }
                if line.contains(words) {
                    found = Some(line);
                }
            });
            match reading.unwrap() {
                Reading::Empty if found.is_none() => self.wait(rustix::event::PollFlags::IN),
                Reading::More | Reading::Empty => {}
                Reading::Ended => panic!("it has ended before it said {words}"),
            }
        }
        found.unwrap()
    }

    fn flush_now(&self, outgoing: &mut Outgoing) {
        outgoing.flush(self.ours.as_fd(), |_| io::Result::Ok(())).unwrap();
    }

    /// Sends these lines, and then hears what comes up to the end.
    fn talk(mut self, lines: &[String]) -> Vec<Result<String, String>> {
        let mut outgoing = Outgoing::new(Framing::Frames);
        for line in lines {
            while outgoing.push(line.as_bytes()).is_err() {
                self.flush(&mut outgoing);
            }
        }
        while !outgoing.is_empty() {
            self.flush(&mut outgoing);
        }
        let (mut heard, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
        let mut take = |said: Heard<'_>, _: &mut Descriptors| {
            heard.push(match said {
                Heard::Line(line) => Ok(String::from_utf8(line.to_vec()).unwrap()),
                Heard::TooLong => Err("too long".to_owned()),
                Heard::Unreadable(why) => Err(why.to_string()),
            });
        };
        loop {
            match self.incoming.hear(self.ours.as_fd(), &mut buffer, &mut take).unwrap() {
                Reading::More => {}
                Reading::Empty => self.wait(rustix::event::PollFlags::IN),
                Reading::Ended => break,
            }
        }
        assert!(self.child.wait().unwrap().success());
        heard
    }

    fn flush(&self, outgoing: &mut Outgoing) {
        self.flush_now(outgoing);
        if !outgoing.is_empty() {
            self.wait(rustix::event::PollFlags::OUT);
        }
    }

    fn wait(&self, what: rustix::event::PollFlags) {
        let mut polled = [rustix::event::PollFd::new(&self.ours, what)];
        rustix::event::poll(&mut polled, None).unwrap();
    }
}

/// All Nodes that can be tried.
fn nodes() -> Vec<String> {
    let given = std::env::var("SHIFTBOSS_TEST_NODES").unwrap_or_default();
    let mut nodes: Vec<String> =
        given.split(':').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    nodes.push("node".to_owned());
    nodes.retain(|node| Command::new(node).arg("--version").stdout(Stdio::null()).status().is_ok());
    if nodes.len() < 2 {
        println!("{} Nodes: the others were not tried", nodes.len());
    }
    nodes
}

#[test]
fn what_a_node_sends_is_heard_as_what_it_would_have_sent_as_json() {
    for node in nodes() {
        let heard = Peer::start(&node, SPEAKS).talk(&[]);
        assert_eq!(heard.last(), Some(&Ok("\"end\"".to_owned())), "{node}");
        let values: Vec<_> = heard.chunks_exact(2).collect();
        for (at, pair) in values.iter().enumerate() {
            let want: String = serde_json::from_str(pair[1].as_ref().unwrap()).unwrap();
            match &pair[0] {
                Ok(line) => assert_eq!(line, &want, "{node}, {at}"),
                Err(why) => assert_eq!(&want, &format!("throws: {why}"), "{node}, {at}"),
            }
        }
        assert!(values.len() > 300, "{}", values.len());
    }
}

#[test]
fn a_node_hears_what_json_says() {
    let texts: Vec<String> = [
        "null",
        "true",
        "0",
        "-0",
        "-1",
        "1e3",
        "1.5",
        "2147483647",
        "2147483648",
        "-2147483649",
        "1e400",
        "\"\"",
        r#""a\"\\\/\b\f\n\r\t\u0001""#,
        r#""é""#,
        r#""\u00e9ÿ""#,
        r#""日本 😀""#,
        r#""\ud83d\ude00 \ud83d""#,
        "[]",
        "{}",
        "[[],[[]],{}]",
        r#"{"a":"é","b":"日","":[null]}"#,
        r#"{"b":1,"10":2,"9":"日","4294967295":3,"4294967294":4,"-1":5}"#,
        r#"{"__proto__":1,"constructor":2,"length":3}"#,
        r#" { "a" : [ 1 , 2 ] , "b" : { "c" : "日" } } "#,
        r#"[{"a":1},{"a":1,"b":2},{"a":1,"7":{}},{"7":1,"a":2}]"#,
    ]
    .iter()
    .map(|text| (*text).to_owned())
    .chain(
        [1, 127, 128, 16_383, 16_384, 300_000]
            .map(|count| format!("[\"{}\",\"{}\"]", "é".repeat(count), "日".repeat(count))),
    )
    .chain([format!("[{}0]", "7,".repeat(100_000)), format!("{}{}", "[".repeat(900), "]".repeat(900))])
    .collect();
    let lines: Vec<String> = texts
        .iter()
        .map(|text| {
            let frame = advanced::encode(text).unwrap();
            let hex: String = frame[4..].iter().map(|byte| format!("{byte:02x}")).collect();
            format!("[{text},{},\"{hex}\"]", serde_json::to_string(text).unwrap())
        })
        .chain(["\"end\"".to_owned()])
        .collect();
    for node in nodes() {
        let heard = Peer::start(&node, HEARS).talk(&lines);
        let want: Vec<_> = texts.iter().map(|_| Ok("\"same\"".to_owned())).collect();
        assert_eq!(heard, want, "{node}");
    }
}

/// That is how it is seen whether its event loop turns.
#[test]
fn a_worker_takes_no_notice_of_two_hundred_connections_for_nobody() {
    for path in nodes() {
        for framing in [Framing::Lines, Framing::Frames] {
            let mut peer = Peer::worker(&path, framing);
            let mut outgoing = Outgoing::new(framing);
            peer.until(&mut outgoing, "\"up\"");
            let count = |peer: &mut Peer, outgoing: &mut Outgoing| {
                outgoing.push(b"\"count\"").unwrap();
                peer.until(outgoing, "\"heard\"")
            };
            let before = count(&mut peer, &mut outgoing);
            for number in 1..=200 {
                let line = node::new_connection("nobody", number);
                outgoing.push_with(line.as_bytes(), socket::pair().unwrap().0).unwrap();
                let answer = peer.until(&mut outgoing, "\"accepted\"");
                let raw = serde_json::value::RawValue::from_string(answer).unwrap();
                let said = node::Said::of(&raw);
                assert!(
                    matches!(said, Some(node::Said::Answer { ack, accepted: false }) if ack == number),
                    "{path}: {said:?}"
                );
            }
            let after = count(&mut peer, &mut outgoing);
            assert_eq!(before.replace("\"heard\":1", "\"heard\":2"), after, "{path}");
            outgoing.push(b"\"leave\"").unwrap();
            peer.flush(&mut outgoing);
            assert!(peer.child.wait().unwrap().success());
        }
    }
}

/// Sends values, and after each the text that JSON has of it.
const SPEAKS: &str = r#"
const values = [null, true, 0, -0, 1.5, -1, 2 ** 31, -(2 ** 31) - 1, NaN, Infinity, 1e21, 1e-7, '', 'é', 'ÿ\n"\\', '日本', '😀',
  '\ud800', '\u2028\x7f\x01', 'x'.repeat(70000), 'é'.repeat(70000), '日'.repeat(70000), [], {}, [undefined, , 3], [, ],
  { a: undefined, b: 1 }, { a: undefined }, { 7: 1, a: 2, '-1': 3, 4294967295: 4, 4294967294: 5, '': 6, '日': 7 },
  new Date(0), new Date(1e15), new Date(-1e14), new Date(NaN), [new Date(1709210096789)],
  new Map([[1, { a: 2 }], ['b', new Map()]]), new Set([1, {}]), { m: new Map(), n: [new Set()] },
  Buffer.from('hello'), Buffer.alloc(0), new Uint8Array([1, 2]), new Uint8ClampedArray(2), new Int8Array([-1]),
  new Int16Array([-2, 3]), new Uint16Array([65535]), new Int32Array([-1]), new Uint32Array([2 ** 32 - 1]),
  new Float32Array([0.1, NaN]), new Float64Array([0.1, 1e21]), new BigInt64Array(0), new DataView(new ArrayBuffer(3)),
  new ArrayBuffer(5), { b: Buffer.from('x'), c: [Buffer.from('y')] },
  Object('s'), Object(1.5), Object(false), [Object('日')], /a"b/gi, new Error('x'), new TypeError('日', { cause: { a: [1] } }),
  [1n], { a: [1n] }, Object(1n), new BigUint64Array(1), new Map([[1n, 1n]]),
  Object.assign([1, 2], { x: { y: 1 } }), Object.assign([1, , 2], { x: 1, '-1': 2 }), (() => { const a = []; a[1000] = 1; return a })(),
  new (class B { y = [1] })(), Object.create(null), { toJSON: 1 }, process.versions, process.memoryUsage()];
if (globalThis.Float16Array) values.push(new Float16Array([1.1, -65504, 6e-8]));
const shared = { s: 'shared' }, date = new Date(5), map = new Map([[shared, [shared]]]);
values.push([shared, shared], { a: date, b: [date] }, [map, shared, map], [Object.assign([], { shared }), shared]);
const inner = { n: 1n }, around = {}; around.around = around;
values.push(around, [new Map([[1, around]]), 2], [new Map([[1, around]]), around], [new Set([inner])], [new Set([inner]), inner]);
const buffer = Buffer.from('twice'), error = new Error('y', { cause: shared }); values.push([buffer, buffer], [error, shared, error]);
let seed = 1; const roll = n => (seed = (seed * 1103515245 + 12345) % 2147483648, seed % 65536 % n);
const old = [];
const value = depth => {
  const keep = v => (old.push(v), v), some = f => Array.from({ length: roll(5) }, f);
  switch (roll(depth ? 14 : 7)) {
    case 0: return [null, true, undefined, -0, NaN][roll(5)]; case 1: return roll(2 ** 16) - 2 ** 15; case 2: return roll(1000) / 7;
    case 3: return 'plain'.repeat(roll(50)); case 4: return 'é日\ud83d'.slice(roll(3)).repeat(roll(50)); case 5: return keep(new Date(roll(65536) * 1e9));
    case 6: return old.length ? old[roll(old.length)] : 0; case 7: return keep(new Map(some(() => [value(depth - 1), value(depth - 1)])));
    case 8: return keep(new Set(some(() => value(depth - 1)))); case 9: return keep(Buffer.from(some(() => roll(256))));
    case 10: return keep(Object.assign(some(() => value(depth - 1)), { extra: value(depth - 1) })); case 11: return keep(some(() => value(depth - 1)));
    default: return keep(Object.fromEntries(some(() => ['k日'.slice(0, 1 + roll(2)) + roll(99), value(depth - 1)]))); } };
for (let i = 0; i < 400; i++) { old.length = 0; values.push([value(6)]); }
const reasons = [[/BigInt/, 'a BigInt cannot be JSON'], [/circular/, 'an object within itself cannot be JSON']];
for (const value of values) {
  process.send(value);
  let text; try { text = JSON.stringify(value) } catch (e) { text = 'throws: ' + reasons.find(r => r[0].test(e.message))[1] }
  process.send(text);
}
process.send('end', () => process.disconnect());
"#;

/// Hears a value, its text, and its payload in hex.
const HEARS: &str = r#"
const v8 = require('v8'), assert = require('assert');
process.on('message', m => {
  if (m === 'end') return process.disconnect();
  const [value, text, hex] = m, want = JSON.parse(text);
  try {
    assert.deepStrictEqual(value, want);
    assert.deepStrictEqual(v8.deserialize(Buffer.from(hex, 'hex')), want);
    assert.strictEqual(JSON.stringify(value), JSON.stringify(want));
    // The same bytes, where the members are in JavaScript's order; a text with escapes becomes strings of two bytes.
    if (!/"\d+":|\\/.test(text)) assert.strictEqual(v8.serialize(want).toString('hex'), hex);
    process.send('same');
  } catch (error) { process.send(text.slice(0, 100) + error.message.slice(0, 300)); }
});
"#;
