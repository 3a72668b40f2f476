//! The real binary with real processes, sockets and signals: a file for each promise, one for bad input, one for
//! servers of others.

mod a_bad_version_never_replaces_a_good_one;
mod a_crash_is_repaired_at_once;
mod a_schedule_opens_and_closes;
mod a_worker_cannot_hurt;
mod app;
mod bad_input;
mod demo;
mod every_state_can_be_seen;
mod faults;
mod faults_of_keeper_and_broker;
mod files_that_change_recycle;
mod kill_points;
mod lanes_follow_who_is_ready;
mod listeners_outlive_workers;
mod load;
mod node;
mod node_programs;
mod nothing_is_left_behind;
mod other_servers;
mod ready_before_retire;
mod small_and_silent;
mod soak;
mod the_broker_process_can_die;
mod trace;
mod workers_talk;
