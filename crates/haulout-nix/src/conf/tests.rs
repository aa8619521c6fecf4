use super::*;
use proptest::prelude::*;

const OTHER: &str = "lab-1:2VPBzvVGVLoIz8YHS4QZJnHDUXLWjtkzhR0nXxyFMEM=";

fn conf(text: &str) -> NixConf {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("nix.conf"), text).unwrap();
    NixConf::load_from(dir.path(), None)
}

fn names(conf: &NixConf) -> Vec<String> {
    let mut names: Vec<_> =
        conf.trusted_public_keys.iter().map(|key| key.name().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn nothing_written_gives_nix_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let conf = NixConf::load_from(dir.path(), None);
    assert_eq!(names(&conf), ["cache.nixos.org-1"]);
    assert_eq!(conf.substituters, [DEFAULT_SUBSTITUTER]);
    assert!(conf.require_sigs);
    assert_eq!(conf.store, "auto");
    assert!(conf.secret_key_files.is_empty() && conf.warnings.is_empty(), "{:?}", conf.warnings);
}

#[test]
fn extra_adds_and_plain_replaces() {
    let conf = conf(&format!(
        "# a comment\n\
         extra-trusted-public-keys = {OTHER} # mine\n\
         substituters = http://a http://b\n\
         extra-substituters = http://c\n\
         require-sigs = false\n\
         secret-key-files = /k1 /k2\n\
         max-jobs = 4\n\
         store = local?root=/x\n"
    ));
    assert_eq!(names(&conf), ["cache.nixos.org-1", "lab-1"]);
    assert_eq!(conf.substituters, ["http://a", "http://b", "http://c"]);
    assert!(!conf.require_sigs);
    assert_eq!(conf.store, "local?root=/x");
    assert_eq!(conf.secret_key_files, [PathBuf::from("/k1"), PathBuf::from("/k2")]);
    assert_eq!(conf.warnings, []);
}

#[test]
fn an_empty_list_means_none() {
    let conf = conf("trusted-public-keys =\nsubstituters =\n");
    assert!(names(&conf).is_empty());
    assert!(conf.substituters.is_empty());
    assert_eq!(conf.warnings, []);
}

#[test]
fn old_names_still_count() {
    let conf = conf(&format!("binary-caches = http://a\nbinary-cache-public-keys = {OTHER}\n"));
    assert_eq!(names(&conf), ["lab-1"]);
    assert_eq!(conf.substituters, ["http://a"]);
}

#[test]
fn environment_text_comes_last() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("nix.conf"), "substituters = http://file\nstore = daemon\n")
        .unwrap();
    let conf = NixConf::load_from(dir.path(), Some("substituters = http://env\nbad"));
    assert_eq!(conf.substituters, ["http://env"]);
    assert_eq!(conf.store, "daemon");
    assert_eq!(conf.warnings.len(), 1);
    assert_eq!(conf.warnings[0].to_string(), "NIX_CONFIG:2: not a setting: \"bad\"");
}

#[test]
fn includes_are_relative_to_their_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    std::fs::write(
        dir.path().join("nix.conf"),
        "include d/one.conf\n!include d/missing.conf\ninclude d/gone.conf\n",
    )
    .unwrap();
    std::fs::write(dir.path().join("d/one.conf"), "include two.conf\n").unwrap();
    std::fs::write(dir.path().join("d/two.conf"), format!("trusted-public-keys = {OTHER}\n"))
        .unwrap();
    let conf = NixConf::load_from(dir.path(), None);
    assert_eq!(names(&conf), ["lab-1"]);
    assert_eq!(conf.warnings.len(), 1);
    assert_eq!(conf.warnings[0].line, 3);
    assert!(conf.warnings[0].what.contains("gone.conf"));
}

#[test]
fn include_cycles_and_bushes_end() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("nix.conf"), "include nix.conf\n".repeat(50)).unwrap();
    let conf = NixConf::load_from(dir.path(), None);
    assert_eq!(conf.warnings.len(), WARNINGS_MAX);
    assert_eq!(names(&conf), ["cache.nixos.org-1"]);
}

#[test]
fn what_is_no_ordinary_file_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("nix.conf");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let conf = NixConf::load_from(dir.path(), None);
    assert_eq!(conf.warnings.len(), 1);
    assert!(conf.warnings[0].what.contains("not a regular file"));
}

#[test]
fn an_oversized_file_is_refused() {
    let conf = conf(&"#".repeat(FILE_BYTES_MAX as usize + 1));
    assert_eq!(conf.warnings.len(), 1);
    assert!(conf.warnings[0].what.contains("larger than"));
}

#[test]
fn bad_lines_and_keys_are_warnings_with_their_place() {
    let conf = conf(&format!(
        "trusted-public-keys = nonsense {OTHER} short:AAAA\n\
         require-sigs = maybe\n\
         include\n\
         include a b\n\
         substituters: http://x\n\
         store =\n"
    ));
    assert_eq!(names(&conf), ["lab-1"]);
    assert!(conf.require_sigs);
    assert_eq!(conf.store, "auto");
    let mut lines: Vec<_> = conf.warnings.iter().map(|w| w.line).collect();
    lines.sort_unstable();
    assert_eq!(lines, [1, 1, 2, 3, 4, 5, 6]);
    assert!(conf.warnings.iter().all(|w| w.place.ends_with("/nix.conf")));
}

#[test]
fn long_lists_are_cut() {
    let conf = conf(&format!("substituters = {}\n", "http://x ".repeat(LIST_ITEMS_MAX + 1)));
    assert_eq!(conf.substituters.len(), LIST_ITEMS_MAX);
    assert_eq!(conf.warnings.len(), 1);
}

#[test]
fn quotes_are_short_and_harmless() {
    assert_eq!(quote("a\u{1b}[2J"), "\"a\\u{1b}[2J\"");
    assert_eq!(quote(&"x".repeat(100)).len(), QUOTE_CHARS_MAX + 5);
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "(?s).{0,400}", env in "(extra-)?(trusted-public-keys|substituters|require-sigs|store|include|!include)[ =a-z:/#\n]{0,60}") {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("nix.conf"), text).unwrap();
        let conf = NixConf::load_from(dir.path(), Some(&env));
        prop_assert!(conf.warnings.len() <= WARNINGS_MAX);
    }
}
