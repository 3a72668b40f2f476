use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::address::Host;

fn bind(text: &str, count: u32) -> Lanes {
    Lanes::bind(&text.parse().unwrap(), count).unwrap()
}

fn to(lanes: &Lanes) -> SocketAddr {
    match lanes.address() {
        Address::Tcp(Host::Any(port)) => SocketAddr::from(([127, 0, 0, 1], *port)),
        Address::Tcp(Host::One(address)) => *address,
        other => panic!("{other}"),
    }
}

/// The socket as a worker has it.
fn worker(lanes: &Lanes, lane: u32) -> TcpListener {
    lanes.lane(lane).unwrap().as_fd().try_clone_to_owned().unwrap().into()
}

fn queues(lanes: &Lanes) -> Vec<u32> {
    lanes.all().iter().map(|lane| lane.queued().unwrap()).collect()
}

/// Takes all that waits in a lane.
fn take(lanes: &Lanes, lane: u32) -> Vec<TcpStream> {
    let worker = worker(lanes, lane);
    (0..lanes.lane(lane).unwrap().queued().unwrap()).map(|_| worker.accept().unwrap().0).collect()
}

/// That each lane can be chosen alone.
fn each_gets_its_own(lanes: &mut Lanes) {
    let attended = lanes.attended.clone();
    for lane in (0..).take(lanes.lanes.len()) {
        lanes.attend([lane]).unwrap();
        let _clients: Vec<_> = (0..5).map(|_| TcpStream::connect(to(lanes)).unwrap()).collect();
        let mut want = vec![0; lanes.lanes.len()];
        want[lane as usize] = 5;
        assert_eq!(queues(lanes), want, "lane {lane}, order {:?}", lanes.order.lanes);
        take(lanes, lane);
    }
    lanes.attend(attended).unwrap();
}

fn heir(lanes: &mut Lanes) -> Lanes {
    let note = lanes.note().unwrap().try_clone_to_owned().unwrap();
    let sockets = lanes.all().iter().map(|lane| lane.as_fd().try_clone_to_owned().unwrap()).collect();
    Lanes::adopt(lanes.address(), sockets, Some(note)).unwrap()
}

#[test]
fn nobody_comes_to_a_lane_that_is_not_attended() {
    for (address, host) in
        [("127.0.0.1:0", "127.0.0.1"), (":0", "127.0.0.1"), (":0", "::1"), ("[::1]:0", "::1")]
    {
        let mut lanes = match Lanes::bind(&address.parse().unwrap(), 4) {
            Err(_) if host == "::1" => continue,
            lanes => lanes.unwrap(),
        };
        let to = SocketAddr::new(host.parse().unwrap(), to(&lanes).port());
        let connect = || (0..200).map(|_| TcpStream::connect(to).unwrap()).collect::<Vec<_>>();
        let _all = connect();
        // Left alone each gets its share: 50, by chance, and 15 or fewer once in a hundred million times.
        assert!(queues(&lanes).iter().all(|queued| *queued > 15), "{:?}", queues(&lanes));
        (0..4).for_each(|lane| drop(take(&lanes, lane)));
        lanes.attend([0, 1, 3]).unwrap();
        let _three = connect();
        let spread = queues(&lanes);
        assert_eq!((spread[2], spread.iter().sum::<u32>()), (0, 200), "{address}: {spread:?}");
        assert!([0, 1, 3].iter().all(|lane| spread[*lane] > 25), "{spread:?}");
    }
}

#[test]
fn what_waits_in_a_lane_is_for_whoever_has_it_next() {
    let mut lanes = bind("127.0.0.1:0", 2);
    lanes.attend([1]).unwrap();
    let first = worker(&lanes, 1);
    let mut client = TcpStream::connect(to(&lanes)).unwrap();
    client.write_all(b"x").unwrap();
    drop(first);
    lanes.attend([0]).unwrap();
    let _other = TcpStream::connect(to(&lanes)).unwrap();
    assert_eq!(queues(&lanes), [1, 1]);
    let mut byte = [0];
    worker(&lanes, 1).accept().unwrap().0.read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"x");
}

#[test]
fn whoever_stops_to_listen_and_listens_again_is_known_by_its_new_position() {
    let mut lanes = bind("127.0.0.1:0", 5);
    each_gets_its_own(&mut lanes);
    for lane in [1, 3, 1, 4, 0, 0, 2] {
        rustix::net::shutdown(worker(&lanes, lane), rustix::net::Shutdown::Both).unwrap();
        lanes.assert_backlog().unwrap();
        each_gets_its_own(&mut lanes);
    }
    assert_ne!(lanes.order.lanes, [0, 1, 2, 3, 4]);
    // Two at once: nobody could know who has taken whose place.
    for lane in [1, 2] {
        rustix::net::shutdown(worker(&lanes, lane), rustix::net::Shutdown::Both).unwrap();
    }
    lanes.assert_backlog().unwrap();
    each_gets_its_own(&mut lanes);
}

#[test]
fn a_new_lane_waits_until_it_is_attended() {
    let mut lanes = bind("127.0.0.1:0", 1);
    lanes.attend([0]).unwrap();
    assert!(lanes.make(3).unwrap() && !lanes.make(2).unwrap());
    let _clients: Vec<_> = (0..20).map(|_| TcpStream::connect(to(&lanes)).unwrap()).collect();
    assert_eq!(queues(&lanes), [20, 0, 0, 0]);
    take(&lanes, 0);
    each_gets_its_own(&mut lanes);
}

/// A socket that takes no program stands for a kernel that has no memory for one.
#[test]
fn what_could_not_be_done_is_done_by_the_next_call() {
    let mut lanes = bind("127.0.0.1:0", 2);
    let folder = tempfile::tempdir().unwrap();
    let mut other = Listener::bind(&Address::Unix(folder.path().join("s")), false).unwrap();
    std::mem::swap(&mut lanes.lanes[0], &mut other);
    lanes.attend([1]).unwrap_err();
    std::mem::swap(&mut lanes.lanes[0], &mut other);
    lanes.attend([1]).unwrap();
    let _clients: Vec<_> = (0..20).map(|_| TcpStream::connect(to(&lanes)).unwrap()).collect();
    assert_eq!(queues(&lanes), [0, 20]);
    take(&lanes, 1);
    std::mem::swap(&mut lanes.lanes[0], &mut other);
    lanes.make(3).unwrap_err();
    std::mem::swap(&mut lanes.lanes[0], &mut other);
    assert!(lanes.make(3).unwrap() && !lanes.make(3).unwrap());
    each_gets_its_own(&mut lanes);
}

#[test]
fn a_successor_knows_each_lane_whenever_its_predecessor_was_killed() {
    let mut lanes = bind("127.0.0.1:0", 4);
    let mut next = heir(&mut lanes);
    each_gets_its_own(&mut next);
    // One that has stopped is not noted yet.
    lanes.lanes[1].shut().unwrap();
    let mut next = heir(&mut lanes);
    next.reopen().unwrap();
    each_gets_its_own(&mut next);
    // One that is noted does not listen yet.
    next.shut_one(2).unwrap();
    next.order.joins(2).unwrap();
    let mut next = heir(&mut next);
    next.reopen().unwrap();
    each_gets_its_own(&mut next);
    // One that is noted was not bound, as far as anybody knows.
    next.order.joins(4).unwrap();
    let mut next = heir(&mut next);
    assert_eq!(next.lanes.len(), 4);
    next.make(4).unwrap();
    each_gets_its_own(&mut next);
    // All are shut.
    next.shut();
    let mut next = heir(&mut next);
    assert!(!next.open);
    next.reopen().unwrap();
    each_gets_its_own(&mut next);
}

#[test]
fn lanes_are_quieted_shut_and_opened_like_one_socket() {
    let mut lanes = bind("127.0.0.1:0", 3);
    let to = to(&lanes);
    lanes.attend([0, 2]).unwrap();
    let clients: Vec<_> = (0..10).map(|_| TcpStream::connect(to).unwrap()).collect();
    lanes.refuse_new();
    let outside = std::thread::spawn(move || TcpStream::connect(to).map(|client| client.peer_addr()));
    assert_eq!(lanes.queued(), 10);
    // Also if a worker shuts one meanwhile.
    rustix::net::shutdown(worker(&lanes, 1), rustix::net::Shutdown::Both).unwrap();
    lanes.assert_backlog().unwrap();
    assert_eq!((lanes.queued(), lanes.shut(), lanes.queued()), (10, 10, 0));
    for mut client in clients {
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(TcpStream::connect(to).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert!(TcpListener::bind(to).is_err(), "the port is ours");
    lanes.reopen().unwrap();
    // It was kept waiting, or refused once they were shut.
    let outcome = outside.join().unwrap();
    assert!(outcome.is_ok() || outcome.unwrap_err().kind() == ErrorKind::ConnectionRefused);
    (0..3).for_each(|lane| drop(take(&lanes, lane)));
    each_gets_its_own(&mut lanes);
}

/// New clients knock all the while: each begins with a SYN of its own.
#[test]
fn lanes_that_are_quiet_stay_so_while_workers_shut_some_and_others_are_made() {
    let mut lanes = bind("127.0.0.1:0", 3);
    let to = to(&lanes);
    lanes.refuse_new();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let client =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
                client.set_nonblocking(true).unwrap();
                client.connect(&to.into()).unwrap_err();
            }
        });
        for round in 0..5_000 {
            rustix::net::shutdown(worker(&lanes, 1), rustix::net::Shutdown::Both).unwrap();
            if round % 2 == 0 {
                rustix::net::shutdown(worker(&lanes, 2), rustix::net::Shutdown::Both).unwrap();
            }
            lanes.assert_backlog().unwrap();
            if round % 500 == 0 {
                lanes.make(3 + round / 500).unwrap();
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!((lanes.queued(), lanes.all().len()), (0, 13));
    lanes.reopen().unwrap();
    each_gets_its_own(&mut lanes);
}

#[test]
fn what_waits_in_a_lane_that_is_given_up_is_reset_and_counted() {
    let mut lanes = bind("127.0.0.1:0", 3);
    lanes.attend([0]).unwrap();
    let mut client = TcpStream::connect(to(&lanes)).unwrap();
    lanes.attend([1, 2]).unwrap();
    assert_eq!((lanes.reset(0).unwrap(), lanes.reset(0).unwrap()), (1, 0));
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    each_gets_its_own(&mut lanes);
}

#[test]
fn nobody_else_may_listen_where_lanes_are_nor_they_where_somebody_does() {
    let lanes = bind("127.0.0.1:0", 2);
    let in_use = |bound: Result<(), BindError>| matches!(bound, Err(BindError::InUse { .. }));
    assert!(in_use(Lanes::bind(lanes.address(), 2).map(drop)));
    assert!(in_use(Listener::bind(lanes.address(), false).map(drop)));
    let other = Listener::bind(&"127.0.0.1:0".parse().unwrap(), false).unwrap();
    assert!(in_use(Lanes::bind(other.address(), 2).map(drop)));
    let unix = Lanes::bind(&"unix:///nowhere/s".parse().unwrap(), 2);
    assert!(matches!(unix, Err(BindError::Other { .. })));
}

/// What the kernel makes of a program.
fn run(program: &[libc::sock_filter], random: u32) -> u32 {
    let (mut a, mut at) = (random, 1);
    loop {
        let step = program[at];
        at += 1;
        match step.code {
            MODULO => a %= step.k,
            ADD => a += step.k,
            JUMP_IF_AT_LEAST => at += usize::from(if a >= step.k { step.jt } else { step.jf }),
            RETURN_IT => return a,
            code => panic!("{code:x}"),
        }
    }
}

#[test]
fn a_program_draws_each_of_its_positions_as_often() {
    let cases: [Vec<u32>; 6] = [
        vec![0],
        vec![7],
        (0..MOST).collect(),
        vec![0, 2, 3, 4, 9],
        vec![1, 2, 3],
        (0..MOST).filter(|position| position % 2 == 1).collect(),
    ];
    for positions in cases {
        let program = program(&positions);
        let count = u32::try_from(positions.len()).unwrap();
        let mut drawn = BTreeMap::new();
        (0..count * 3).for_each(|random| *drawn.entry(run(&program, random)).or_insert(0) += 1);
        assert_eq!(drawn, positions.iter().map(|position| (*position, 3)).collect());
        let lanes = bind("127.0.0.1:0", 1);
        attach(lanes.lane(0).unwrap().as_fd(), &program).unwrap();
    }
}

#[test]
fn slots_beyond_the_most_share_lanes() {
    let mut lanes = bind("127.0.0.1:0", 2);
    assert!(lanes.lane(MOST + 1).is_some() && lanes.lane(2).is_none());
    assert!(!lanes.make(MOST).unwrap_or(true) || lanes.lanes.len() == MOST as usize);
    lanes.attend([MOST + 1]).unwrap();
    let _client = TcpStream::connect(to(&lanes)).unwrap();
    assert_eq!(queues(&lanes)[1], 1);
}
