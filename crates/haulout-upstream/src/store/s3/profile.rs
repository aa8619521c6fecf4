//! The files that Amazon's tools keep credentials in.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The keys of one section.
pub(super) type Profile = BTreeMap<String, String>;

/// Reads one profile out of all files, the first file's word counting most. Files that do not
/// exist say nothing.
pub(super) fn read(files: &[PathBuf], name: &str) -> Result<Profile, String> {
    let mut profile = Profile::new();
    for file in files {
        let Ok(meta) = std::fs::metadata(file) else { continue };
        if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
            return Err(format!("{} is no credentials file", file.display()));
        }
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        for (key, value) in section(&text, name) {
            profile.entry(key).or_insert(value);
        }
    }
    Ok(profile)
}

/// `[name]` as in the credentials file, `[profile name]` as in the configuration file.
fn section<'t>(text: &'t str, name: &'t str) -> impl Iterator<Item = (String, String)> + 't {
    let mut inside = false;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(title) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let title = title.trim();
            let title = title.strip_prefix("profile ").map_or(title, str::trim);
            inside = title == name;
            return None;
        }
        if !inside || line.starts_with(['#', ';']) {
            return None;
        }
        let (key, value) = line.split_once('=')?;
        Some((key.trim().to_ascii_lowercase(), value.trim().to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_of_both_kinds() {
        let text = "x = outside\n[default]\na=1\n# b=2\n[profile  ci ]\nA = 3\n; c = 4\nno value\n[ci]\nd = 5\n";
        let keys = |name| section(text, name).collect::<Vec<_>>();
        assert_eq!(keys("default"), [("a".into(), "1".into())]);
        assert_eq!(keys("ci"), [("a".into(), "3".into()), ("d".into(), "5".into())]);
        assert_eq!(keys("none"), []);
    }
}
