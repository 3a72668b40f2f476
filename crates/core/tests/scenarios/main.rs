//! The promises, one file each: short runs of an app on a stage without clock, processes or chance.

mod a_bad_version_never_replaces_a_good_one;
mod a_crash_is_repaired_at_once;
mod a_schedule_opens_and_closes;
mod a_standby_takes_over_at_once;
mod a_worker_cannot_hurt;
mod budget;
mod channels;
mod commands_meet;
mod every_state_can_be_seen;
mod files_that_change_recycle;
mod listeners_outlive_workers;
mod nothing_is_left_behind;
mod ready_before_retire;
mod recycle_limits;
mod replay;
mod scaling;
mod small_and_silent;
mod the_broker_process_can_die;
mod world;
