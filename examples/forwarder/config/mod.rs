//! The configuration file: TOML, read strictly, with every error reported at its line.

mod reader;
mod schema;

use std::fs;
use std::path::Path;

use toml::de::DeTable;

use crate::failure::Failure;
use crate::overlay;
use crate::plan::Plan;
use reader::Problems;

/// Reads a file; a failure lists all that is wrong with it.
pub fn load(file: &Path) -> Result<Plan, Failure> {
    let name = file.display().to_string();
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) => return Err(Failure::Usage(format!("reading {name}: {e}"))),
    };
    let mut plan = parse(&name, &text).map_err(|problems| {
        let many = if problems.len() == 1 { "error" } else { "errors" };
        let head = format!("{} {many} in {name}", problems.len());
        Failure::Usage([vec![head], problems].concat().join("\n"))
    })?;
    overlay::rehearse(&plan).map_err(|e| Failure::Usage(format!("{name}: {e}")))?;
    // An editor replaces the file, and what it puts there is another one in the same directory.
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    plan.privileges.readable.extend([directory.to_owned(), file.to_owned()]);
    Ok(plan)
}

/// Reads the text of a file; the errors are in the order of their lines.
pub fn parse(name: &str, text: &str) -> Result<Plan, Vec<String>> {
    let mut problems = Problems::new(name, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        problems.add(problems.line_of(at), error.message());
    }
    // What can be read of broken syntax would only raise errors that are none.
    let plan = errors.is_empty().then(|| schema::plan(&table, &mut problems));
    match plan {
        Some(plan) if problems.is_empty() => Ok(plan),
        _ => Err(problems.into_lines()),
    }
}

#[cfg(test)]
mod tests;
