//! What the kernel knows of a process: memory, open files, connections. A witness that the process cannot mislead.

use std::{collections::HashSet, fs, net::Ipv4Addr};

/// Makes the present the peak of its resident memory.
pub fn reset_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

/// Largest resident memory since [`reset_peak`].
pub fn peak_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a live process has VmHWM");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Number of open files, sockets included.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// The loopback addresses other than 127.0.0.1 that it has TCP sockets to: what tests simulate has those, what they run
/// beside it has not.
pub fn connected(pid: u32) -> Vec<Ipv4Addr> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(Result::ok);
    let sockets: HashSet<String> = links
        .filter_map(|link| fs::read_link(link.path()).ok())
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() > 9 && sockets.contains(row[9]))
        .filter_map(|row| u32::from_str_radix(row[2].split(':').next()?, 16).ok())
        // The kernel prints the number as it lies in memory.
        .map(|address| Ipv4Addr::from(address.to_ne_bytes()))
        .filter(|address| address.is_loopback() && *address != Ipv4Addr::LOCALHOST)
        .collect()
}
