//! What tshark reads.

use std::env;
use std::path::Path;
use std::process::Command;

/// Some fields of each frame of a file; none without tshark, which has to be there in CI.
#[allow(clippy::print_stderr, reason = "what is skipped is said loudly")]
pub(crate) fn fields(file: &Path, fields: &[&str]) -> Option<Vec<Vec<String>>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-T", "fields", "-E", "separator=|", "-r"]).arg(file);
    command.args(fields.iter().flat_map(|field| ["-e", field]));
    let Ok(output) = command.output() else {
        assert!(env::var_os("CI").is_none(), "tshark has to be there in CI");
        eprintln!("SKIPPED what tshark reads: there is no tshark");
        return None;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect())
}
