//! Giving up privileges, in the order in which each step is still allowed.

use std::io;

use rustix::process::{Gid, Resource, Rlimit, Uid, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use serde_json::Value;

use super::context;

/// The kernel's capabilities by number; those that it does not know are skipped.
const LAST_CAPABILITY: u32 = 40;

/// Becomes the user of `process` with no more than its capabilities; the process has one thread.
pub(super) fn give_up(process: &Value) -> io::Result<()> {
    let failed = |what: &'static str| move |errno: rustix::io::Errno| context(what)(errno.into());
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(failed("forbid core files"))?;
    set_no_new_privs(true).map_err(failed("forbid new privileges"))?;
    let kept = capabilities(&process["capabilities"]["bounding"]);
    for number in 0..=LAST_CAPABILITY {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if !kept.contains(capability) {
            match remove_capability_from_bounding_set(capability) {
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(errno) => return Err(failed("give up capabilities")(errno)),
            }
        }
    }
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok()).unwrap_or_default();
    let user = &process["user"];
    let (uid, gid) = (Uid::from_raw(id(&user["uid"])), Gid::from_raw(id(&user["gid"])));
    let groups: Vec<Gid> =
        user["additionalGids"].as_array().into_iter().flatten().map(|group| Gid::from_raw(id(group))).collect();
    match set_thread_groups(&groups) {
        // A user namespace of one has no groups to set.
        Ok(()) | Err(rustix::io::Errno::PERM) if groups.is_empty() => {}
        Ok(()) => {}
        Err(errno) => return Err(failed("set the groups")(errno)),
    }
    set_thread_res_gid(gid, gid, gid).map_err(failed("set the group"))?;
    set_thread_res_uid(uid, uid, uid).map_err(failed("set the user"))?;
    // As execve(2) does it: who is not root has none in effect.
    let kept = if uid.is_root() { kept } else { CapabilitySet::empty() };
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(failed("give up capabilities"))
}

/// Capabilities by their names in the bundle; a name that is not known gives none.
fn capabilities(names: &Value) -> CapabilitySet {
    let known = |name: &str| CapabilitySet::from_name(name.strip_prefix("CAP_")?);
    names.as_array().into_iter().flatten().filter_map(Value::as_str).filter_map(known).collect()
}
