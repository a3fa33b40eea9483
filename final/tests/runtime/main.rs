//! The runtime against the real kernel: the binary in a lab, and what the kernel says.

#![allow(clippy::wildcard_imports, reason = "the table below names every test, or it is dead code")]

mod changes;
mod copying;
mod cp;
mod engine;
mod files;
mod inspect;
mod ipv6;
mod isolation;
mod life;
mod limits;
mod lists;
mod names;
mod network;
mod networks;
mod pid1;
mod remap;
mod rootless;
mod security;
mod shared;
mod terminal;
mod user;
mod words;

use std::process::{Child, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use workshop::monitors::{kill_monitor, kill_process, monitor};
use workshop::suite::{Outcome, Test, command, eventually, probe_volume, read, run, suite};
use workshop::test;

const BINARY: &str = env!("CARGO_BIN_EXE_final");

use changes::*;
use copying::*;
use cp::*;
use engine::*;
use files::*;
use inspect::*;
use ipv6::*;
use isolation::*;
use life::*;
use limits::*;
use lists::*;
use names::*;
use network::*;
use networks::*;
use pid1::*;
use remap::*;
use rootless::*;
use security::*;
use shared::*;
use terminal::*;
use user::*;
use words::*;

static TESTS: &[Test] = &[
    // engine.rs
    test!(the_programs_exit_status_is_passed_on, [Root, LabRoot, Plain]),
    test!(bad_input_is_named_and_ends_in_125, [Root, Plain]),
    test!(a_container_ends_up_in_ps_until_it_is_removed, [Root, LabRoot, Plain]),
    test!(a_name_is_taken_once, [Root, Plain]),
    test!(signals_reach_the_program, [Root, LabRoot, Plain]),
    test!(kill_and_rm_end_a_container, [Root, LabRoot, Plain]),
    test!(exec_joins_the_container, [Root, LabRoot, Plain]),
    test!(input_is_passed_on_if_asked_for, [Root, Plain]),
    test!(environment_and_working_directory_are_as_told, [Root, Plain]),
    test!(a_killed_monitor_takes_its_container_along, [Root, LabRoot, Plain]),
    test!(a_monitor_killed_at_any_time_leaves_nothing, [Root, LabRoot, Plain]),
    test!(a_living_container_survives_the_clean_up, [Root, LabRoot]),
    // changes.rs
    test!(changes_are_shown_as_docker_does, [Root, LabRoot, Plain]),
    test!(changes_in_closed_and_replaced_directories, [Root, LabRoot, Plain]),
    test!(a_state_directory_that_overlayfs_cannot_use_well_is_named, [Root, LabRoot, Plain]),
    test!(top_shows_processes_by_the_hosts_numbers, [Root, LabRoot, Plain]),
    test!(bash_completes_verbs_and_flags, [Root, Plain]),
    // copying.rs
    test!(no_link_leads_a_copy_out, [Root, LabRoot, Plain]),
    test!(a_start_waits_for_a_copy, [Root, LabRoot, Plain]),
    test!(a_copy_that_is_ended_leaves_nothing, [Root, LabRoot, Plain]),
    test!(a_paused_containers_files_are_copied, [Root, Plain], Limits),
    test!(who_copies_is_out_of_reach, [Root, LabRoot, Plain]),
    // cp.rs
    test!(files_are_copied_by_dockers_rules, [Root, LabRoot, Plain]),
    test!(what_is_copied_stays_what_it_is, [Root, LabRoot, Plain]),
    test!(archives_are_read_and_written, [Root, LabRoot, Plain]),
    test!(what_cannot_be_written_is_refused, [Root, LabRoot, Plain]),
    test!(a_copy_says_how_much_it_was, [Root, Plain]),
    test!(a_remapped_containers_files_are_copied, [Root], IdMaps),
    // files.rs
    test!(mounts_are_as_they_were_asked_for, [Root, LabRoot, Plain]),
    test!(a_read_only_root_cannot_be_written, [Root, LabRoot, Plain]),
    test!(a_device_is_there_if_it_was_asked_for, [Root, LabRoot, Plain]),
    // inspect.rs
    test!(inspect_says_what_the_kernel_says, [Root, LabRoot, Plain]),
    test!(inspect_says_what_was_asked_for, [Root, LabRoot, Plain]),
    test!(inspect_shows_addresses_and_ports, [Root, LabRoot]),
    test!(a_container_killed_for_memory_says_so, [Root], Limits),
    test!(info_says_what_this_machine_is, [Root, LabRoot, Plain]),
    // isolation.rs
    test!(capabilities_and_seccomp_are_dockers, [Root, LabRoot, Plain]),
    test!(new_namespaces_and_mounts_are_refused, [Root, LabRoot, Plain]),
    test!(privileged_takes_the_walls_away, [Root, LabRoot, Plain]),
    test!(nothing_of_the_caller_leaks_in, [Root, Plain]),
    test!(exec_cannot_be_spied_upon, [Root, LabRoot, Plain]),
    test!(etc_is_written_inside_the_image, [Root, LabRoot, Plain]),
    test!(the_container_does_not_see_the_host, [Root, LabRoot, Plain]),
    // life.rs
    test!(a_detached_container_serves_until_it_is_stopped, [Root, LabRoot, Plain]),
    test!(logs_have_both_streams_with_their_times, [Root, Plain]),
    test!(logs_are_followed_to_the_end, [Root, Plain]),
    test!(logs_are_rotated, [Root]),
    test!(stop_asks_first_and_then_kills, [Root, LabRoot, Plain]),
    test!(a_created_container_is_started_later, [Root, LabRoot, Plain]),
    test!(what_was_written_is_there_after_the_next_start, [Root, LabRoot, Plain]),
    test!(two_wait_for_one_end, [Root, Plain]),
    test!(a_restart_policy_counts, [Root, LabRoot, Plain]),
    test!(what_cannot_be_restarted_stays, [Root, Plain]),
    test!(what_cannot_be_noted_stays, [Root, Plain]),
    test!(with_rm_it_goes_after_a_later_start, [Root, Plain]),
    test!(who_still_writes_holds_up_nobody, [Root], Limits),
    test!(stop_ends_what_would_be_restarted, [Root, Plain]),
    test!(a_paused_container_stands_still, [Root], Limits),
    test!(without_a_cgroup_nothing_is_paused, [LabRoot, Plain], NoLimits),
    test!(two_are_attached_at_once, [Root, LabRoot, Plain]),
    test!(signals_are_the_programs_or_end_the_attached, [Root, Plain]),
    test!(keys_detach_from_a_terminal, [Root, Plain]),
    test!(a_container_outlives_who_started_it, [Root, LabRoot, Plain]),
    test!(who_is_killed_at_any_time_leaves_a_whole_container_or_none, [Root, LabRoot, Plain]),
    test!(a_reader_that_never_reads_holds_up_nobody, [Root, Plain]),
    test!(a_slow_reader_loses_nothing, [Root, Plain]),
    test!(a_monitor_is_small_and_idle, [Root, LabRoot, Plain]),
    test!(stats_show_what_is_used, [Root, LabRoot, Plain]),
    test!(stats_show_what_was_read_and_written, [Root, Plain], Version2),
    test!(two_starts_at_once_start_it_once, [Root, LabRoot, Plain]),
    test!(a_detached_container_keeps_nothing_of_its_caller, [Root, Plain]),
    test!(the_state_is_where_it_belongs, [Plain]),
    // limits.rs
    test!(too_much_memory_is_killed_and_reported, [Root, Plain], Limits),
    test!(processor_time_is_limited, [Root, Plain], Limits),
    test!(processes_are_limited, [Root, Plain], Limits),
    test!(processors_are_chosen, [Root, Plain], Limits),
    test!(the_kernel_has_dockers_other_limits, [Root, Plain], Limits),
    test!(an_undelegated_limit_is_an_error, [LabRoot, Plain], NoLimits),
    test!(the_container_sees_its_own_cgroup_only, [Root, Plain], Version2),
    test!(a_cgroup_of_its_own_is_for_it_to_divide, [Root, Plain], Version2),
    test!(a_container_runs_in_a_container, [Root, Plain], Version2),
    test!(an_undelegated_cgroup_stays_read_only, [LabRoot, Plain], NoLimits),
    test!(an_undelegated_cgroup_stays_read_only, [Root], Version1),
    // lists.rs
    test!(ps_lists_what_was_asked_for, [Root, LabRoot, Plain]),
    test!(every_list_has_dockers_formats, [Root, Plain]),
    test!(a_half_made_container_is_whole_or_gone, [Root, LabRoot, Plain]),
    // network.rs
    test!(the_internet_sees_the_hosts_address, [Root, LabRoot]),
    test!(a_bridge_has_the_name_and_the_subnet_that_it_was_given, [Root, LabRoot, Plain]),
    test!(a_published_port_is_reached_from_everywhere, [Root, LabRoot]),
    test!(ports_are_published_by_ranges_and_by_chance, [Root, LabRoot]),
    test!(all_exposed_ports_are_published_with_one_flag, [Root, LabRoot]),
    test!(a_port_in_use_is_refused_before_anything_is_made, [Root, LabRoot]),
    test!(many_ports_are_published_at_once, [Root, LabRoot]),
    test!(host_and_none_are_what_they_say, [Root, LabRoot, Plain]),
    test!(eight_at_once_share_a_bridge, [Root, LabRoot]),
    test!(a_plain_users_default_is_loopback, [Plain]),
    // ipv6.rs
    test!(a_network_with_ipv6_reaches_the_world_and_is_reached, [Root, LabRoot]),
    test!(networks_with_ipv6_are_closed_to_each_other, [Root, LabRoot]),
    test!(ipv6_is_set_back_to_what_it_was, [Root, LabRoot]),
    test!(a_plain_users_network_has_ipv6, [Plain]),
    test!(pasta_is_the_way_out_with_ipv6, [Plain], tools["pasta", "/dev/net/tun"]),
    // names.rs
    test!(containers_find_each_other_by_name, [Root, LabRoot]),
    test!(other_questions_go_to_whom_the_host_asks, [Root, LabRoot]),
    test!(a_name_server_lives_as_long_as_its_network_is_used, [Root, LabRoot]),
    test!(a_name_server_is_small_and_idle, [Root, LabRoot]),
    test!(a_network_can_be_another_containers, [Root, LabRoot]),
    test!(a_plain_user_shares_another_containers_network, [Plain]),
    // rootless.rs
    test!(a_plain_user_has_networks_of_their_own, [Plain]),
    test!(without_pasta_a_network_has_no_way_out, [Plain]),
    test!(pasta_is_the_way_out, [Plain], tools["pasta", "/dev/net/tun"]),
    test!(what_is_killed_in_a_users_namespace_is_replaced_or_cleaned_up, [Plain]),
    test!(who_come_at_once_are_in_one_namespace, [Plain]),
    test!(a_plain_users_ports_are_published, [Plain]),
    test!(who_copies_for_a_port_is_replaced_when_killed, [Plain]),
    test!(what_goes_through_a_plain_users_port_is_whole, [Plain], tools["python3"]),
    // networks.rs
    test!(a_network_is_made_listed_shown_and_removed, [Root, LabRoot]),
    test!(each_network_has_a_subnet_of_its_own, [Root, LabRoot]),
    test!(two_networks_are_closed_to_each_other, [Root, LabRoot]),
    test!(an_internal_network_has_no_way_out, [Root, LabRoot]),
    test!(a_network_survives_who_is_killed, [Root, LabRoot]),
    // terminal.rs
    test!(a_shell_has_a_terminal_with_job_control, [Root, LabRoot, Plain]),
    test!(exec_has_a_terminal_too, [Root, Plain]),
    // pid1.rs
    test!(an_init_is_in_front_of_the_program, [Root, LabRoot, Plain]),
    test!(an_init_passes_on_signals, [Root, LabRoot, Plain]),
    test!(an_init_waits_for_orphans, [Root, Plain]),
    test!(an_init_leaves_the_terminal_to_the_program, [Root, LabRoot, Plain]),
    test!(an_init_knows_nothing_of_the_caller, [Root, LabRoot, Plain]),
    test!(an_init_dies_with_the_monitor, [Root, Plain]),
    test!(an_init_does_so_among_the_hosts_processes_too, [Root, Plain], Limits),
    test!(an_exec_in_the_background_is_waited_for, [Root, LabRoot, Plain]),
    // security.rs
    test!(capabilities_are_added_and_dropped, [Root, LabRoot, Plain]),
    test!(exec_has_what_the_container_has, [Root, LabRoot, Plain]),
    test!(a_set_user_id_program_gains_only_if_it_may, [Root]),
    test!(a_profile_from_a_file_filters_system_calls, [Root, LabRoot, Plain]),
    test!(each_process_has_its_limits, [Root, LabRoot, Plain]),
    test!(the_paths_of_the_system_can_be_opened, [Root, LabRoot, Plain]),
    // shared.rs
    test!(the_hosts_namespaces_are_shared_if_asked_for, [Root, LabRoot, Plain]),
    test!(another_containers_namespaces_are_shared_if_asked_for, [Root, LabRoot, Plain]),
    test!(the_processes_of_others_are_shared_if_asked_for, [Root, Plain], Limits),
    test!(without_a_cgroup_processes_are_not_shared, [LabRoot, Plain], NoLimits),
    // remap.rs
    test!(root_in_a_remapped_container_is_nobody_on_the_host, [Root], IdMaps),
    test!(an_image_on_disk_is_remapped, [Root], IdMapsOnDisk),
    test!(a_remapped_container_is_started_again, [Root], IdMaps),
    test!(options_are_the_same_in_a_remapped_container, [Root], IdMaps),
    test!(volumes_of_a_remapped_container_stay_their_owners, [Root], IdMaps),
    test!(a_remapped_container_has_a_network, [Root], IdMaps),
    test!(a_file_system_that_keeps_its_owners_is_named, [Root]),
    test!(a_range_that_is_not_fit_is_refused, [Root]),
    test!(only_the_hosts_root_has_ids_to_give, [LabRoot, Plain]),
    // words.rs
    test!(variables_come_from_files, [Root, Plain]),
    test!(the_program_can_be_replaced, [Root, Plain]),
    test!(names_are_added_and_looked_up_as_told, [Root, LabRoot, Plain]),
    test!(settings_of_a_namespace_are_its_own, [Root, LabRoot, Plain]),
    // user.rs
    test!(the_user_is_looked_up_in_the_container, [Root]),
    test!(another_user_may_do_less, [Root]),
    test!(exec_is_the_containers_user_or_another, [Root]),
    test!(exec_can_have_all_capabilities, [Root, LabRoot, Plain]),
    test!(another_user_dies_with_the_monitor, [Root]),
    test!(where_there_is_one_id_another_is_refused, [LabRoot, Plain]),
];

fn main() -> ExitCode {
    suite(TESTS)
}

/// Runs `final` with these words to its end.
fn final_(words: &[&str]) -> Outcome {
    run(&mut command(BINARY, words), Duration::from_secs(100))
}

/// `final run --rm` with options, and a shell script in the image `host`.
fn script(options: &[&str], script: &str) -> Outcome {
    final_(&[&["run", "--rm"], options, &["host", "sh", "-c", script]].concat())
}

/// A container in the background; its runtime is killed with the lab at the latest.
fn start(name: &str, options: &[&str], words: &[&str]) -> Child {
    let words = [&["run", "--rm", "--name", name], options, &["host"], words].concat();
    let child = command(BINARY, &words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("final starts");
    // It is up when a process can join it.
    eventually(&format!("{name} runs"), || final_(&["exec", name, "true"]).status == Some(0));
    child
}

/// A process of ours that waits has less than 1 MiB of its own, and does nothing at all.
fn ensure_small_and_idle(what: &str, pid: Pid) {
    let did = || {
        let stat = read(format!("/proc/{pid}/stat"));
        let words: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let status = read(format!("/proc/{pid}/status"));
        let switches = status.lines().filter(|line| line.contains("_ctxt_switches"));
        format!("{} {} {}", words[11], words[12], switches.collect::<String>()) // utime, stime
    };
    eventually(&format!("{what} does nothing when nobody asks"), || {
        let before = did();
        sleep(Duration::from_millis(700));
        did() == before
    });
    // Only that which its program has made counts: the pages of its file are in the kernel's cache anyway.
    let smaps = read(format!("/proc/{pid}/smaps"));
    let of = |name: &str| -> u64 {
        let sizes = smaps.lines().filter_map(|line| line.strip_prefix(name));
        sizes.map(|size| size.split_whitespace().next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let (clean, made) = (of("Private_Clean:"), of("Anonymous:"));
    println!(
        "{what} has {made} KiB of its own, and {clean} KiB of files that nobody else uses now"
    );
    // An unoptimized program has more that the loader has to write into, and deeper stacks.
    let most = if cfg!(debug_assertions) { 2048 } else { 1024 };
    assert!(made < most, "{made} KiB");
}

/// Kills `final run`, and the monitor that it has started, if it has.
fn kill_with_monitor(runtime: &mut Child) {
    let pid = Pid::from_raw(runtime.id().cast_signed());
    kill(pid, Signal::SIGSTOP).unwrap(); // so it cannot start one meanwhile
    children(pid).into_iter().for_each(kill_process);
    runtime.kill().unwrap();
    runtime.wait().unwrap();
}

/// The child processes: those that name it as their parent (proc_pid_stat(5)).
fn children(parent: Pid) -> Vec<Pid> {
    let all = std::fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        rest.split(' ').nth(1) == Some(&parent.to_string())
    };
    pids.filter(is_child).map(Pid::from_raw).collect()
}

/// Kills the container, and waits for its runtime.
fn stop(name: &str, runtime: Child) -> Outcome {
    let killed = final_(&["kill", name]);
    assert_eq!(killed.status, Some(0), "{killed:?}");
    workshop::suite::finish(runtime, Duration::from_secs(60))
}

/// A directory of the lab's that is ours to fill, whoever we are.
fn scratch() -> String {
    std::env::var("XDG_RUNTIME_DIR").expect("the lab has made it")
}
