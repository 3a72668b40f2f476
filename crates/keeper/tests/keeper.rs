//! The keeper alone: what it promises to the broker process below it, whatever becomes of that.

use std::fs;
use std::path::Path;

use rustix::process::{PidfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process, pidfd_open, prlimit};
use shiftboss_link::wire::{
    BY_SIGNAL, DEPOSIT, ENDED_EARLY, ENDED_SOON, EXIT, FATE, GO, GO_ADOPT, GO_BEGIN, GO_SALVAGE,
    NOT_EXECUTED, ORDER, ORDER_HANG_UP, ORDER_STOP, ORDER_STOP_NOW, TOOK_OVER, UNDECIDED,
};

#[path = "keeper/harness.rs"]
mod harness;

use harness::*;

#[test]
fn a_successor_is_given_the_very_descriptors_that_were_deposited() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    assert_eq!(broker.told, [said(GO, 0, GO_BEGIN)]);
    broker.does("pipe 7 hello");
    broker.does("pipe 8 dropped");
    broker.does("forget 8");
    broker.does("ready");
    broker.kill();
    let mut broker = keeper.next();
    assert_eq!(broker.told, [Said { descriptors: 2, ..said(DEPOSIT, 7, 0) }, said(GO, 0, GO_ADOPT)]);
    assert_eq!(broker.answers("read 7"), "hello");
    broker.does("ready");
    broker.does_last("end 0");
    assert!(keeper.ended().success());
}

#[test]
fn a_deposit_that_was_a_killed_broker_processs_last_word_is_held() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.does("ready");
    keeper.while_stopped(|| {
        broker.does("pipe 7 late");
        broker.kill();
    });
    let mut broker = keeper.next();
    assert_eq!(broker.answers("read 7"), "late");
}

#[test]
fn how_a_worker_ended_is_told_to_every_successor_until_it_is_forgotten() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.answers("worker 9");
    broker.does("ready");
    broker.does(&format!("signal 9 1 {}", libc::SIGPROF));
    let exit = said(EXIT, 9, BY_SIGNAL | u64::from(libc::SIGPROF.unsigned_abs()));
    assert_eq!(broker.hears(), exit);
    broker.kill();
    let mut broker = keeper.next();
    assert!(broker.told.contains(&exit), "{:?}", broker.told);
    broker.does("ready");
    broker.does("forget 9");
    broker.kill();
    let broker = keeper.next();
    assert!(broker.told.iter().all(|said| said.key != 9), "{:?}", broker.told);
}

#[test]
fn a_worker_that_ends_while_nobody_has_taken_over_is_told_once_somebody_has() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    let worker = pid(&broker.answers("worker 9"));
    broker.does("ready");
    broker.kill();
    let mut broker = keeper.next();
    let ended = pidfd_open(worker, PidfdFlags::empty()).unwrap();
    kill_process(worker, Signal::KILL).unwrap();
    until_readable(&ended, "the worker does not end");
    keeper.signal(Signal::HUP);
    assert_eq!(broker.hears(), said(ORDER, 1, ORDER_HANG_UP), "its number is still its own");
    broker.does("ready");
    assert_eq!(broker.hears(), said(EXIT, 9, BY_SIGNAL | 9));
}

#[test]
fn an_order_is_given_to_every_successor_until_it_is_done() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.does("ready");
    keeper.signal(Signal::TERM);
    assert_eq!(broker.hears(), said(ORDER, 1, ORDER_STOP));
    broker.does("pipe 7 app");
    broker.kill();
    let mut broker = keeper.next();
    assert_eq!(broker.hears(), said(ORDER, 1, ORDER_STOP));
    broker.does("ready");
    broker.does("took 1");
    broker.kill();
    let mut broker = keeper.next();
    broker.does("ready");
    keeper.signal(Signal::HUP);
    assert_eq!(broker.hears(), said(ORDER, 2, ORDER_HANG_UP));
}

#[test]
fn the_exit_code_of_the_end_is_the_keepers_and_nobody_is_left() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.answers("worker 9");
    broker.does("ready");
    broker.does_last("end 7");
    assert_eq!(keeper.ended().code(), Some(7));
    broker.leaves_nobody();
}

#[test]
fn a_broker_process_that_cannot_begin_is_not_started_again() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.does_last("exit 3");
    assert_eq!(keeper.ended().code(), Some(3));
}

#[test]
fn after_three_early_deaths_in_a_row_the_next_one_is_to_salvage() {
    let keeper = Keeper::start();
    for go in [GO_BEGIN, GO_ADOPT, GO_ADOPT, GO_SALVAGE] {
        let mut broker = keeper.next();
        assert_eq!(broker.told.last(), Some(&said(GO, 0, go)));
        broker.does("pipe 7 app");
        dies_once_ready(&keeper, broker);
    }
}

/// At once, as the keeper sees it.
fn dies_once_ready(keeper: &Keeper, mut broker: Broker) {
    keeper.while_stopped(|| {
        let process = pidfd_open(broker.pid, PidfdFlags::empty()).unwrap();
        broker.does("ready");
        broker.kill();
        until_readable(process, "it does not die");
    });
}

#[test]
fn a_second_stop_that_nobody_can_take_in_ends_everything() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.answers("worker 9");
    broker.does("ready");
    broker.kill();
    let mut successor = keeper.next();
    keeper.signal(Signal::TERM);
    assert_eq!(successor.hears(), said(ORDER, 1, ORDER_STOP));
    keeper.signal_again(Signal::INT);
    assert_eq!(keeper.ended().code(), Some(1));
    broker.leaves_nobody();
}

#[test]
fn an_order_that_comes_while_another_is_under_way_is_told_as_well() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.does("ready");
    keeper.signal(Signal::TERM);
    assert_eq!(broker.hears(), said(ORDER, 1, ORDER_STOP));
    broker.does("took 1");
    keeper.signal_again(Signal::TERM);
    assert_eq!(broker.hears(), said(ORDER, 2, ORDER_STOP_NOW));
}

#[test]
fn a_broker_process_that_has_not_heard_the_first_stop_makes_way_at_the_second() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.does("pipe 7 app");
    broker.does("ready");
    kill_process(broker.pid, Signal::STOP).unwrap();
    keeper.signal(Signal::TERM);
    keeper.signal_again(Signal::TERM);
    let mut broker = keeper.next();
    assert_eq!(
        (broker.hears(), broker.hears()),
        (said(ORDER, 1, ORDER_STOP), said(ORDER, 2, ORDER_STOP_NOW))
    );
    broker.does_last("end 0");
    assert!(keeper.ended().success());
}

#[test]
fn a_signal_that_means_nothing_ends_nothing() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.does("ready");
    for signal in [Signal::USR1, Signal::ALARM] {
        keeper.signal(signal);
    }
    broker.takes_order(&keeper, 1);
}

#[test]
fn an_image_that_cannot_be_executed_gives_way_to_the_old_one() {
    let keeper = Keeper::start();
    let image = keeper.folder.path().join("image");
    fs::write(&image, "no program").unwrap();
    is_given_up(&keeper, &image, NOT_EXECUTED | u64::from(libc::EACCES.unsigned_abs()) << 8);
}

#[test]
fn an_image_that_ends_before_it_is_ready_gives_way_to_the_old_one() {
    is_given_up(&Keeper::start(), Path::new("/bin/false"), ENDED_EARLY | 1 << 8);
}

fn is_given_up(keeper: &Keeper, image: &Path, fate: u64) {
    let mut broker = keeper.next();
    broker.does("pipe 7 app");
    broker.does("ready");
    broker.does_last(&format!("upgrade 5 {}", image.display()));
    let mut broker = keeper.next();
    let note = Said { descriptors: 1, ..said(DEPOSIT, 5, 0) };
    let app = Said { descriptors: 2, ..said(DEPOSIT, 7, 0) };
    assert_eq!(broker.told, [said(FATE, 5, fate), note, app, said(GO, 0, GO_ADOPT)]);
    broker.does("ready");
    broker.does("forget 5");
    broker.kill();
    assert_eq!(keeper.next().told, [app, said(GO, 0, GO_ADOPT)]);
}

#[test]
fn an_image_that_dies_once_it_is_ready_gives_way_to_the_old_one() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.does("pipe 7 app");
    broker.does("ready");
    broker.does_last(&format!("upgrade 5 {PROGRAM}"));
    let broker = keeper.next();
    assert!(broker.told.contains(&said(FATE, 5, UNDECIDED)), "{:?}", broker.told);
    dies_once_ready(&keeper, broker);
    let told = keeper.next().told;
    let fate = ENDED_SOON | (BY_SIGNAL | 9) << 8;
    assert!(told.contains(&said(FATE, 5, fate)), "{told:?}");
}

#[test]
fn a_keeper_of_another_image_goes_on_in_the_same_process_with_all_that_was_held() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.does("pipe 7 hello");
    broker.answers("worker 9");
    broker.does("ready");
    broker.does(&format!("signal 9 1 {}", libc::SIGURG));
    keeper.signal(Signal::HUP);
    assert_eq!(broker.hears(), said(ORDER, 1, ORDER_HANG_UP));
    broker.does_last(&format!("upgrade 5 {PROGRAM}"));
    let mut broker = keeper.next();
    assert_eq!(broker.hears(), said(ORDER, 1, ORDER_HANG_UP));
    broker.does("ready other");
    assert_eq!(broker.hears(), said(FATE, 5, TOOK_OVER));
    broker.does(&format!("signal 9 1 {}", libc::SIGKILL));
    broker.does(&format!("signal 9 2 {}", libc::SIGPROF));
    let exit = said(EXIT, 9, BY_SIGNAL | u64::from(libc::SIGPROF.unsigned_abs()));
    assert_eq!(broker.hears(), exit, "a signal is sent once");
    assert!(keeper.has_executed_another(), "the first keeper did all of this");
    keeper.signal(Signal::TERM);
    assert_eq!(broker.hears(), said(ORDER, 2, ORDER_STOP));
    broker.kill();
    let mut broker = keeper.next();
    for expected in [exit, said(FATE, 5, TOOK_OVER), said(GO, 0, GO_ADOPT)] {
        assert!(broker.told.contains(&expected), "{:?}", broker.told);
    }
    assert_eq!((broker.hears(), broker.hears()), (said(ORDER, 1, ORDER_HANG_UP), said(ORDER, 2, ORDER_STOP)));
    assert_eq!(broker.answers("read 7"), "hello");
    broker.does("ready");
    broker.does_last("end 0");
    assert!(keeper.ended().success());
}

#[test]
fn a_renewal_that_failed_is_tried_again_with_the_next_broker_process() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.does("pipe 7 hello");
    broker.takes_order(&keeper, 1);
    let before = prlimit(Some(keeper.pid()), Resource::Nofile, no_more_files()).unwrap();
    broker.does("ready other");
    // Between two orders it has tried.
    broker.takes_order(&keeper, 2);
    broker.takes_order(&keeper, 3);
    assert!(!keeper.has_executed_another());
    prlimit(Some(keeper.pid()), Resource::Nofile, before).unwrap();
    broker.kill();
    let mut broker = keeper.next();
    broker.does("ready other");
    broker.takes_order(&keeper, 4);
    broker.takes_order(&keeper, 5);
    assert!(keeper.has_executed_another());
    broker.kill();
    assert_eq!(keeper.next().answers("read 7"), "hello");
}

/// Room for the descriptors that every process has.
fn no_more_files() -> Rlimit {
    Rlimit { current: Some(3), ..getrlimit(Resource::Nofile) }
}
