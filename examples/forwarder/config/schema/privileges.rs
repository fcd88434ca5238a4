//! Reading of what the process gives up.

use crate::config::reader::{Problems, Section};
use crate::privileges::{NEW_PRIVS, Privileges, User};
use crate::values;

const KEYS: &[&str] = &[
    "user",
    "keep_user",
    "keep_capabilities",
    "seccomp",
    "landlock",
    "allow_new_privs",
    "writable",
];

/// Reads `privileges`.
pub fn read(root: &Section<'_>, problems: &mut Problems) -> Privileges {
    let mut privileges = Privileges::default();
    let Some(section) = root.get("privileges").and_then(|item| item.section(problems)) else {
        return privileges;
    };
    section.only(KEYS, &[], "", problems);
    let mut keep_user = false;
    for (key, target) in [
        ("keep_user", &mut keep_user),
        ("keep_capabilities", &mut privileges.keep_capabilities),
        ("seccomp", &mut privileges.seccomp),
        ("landlock", &mut privileges.landlock),
        ("allow_new_privs", &mut privileges.allow_new_privs),
    ] {
        if let Some(value) = section.get(key).and_then(|item| item.boolean(problems)) {
            *target = value;
        }
    }
    if keep_user {
        privileges.user = User::Keep;
    }
    if let Some(item) = section.get("user") {
        if keep_user {
            item.problem("not allowed beside keep_user = true", problems);
        }
        if let Some(user) = item.word(values::USER, values::user, problems) {
            privileges.user = user;
        }
    }
    if let Some(item) = section.get("allow_new_privs").filter(|item| item.is(true))
        && (privileges.seccomp || privileges.landlock)
    {
        item.problem(format_args!("true is not allowed: {NEW_PRIVS}"), problems);
    }
    if let Some(item) = section.get("writable") {
        let list = item.list("a list of directories", problems);
        let read = |item: &crate::config::reader::Item<'_>| {
            item.text(values::DIRECTORY, values::directory, problems)
        };
        privileges.writable = list.iter().filter_map(read).collect();
    }
    privileges
}
