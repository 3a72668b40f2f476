//! The faults: what is done, what is expected, and the tests that do it.

/// One fault.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) fault: &'static str,
    pub(super) expected: &'static str,
    /// Of the end-to-end tests, by their full names.
    pub(super) tests: &'static [&'static str],
    /// They need a hook that only a build with debug assertions has.
    pub(super) debug: bool,
}

const fn row(
    name: &'static str,
    fault: &'static str,
    expected: &'static str,
    tests: &'static [&'static str],
) -> Row {
    Row { name, fault, expected, tests, debug: false }
}

/// In the order of: workers, machine, the two processes, those who ask.
pub(super) const ROWS: &[Row] = &[
    row(
        "worker-killed",
        "one worker after the other is killed under load",
        "replaced at once; nobody is refused; one death each",
        &["faults::workers::workers_killed_one_by_one_under_load_are_replaced_at_once"],
    ),
    row(
        "all-killed",
        "all workers are killed at once under load",
        "clients wait in the queue, none is refused",
        &["faults::workers::clients_wait_while_all_workers_are_killed_at_once"],
    ),
    row(
        "thousand-killed",
        "1,000 workers are killed at once",
        "each death told once, all replaced, no zombie",
        &["faults::workers::a_thousand_workers_killed_at_once_are_all_told_once_and_all_replaced"],
    ),
    row(
        "crash-at-start",
        "a worker crashes at its start for long, then is mended",
        "waits follow the rule, little CPU, degraded, then serves by itself",
        &[
            "faults::workers::a_worker_that_crashes_at_its_start_is_tried_again_by_the_rule_and_serves_when_it_is_mended",
            "a_crash_is_repaired_at_once::a_crash_loop_backs_off_turns_degraded_and_recovers",
        ],
    ),
    row(
        "cannot-start",
        "the program is missing, no program, not executable, or has no interpreter",
        "the reason in words, a back-off, nothing leaks, the others serve",
        &[
            "bad_input::start::a_program_that_cannot_be_run_is_named_before_anything_is_started",
            "bad_input::start::a_file_that_is_no_program_fails_alone_and_starts_once_it_is_mended",
        ],
    ),
    row(
        "never-ready",
        "a new version never becomes ready",
        "ended at its deadline; the old one serves on",
        &[
            "a_bad_version_never_replaces_a_good_one::a_version_that_never_becomes_ready_is_ended_at_the_deadline",
        ],
    ),
    row(
        "hangs",
        "a worker is stopped (SIGSTOP) under load",
        "its siblings serve; a recycle wakes it to finish, and replaces it",
        &[
            "faults::workers::a_worker_that_hangs_costs_its_siblings_nothing_and_is_replaced_on_demand",
            "a_worker_cannot_hurt::a_stopped_process_can_be_recycled",
        ],
    ),
    row(
        "ignores-term",
        "a worker ignores its stop ladder",
        "killed at its end, and that is said",
        &["a_worker_cannot_hurt::a_worker_that_ignores_its_ladder_is_killed_and_that_is_said"],
    ),
    row(
        "leaves-children",
        "workers leave children, in sessions of their own",
        "all gone when the app has ended",
        &[
            "faults_of_keeper_and_broker::strangers::at_the_end_no_child_of_a_worker_is_left_wherever_it_went",
            "nothing_is_left_behind::a_stop_takes_the_workers_their_children_the_port_and_the_socket",
        ],
    ),
    row(
        "fork-bomb",
        "a worker forks thousands of children",
        "status answers meanwhile; the end takes them all",
        &["faults::descendants::a_worker_that_forks_without_end_is_ended_with_all_that_came_of_it"],
    ),
    row(
        "child-keeps-channel",
        "a grandchild holds the channel of a worker that is killed",
        "its death is seen at once",
        &["faults::descendants::a_child_that_keeps_the_channel_does_not_hide_the_death_of_its_parent"],
    ),
    row(
        "closes-channel",
        "a worker shuts its channel, or an end of it, and lives",
        "no death; it is signalled where it would have been told",
        &[
            "workers_talk::a_worker_that_has_shut_its_reading_end_is_not_called_told",
            "workers_talk::a_worker_that_is_not_listened_to_any_more_is_signalled_at_once",
        ],
    ),
    row(
        "exits-at-once",
        "a worker exits with success again and again",
        "the same waits as for a crash",
        &["faults::workers::a_worker_that_exits_with_success_again_and_again_is_no_hot_loop"],
    ),
    row(
        "dies-anywhere",
        "workers are killed while they start, while they leave, during a drain",
        "one end each, with its cause",
        &["faults::workers::each_worker_has_one_end_whatever_it_does_when_it_dies"],
    ),
    row(
        "dies-unread",
        "a worker dies with unread words on its channel",
        "an ordinary death, nothing more in the log",
        &["faults::workers::a_worker_that_dies_with_unread_words_is_an_ordinary_death"],
    ),
    row(
        "orphans",
        "a worker leaves 5,000 orphans that end at once, again and again",
        "all reaped; exit codes of workers untouched",
        &[
            "faults::descendants::thousands_of_orphans_are_reaped_and_hide_no_death",
            "faults_of_keeper_and_broker::strangers::an_orphan_of_a_worker_is_reaped_when_it_ends",
            "faults_of_keeper_and_broker::strangers::as_the_first_process_of_a_container_it_does_all_of_the_same",
        ],
    ),
    row(
        "shuts-listener",
        "a worker shuts the shared socket, also while no broker process is there",
        "it listens again at once",
        &[
            "a_worker_cannot_hurt::a_shared_socket_that_a_worker_shuts_listens_again_at_once",
            "faults_of_keeper_and_broker::gaps::a_listener_that_is_shut_after_or_during_a_takeover_listens_again",
        ],
    ),
    row(
        "spoils-listener",
        "a worker makes the shared socket blocking and its queue short",
        "nobody blocks on it; the queue is long again with the next worker",
        &["faults::workers::a_worker_that_spoils_the_shared_socket_spoils_it_for_nobody"],
    ),
    row(
        "floods",
        "lines without end, a million tiny ones, deep JSON, no UTF-8, a flood of output",
        "that worker alone has it; memory is bounded, the others answer",
        &[
            "workers_talk::a_worker_whose_lines_are_no_json_is_replaced",
            "workers_talk::a_worker_whose_lines_are_no_text_is_replaced",
            "workers_talk::a_line_without_end_costs_no_more_than_the_longest_and_the_next_one_is_heard",
            "workers_talk::values_within_values_without_end_hurt_nobody",
            "workers_talk::a_flood_of_messages_with_and_without_a_watcher_costs_the_others_nothing",
            "a_worker_cannot_hurt::a_flood_of_output_costs_the_others_nothing",
            "a_worker_cannot_hurt::output_of_any_kind_is_one_line_of_text_each",
        ],
    ),
    row(
        "does-not-read",
        "a worker never reads its channel",
        "so much is held for it and no more",
        &["workers_talk::a_worker_that_does_not_read_is_told_so_much_and_no_more"],
    ),
    row(
        "sends-descriptors",
        "a worker sends descriptors with every message",
        "closed at once, none is left",
        &["workers_talk::descriptors_that_nobody_asked_for_are_closed"],
    ),
    row(
        "speaks-of-others",
        "a worker claims to be another, or orders what is not its own",
        "no effect",
        &["faults::workers::what_a_worker_says_of_others_has_no_effect"],
    ),
    row(
        "no-processes",
        "the limit of processes is reached (EAGAIN)",
        "workers beyond it fail with the reason; the rest goes on; it recovers",
        &["bad_input::limits::at_the_limit_of_processes_only_the_workers_beyond_it_fail"],
    ),
    row(
        "no-files",
        "the limit of open files is reached, in each process and at the start",
        "the same; the app can be asked; nothing is lost",
        &[
            "bad_input::limits::at_the_limit_of_open_files_only_the_workers_beyond_it_fail",
            "faults_of_keeper_and_broker::limits::a_broker_process_without_files_to_open_says_so_and_tries_again_until_it_can",
            "faults_of_keeper_and_broker::limits::a_keeper_without_files_to_open_has_the_workers_that_it_cannot_hold_replaced_until_it_can",
            "faults_of_keeper_and_broker::limits::a_worker_whose_descriptors_were_not_held_in_time_is_adopted_all_the_same",
            "faults_of_keeper_and_broker::limits::a_keeper_that_cannot_start_a_broker_process_tries_again_until_it_can",
            "faults_of_keeper_and_broker::limits::an_app_that_cannot_begin_for_want_of_files_says_so_and_ends",
        ],
    ),
    row(
        "calls-at-start",
        "each system call of a start fails once (ENOMEM, EMFILE, ENFILE and others)",
        "it starts, or says why not; no panic, no hang, nobody left",
        &["faults::calls::a_start_of_which_a_call_fails_succeeds_or_says_why_not_and_ends"],
    ),
    row(
        "calls-while-running",
        "each system call fails once: recycle, crash, scale, drain, broker kill",
        "no panic, no hang, no leak; it comes to rest as wanted",
        &["faults::calls::a_running_app_of_which_a_call_fails_goes_on_and_comes_to_rest"],
    ),
    row(
        "log-blocked",
        "nobody reads the log; the disk under it is full",
        "nobody waits; what is lost is counted and said",
        &[
            "a_worker_cannot_hurt::a_log_that_nobody_reads_blocks_nobody_and_says_what_was_lost",
            "a_worker_cannot_hurt::a_full_disk_under_the_log_is_said_and_stops_nobody",
        ],
    ),
    row(
        "no-streams",
        "started with standard input, output and error closed",
        "/dev/null is in their place; all works",
        &["faults::machine::an_app_started_without_standard_streams_puts_nothing_else_in_their_place"],
    ),
    row(
        "odd-signals",
        "started by nohup, with all signals ignored and blocked",
        "works; workers start with none ignored or blocked",
        &["faults::signals::whatever_signals_it_was_started_with_its_workers_start_with_none"],
    ),
    row(
        "stopped-for-long",
        "both processes are stopped for 30 s during a recycle under load",
        "nothing failed, nobody killed, it goes on",
        &[
            "faults::signals::an_app_that_was_stopped_for_long_goes_on_where_it_was",
            "nothing_is_left_behind::an_app_that_was_stopped_itself_hears_who_has_left_before_it_calls_anybody_late",
        ],
    ),
    row(
        "numbers-again",
        "process numbers come again while workers are signalled",
        "no number is signalled once its process was reaped",
        &["faults::signals::no_number_is_signalled_once_its_process_was_reaped"],
    ),
    row(
        "signal-storm",
        "hundreds of thousands of CHLD, WINCH and HUP",
        "status answers; hang-ups become few recycles",
        &["faults::signals::a_storm_of_signals_is_taken_in_and_hang_ups_become_few_recycles"],
    ),
    row(
        "odd-files",
        "the file is a folder, a pipe, endless, no text, or not to be read",
        "refused in words, without waiting for it",
        &["bad_input::file::what_is_no_file_and_what_is_no_text_is_refused_without_waiting_for_it"],
    ),
    row(
        "old-kernel",
        "the kernel does not know pidfd_open, clone3, close_range, memfd_create",
        "made do with, or refused in words",
        &["faults::machine::an_older_kernel_is_made_do_with_or_refused"],
    ),
    row(
        "broker-killed",
        "the broker process is killed under load; the keeper is killed; both are",
        "workers serve on and are adopted; or end with the keeper",
        &[
            "the_broker_process_can_die::killed_again_and_again_under_load_it_loses_nothing_and_restarts_nobody",
            "the_broker_process_can_die::killed_while_workers_are_replaced_scaled_and_crash_it_goes_on_with_all_of_it",
            "faults_of_keeper_and_broker::deaths::a_keeper_that_is_killed_takes_everything_with_it",
            "nothing_is_left_behind::workers_do_not_outlive_a_killed_broker",
        ],
    ),
    row(
        "second-run",
        "the app is started a second time",
        "refused, with the pid of the first",
        &["bad_input::start::a_second_run_of_an_app_is_refused_and_names_the_first"],
    ),
    row(
        "left-behind",
        "killed and started again 200 times in the same place",
        "starts each time; what is left is named and ended",
        &[
            "faults::asking::after_every_kill_the_next_run_starts_in_the_same_place",
            "nothing_is_left_behind::what_a_killed_run_has_left_is_named_and_ended_by_the_next_one",
        ],
    ),
    Row {
        debug: true,
        ..row(
            "panics",
            "the broker process panics again and again on the same records",
            "what was under way is dropped and said; all workers are kept",
            &[
                "faults_of_keeper_and_broker::deaths::one_that_panics_again_and_again_drops_what_was_under_way_and_keeps_all_workers",
            ],
        )
    },
    Row {
        debug: true,
        ..row(
            "broker-hangs",
            "the broker process hangs",
            "replaced by its keeper; workers serve on",
            &[
                "faults_of_keeper_and_broker::deaths::one_that_hangs_is_replaced_once_it_has_owed_something_for_long",
            ],
        )
    },
    row(
        "many-clients",
        "600 clients say nothing, or a byte now and then; 100 do not read",
        "status answers all the same",
        &[
            "faults::asking::clients_that_say_nothing_or_little_keep_nobody_from_asking",
            "bad_input::users::too_many_watchers_are_told_so_and_silent_clients_lose_their_place",
            "workers_talk::long_messages_are_not_held_for_a_watcher_that_does_not_read",
        ],
    ),
    row(
        "never-leave",
        "200 recycles of workers that never leave",
        "few processes, all of them shown",
        &["faults::asking::recycles_of_workers_that_never_leave_do_not_heap_up"],
    ),
    row(
        "bad-images",
        "upgrades to what is no program, dies, hangs, refuses; records that are damaged",
        "never started in our place; workers run on",
        &[
            "faults_of_keeper_and_broker::images::an_image_that_cannot_go_on_is_never_started_in_our_place",
            "faults_of_keeper_and_broker::records::records_that_are_none_are_refused_and_the_workers_run_on",
            "faults_of_keeper_and_broker::records::damaged_records_are_refused_and_two_signals_end_everything",
        ],
    ),
];
