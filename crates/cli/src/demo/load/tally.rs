//! What became of the requests: counts, latencies, the first failures, and the lines that say so.
//! The lines' fields are documented with the load generator.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::client::{Failure, Kind};

/// Everything counted since the start.
pub(crate) struct Tally {
    started_at: SystemTime,
    sent: u64,
    ok: u64,
    by_kind: BTreeMap<Kind, u64>,
    failures: Vec<FailureLine>,
    failed_by_second: BTreeMap<u64, u64>,
    by_worker: BTreeMap<String, u64>,
    latencies: Latencies,
    /// Of those that were neither slow nor slowly sent: where a stall shows.
    plain: Latencies,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            started_at: SystemTime::now(),
            sent: 0,
            ok: 0,
            by_kind: BTreeMap::new(),
            failures: Vec::new(),
            failed_by_second: BTreeMap::new(),
            by_worker: BTreeMap::new(),
            latencies: Latencies::default(),
            plain: Latencies::default(),
        }
    }
}

impl Tally {
    pub(crate) fn sent(&mut self) {
        self.sent += 1;
    }

    pub(crate) fn answered(&mut self, latency: Duration, plain: bool, body: &[u8]) {
        self.ok += 1;
        self.latencies.add(latency);
        if plain {
            self.plain.add(latency);
        }
        if let Some(worker) = worker_of(body) {
            let room = self.by_worker.len() < MOST_WORKERS;
            if room || self.by_worker.contains_key(worker) {
                *self.by_worker.entry(worker.into()).or_default() += 1;
            }
        }
    }

    /// Counts a failure of a request that was due at `begun` and ended at `at`, both since the start.
    pub(crate) fn failure(&mut self, begun: Duration, at: Duration, Failure { kind, detail }: Failure) {
        *self.by_kind.entry(kind).or_default() += 1;
        if kind != Kind::Crossed {
            *self.failed_by_second.entry(at.as_secs()).or_default() += 1;
        }
        if self.failures.len() < FIRST_FAILURES {
            self.failures.push(FailureLine { at: seconds(at), begun: seconds(begun), kind, detail });
        }
    }

    /// All failures but crossed closes.
    pub(crate) fn failed(&self) -> u64 {
        self.by_kind.values().sum::<u64>() - self.of(Kind::Crossed)
    }

    fn of(&self, kind: Kind) -> u64 {
        self.by_kind.get(&kind).copied().unwrap_or(0)
    }

    /// How it stands at `at`.
    pub(crate) fn line(&self, at: Duration, json: bool) -> String {
        let counts = self.counts(at);
        if json { encode(&counts) } else { counts.for_people() }
    }

    /// How it ended at `at`.
    pub(crate) fn last(&self, at: Duration, json: bool) -> String {
        let started = self.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let last = LastLine {
            r#final: true,
            counts: self.counts(at),
            started_unix_ms: u64::try_from(started.as_millis()).unwrap_or(u64::MAX),
            latency_ms: LatencyLine::of(&self.latencies),
            plain_ms: LatencyLine::of(&self.plain),
            by_kind: &self.by_kind,
            failures: &self.failures,
            failed_by_second: &self.failed_by_second,
            by_worker: &self.by_worker,
        };
        if json { encode(&last) } else { last.for_people() }
    }

    fn counts(&self, at: Duration) -> Counts {
        let (failed, crossed) = (self.failed(), self.of(Kind::Crossed));
        Counts {
            t: seconds(at),
            sent: self.sent,
            ok: self.ok,
            failed,
            refused: self.of(Kind::Refused),
            crossed,
            in_flight: self.sent - self.ok - failed - crossed,
            p50_ms: self.latencies.percentile(0.5),
            p99_ms: self.latencies.percentile(0.99),
        }
    }
}

#[derive(Serialize)]
struct Counts {
    t: f64,
    sent: u64,
    ok: u64,
    failed: u64,
    refused: u64,
    crossed: u64,
    in_flight: u64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

impl Counts {
    fn for_people(&self) -> String {
        let Counts { t, sent, ok, failed, crossed, in_flight, .. } = self;
        let (p50, p99) = (in_ms(self.p50_ms), in_ms(self.p99_ms));
        format!(
            "{t:>6.1} s  {sent} sent  {ok} ok  {failed} failed  {crossed} crossed  {in_flight} in flight  \
             p50 {p50}  p99 {p99}"
        )
    }
}

#[derive(Serialize)]
struct LastLine<'a> {
    r#final: bool,
    #[serde(flatten)]
    counts: Counts,
    started_unix_ms: u64,
    latency_ms: LatencyLine,
    plain_ms: LatencyLine,
    by_kind: &'a BTreeMap<Kind, u64>,
    failures: &'a [FailureLine],
    failed_by_second: &'a BTreeMap<u64, u64>,
    by_worker: &'a BTreeMap<String, u64>,
}

impl LastLine<'_> {
    fn for_people(&self) -> String {
        let max = in_ms(self.latency_ms.max);
        let mut text = format!("{}  max {max}", self.counts.for_people());
        for FailureLine { at, kind, detail, .. } in self.failures {
            text.push_str(&format!("\n{at:>8.3} s  {kind:?}: {detail}"));
        }
        text
    }
}

#[derive(Serialize)]
struct LatencyLine {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
}

impl LatencyLine {
    fn of(latencies: &Latencies) -> Self {
        LatencyLine {
            p50: latencies.percentile(0.5),
            p90: latencies.percentile(0.9),
            p99: latencies.percentile(0.99),
            max: latencies.max(),
        }
    }
}

#[derive(Serialize)]
struct FailureLine {
    at: f64,
    begun: f64,
    kind: Kind,
    detail: String,
}

/// Latencies in buckets whose width is 1/64 of their value, in µs: bounded memory for any number of them.
#[derive(Default)]
struct Latencies {
    buckets: Vec<u64>,
    count: u64,
    max_us: u64,
}

impl Latencies {
    fn add(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let bucket = bucket_of(us);
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    /// In ms; the upper edge of the bucket, so never too good.
    fn percentile(&self, share: f64) -> Option<f64> {
        let rank = (share * self.count as f64).ceil() as u64;
        let mut below = 0;
        let found = self.buckets.iter().position(|count| {
            below += count;
            *count > 0 && below >= rank
        });
        found.map(|bucket| in_thousandths(last_of(bucket).min(self.max_us)))
    }

    /// In ms, exact to 1 µs.
    fn max(&self) -> Option<f64> {
        (self.count > 0).then(|| in_thousandths(self.max_us))
    }
}

/// Values below 128 have a bucket each; above, a power of two has 64.
fn bucket_of(us: u64) -> usize {
    let shift = us.max(1).ilog2().saturating_sub(SUB_BITS);
    // At most 58 * 64 + 127, so it fits.
    (u64::from(shift) << SUB_BITS) as usize + (us >> shift) as usize
}

/// The largest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket >> SUB_BITS).saturating_sub(1);
    let sub = bucket - (shift << SUB_BITS);
    (sub << shift) + ((1 << shift) - 1)
}

fn worker_of(body: &[u8]) -> Option<&str> {
    str::from_utf8(body.strip_prefix(b"worker ")?).ok()?.split_whitespace().next()
}

fn seconds(time: Duration) -> f64 {
    in_thousandths(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn in_thousandths(number: u64) -> f64 {
    number as f64 / 1000.0
}

fn in_ms(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"))
}

fn encode(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("numbers, texts and maps with plain keys always encode")
}

/// A bucket's width is 2^-SUB_BITS of its value.
const SUB_BITS: u32 = 6;
/// How many failures are kept with their detail.
const FIRST_FAILURES: usize = 10;
/// How many worker ids are counted apart.
const MOST_WORKERS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_without_gaps_and_narrow() {
        assert!((0..128).all(|us| last_of(bucket_of(us)) == us));
        for bucket in 0..3900 {
            let last = last_of(bucket);
            if last == u64::MAX {
                assert_eq!(bucket, bucket_of(u64::MAX));
                return;
            }
            assert_eq!((bucket_of(last), bucket_of(last + 1)), (bucket, bucket + 1));
            assert!(last_of(bucket + 1) - last <= last / 64 + 1);
        }
        panic!("the largest value has no bucket");
    }

    #[test]
    fn percentiles_are_within_a_bucket_and_never_too_good() {
        let mut latencies = Latencies::default();
        assert_eq!((latencies.percentile(0.5), latencies.max()), (None, None));
        (1..=1000).rev().for_each(|ms| latencies.add(Duration::from_millis(ms)));
        for (share, exact) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = latencies.percentile(share).unwrap();
            assert!((exact..=exact * 1.017).contains(&found), "{share}: {found}");
        }
        assert_eq!(latencies.max(), Some(1000.0));
    }

    #[test]
    fn every_request_is_counted_once() {
        let mut tally = Tally::default();
        (0..5).for_each(|_| tally.sent());
        tally.answered(Duration::from_millis(2), true, b"worker 7 generation 1\n");
        let fail = |tally: &mut Tally, kind| {
            tally.failure(
                Duration::from_millis(1200),
                Duration::from_millis(3400),
                Failure { kind, detail: "x".into() },
            );
        };
        fail(&mut tally, Kind::Refused);
        fail(&mut tally, Kind::ClosedEarly);
        fail(&mut tally, Kind::Crossed);
        let last: serde_json::Value =
            serde_json::from_str(&tally.last(Duration::from_secs(4), true)).unwrap();
        let count = |name: &str| last[name].as_u64().unwrap();
        assert_eq!(
            ["sent", "ok", "failed", "refused", "crossed", "in_flight"].map(count),
            [5, 1, 2, 1, 1, 1]
        );
        assert_eq!(last["by_worker"], serde_json::json!({"7": 1}));
        assert_eq!(last["by_kind"], serde_json::json!({"refused": 1, "closed_early": 1, "crossed": 1}));
        assert_eq!(last["failed_by_second"], serde_json::json!({"3": 2}));
        let first = serde_json::json!({"at": 3.4, "begun": 1.2, "kind": "refused", "detail": "x"});
        assert_eq!(last["failures"][0], first);
        assert_eq!(last["final"], true);
    }

    #[test]
    fn only_the_first_failures_are_kept_whole() {
        let mut tally = Tally::default();
        for _ in 0..100 {
            tally.sent();
            tally.failure(
                Duration::ZERO,
                Duration::ZERO,
                Failure { kind: Kind::Timeout, detail: String::new() },
            );
        }
        assert_eq!((tally.failures.len(), tally.failed()), (FIRST_FAILURES, 100));
    }
}
