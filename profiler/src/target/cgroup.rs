//! What a process's cgroup tells: its container, and how long its CPU quota held it back.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::units::{Nanos, Pid};

/// Where to read how long a process's cgroup was kept from running for lack of quota (CFS bandwidth
/// control). Outlives the process.
#[derive(Clone, Debug)]
pub struct Throttle {
    cgroups: String,
    mounts: String,
}

impl Throttle {
    /// That of a living process.
    pub fn of(pid: Pid) -> Option<Self> {
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        Some(Self { cgroups, mounts })
    }

    /// The time so far, since the cgroup exists: read it before and after.
    ///
    /// It is the counter of the nearest cgroup upwards that has a quota, summed over its CPUs' run
    /// queues; 0 if there is no quota, `None` if it cannot be read from here.
    pub fn read(&self) -> Option<Nanos> {
        throttled_in(&self.cgroups, &self.mounts, &|path| fs::read_to_string(path).ok())
    }
}

/// The id of the container that a process runs in, if its cgroup tells one.
pub(super) fn container(pid: Pid) -> Option<String> {
    container_in(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

fn throttled_in(
    cgroups: &str,
    mounts: &str,
    read: &dyn Fn(&Path) -> Option<String>,
) -> Option<Nanos> {
    let (version, path) = cpu_cgroup(cgroups)?;
    let Mount { root, at } = mount_of(mounts, version)?;
    // `..` is a cgroup outside of those that our own cgroup namespace shows.
    let inside = Path::new(path).strip_prefix(root).ok()?;
    let inside = inside.strip_prefix("/").unwrap_or(inside);
    if inside.components().any(|part| part.as_os_str() == "..") {
        return None;
    }
    let throttled_at = |cgroup: &Path| version.throttled(&read(&cgroup.join("cpu.stat"))?);
    let limited = inside.ancestors().map(|cgroup| at.join(cgroup)).find(|cgroup| {
        read(&cgroup.join(version.quota_file())).is_some_and(|quota| version.is_quota(&quota))
    });
    match limited {
        Some(cgroup) => throttled_at(&cgroup),
        None => read(&at.join(inside).join("cpu.stat")).map(|_| Nanos(0)),
    }
}

/// The two generations of cgroups, which differ in every name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    fn quota_file(self) -> &'static str {
        match self {
            Self::V1 => "cpu.cfs_quota_us",
            Self::V2 => "cpu.max",
        }
    }

    fn is_quota(self, text: &str) -> bool {
        match self {
            Self::V1 => !text.starts_with('-'),
            Self::V2 => !text.starts_with("max"),
        }
    }

    /// The throttled time that a `cpu.stat` states.
    fn throttled(self, text: &str) -> Option<Nanos> {
        let (name, unit_ns) = match self {
            Self::V1 => ("throttled_time ", 1),
            Self::V2 => ("throttled_usec ", 1000),
        };
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(Nanos(value.trim().parse::<u64>().ok()?.saturating_mul(unit_ns)))
    }
}

/// The cgroup whose CPU controller the process is under, as `/proc/PID/cgroup` names it.
fn cpu_cgroup(cgroups: &str) -> Option<(Version, &str)> {
    let entries = || cgroups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let v1 = entries().find(|(controllers, _)| controllers.split(',').any(|c| c == "cpu"));
    let v2 = || entries().find(|(controllers, _)| controllers.is_empty());
    v1.map(|(_, path)| (Version::V1, path)).or_else(|| v2().map(|(_, path)| (Version::V2, path)))
}

/// Where a cgroup file system can be seen.
struct Mount<'a> {
    /// The cgroup at its top.
    root: &'a str,
    at: PathBuf,
}

/// See `proc_pid_mountinfo(5)` for the fields.
fn mount_of(mounts: &str, version: Version) -> Option<Mount<'_>> {
    mounts.lines().find_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let mut tail = tail.split(' ');
        let (kind, options) = (tail.next()?, tail.nth(1)?);
        let matches = match version {
            Version::V1 => kind == "cgroup" && options.split(',').any(|option| option == "cpu"),
            Version::V2 => kind == "cgroup2",
        };
        let mut head = head.split(' ').skip(3);
        let (root, at) = (head.next()?, head.next()?);
        // A path with spaces would be escaped; nobody mounts cgroups at one.
        matches.then(|| Mount { root, at: PathBuf::from(at) })
    })
}

/// Docker, containerd, CRI-O, podman and Kubernetes name a container by 64 hex digits, each with
/// another prefix; the innermost such name is meant. LXC and ECS have forms of their own.
fn container_in(cgroups: &str) -> Option<String> {
    cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(|path| {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        parts.iter().enumerate().rev().find_map(|(at, part)| {
            let before = at.checked_sub(1).map(|at| parts[at]);
            container_part(part, before).map(str::to_owned)
        })
    })
}

/// The container that one part of a cgroup's path names.
fn container_part<'a>(part: &'a str, before: Option<&str>) -> Option<&'a str> {
    let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let part = part.strip_suffix(".scope").unwrap_or(part);
    // conmon watches over a container from outside.
    if part.contains("conmon") {
        return None;
    }
    let last = part.rsplit(['-', ':']).next()?;
    if last.len() == 64 && hex(last) {
        return Some(last);
    }
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return Some(name);
    }
    if before == Some("lxc") {
        return Some(part);
    }
    // ECS on Fargate: the task's id and the container's runtime id.
    let (task, runtime) = part.split_once('-')?;
    let ecs = task.len() == 32 && hex(task) && runtime.bytes().all(|b| b.is_ascii_digit());
    ecs.then_some(part)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn containers_are_known_by_their_cgroup() {
        let id = "0123456789abcdef".repeat(4);
        let check = |cgroup: &str, expected: Option<&str>| {
            let text = cgroup.replace("ID", &id);
            let expected = expected.map(|name| name.replace("ID", &id));
            assert_eq!(container_in(&text), expected, "{cgroup}");
        };
        check("0::/system.slice/docker-ID.scope\n", Some("ID"));
        check("12:pids:/docker/ID\n1:name=systemd:/docker/ID\n", Some("ID"));
        check(
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
            Some("ID"),
        );
        check("0::/machine.slice/libpod-ID.scope/container", Some("ID"));
        check("0::/machine.slice/libpod-conmon-ID.scope", None);
        check("0::/kubepods/besteffort/pod2c48913c-b29f-11e7-9350-020968147796/ID", Some("ID"));
        check(
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12_3.slice/cri-containerd-ID.scope",
            Some("ID"),
        );
        check("0::/kubepods.slice/kubepods-pod12.slice/crio-ID.scope", Some("ID"));
        check(
            "0::/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:ID",
            Some("ID"),
        );
        check("0::/../../kubepods-pod1.slice/cri-containerd-ID.scope", Some("ID"));
        check(
            "9:cpu:/ecs/0123456789abcdef0123456789abcdef/0123456789abcdef0123456789abcdef-1234567890",
            Some("0123456789abcdef0123456789abcdef-1234567890"),
        );
        check("0::/lxc.payload.web1/system.slice/nginx.service", Some("web1"));
        check("4:memory:/lxc/web2", Some("web2"));
        check("5:cpu:/\n4:memory:/docker/ID\n0::/", Some("ID"));
        check("0::/", None);
        check("0::/system.slice/nginx.service", None);
        check("0::/user.slice/user-1000.slice/session-3.scope", None);
        check("0::/builds/0123456789abcdef0123456789abcdef", None);
        check("", None);
    }

    const V2: &str = "22 1 0:20 / /proc rw - proc proc rw\n\
                      31 22 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "33 25 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
                      34 25 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      35 25 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn throttling_is_read_where_the_quota_is() {
        let check = |cgroups: &str, mounts: &str, files: &[(&str, &str)], expected| {
            let files: HashMap<_, _> = files.iter().copied().collect();
            let read = |path: &Path| {
                let name = path.strip_prefix("/sys/fs/cgroup").ok()?.to_str()?;
                files.get(name).map(|&text| text.to_owned())
            };
            assert_eq!(throttled_in(cgroups, mounts, &read), expected, "{cgroups}");
        };
        let stat = "usage_usec 9\nnr_throttled 2\nthrottled_usec 1500\n";
        let nanos = Some(Nanos(1_500_000));
        // On the process's own cgroup.
        let own = [("a/b/cpu.max", "50000 100000\n"), ("a/b/cpu.stat", stat)];
        check("0::/a/b\n", V2, &own, nanos);
        // On the pod around it.
        let pod = [
            ("a/b/cpu.max", "max 100000\n"),
            ("a/b/cpu.stat", "throttled_usec 0\n"),
            ("a/cpu.max", "50000 100000\n"),
            ("a/cpu.stat", stat),
        ];
        check("0::/a/b\n", V2, &pod, nanos);
        // On none; the controller is not even on for the leaf.
        check("0::/a/b\n", V2, &[("a/b/cpu.stat", "usage_usec 9\n")], Some(Nanos(0)));
        check("0::/\n", V2, &[("cpu.stat", "usage_usec 9\n")], Some(Nanos(0)));
        // Version 1, beside a version 2 that has no controllers.
        let v1 = [
            ("cpu,cpuacct/a/cpu.cfs_quota_us", "50000\n"),
            ("cpu,cpuacct/a/cpu.stat", "nr_periods 1\nthrottled_time 77\n"),
        ];
        check("4:cpuset:/x\n3:cpu,cpuacct:/a\n0::/y\n", V1, &v1, Some(Nanos(77)));
        let unlimited =
            [("cpu,cpuacct/a/cpu.cfs_quota_us", "-1\n"), ("cpu,cpuacct/a/cpu.stat", "")];
        check("3:cpu,cpuacct:/a\n", V1, &unlimited, Some(Nanos(0)));
        // Outside of what can be seen, or gone.
        check("0::/../other\n", V2, &own, None);
        check("0::/a/b\n", "", &own, None);
        check("0::/a/b\n", V2, &[], None);
        // A container that mounts only its own part.
        let part = "31 22 0:27 /a /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        check("0::/a/b\n", part, &[("b/cpu.max", "1 2\n"), ("b/cpu.stat", stat)], nanos);
    }
}
