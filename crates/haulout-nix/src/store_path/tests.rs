use super::*;
use proptest::prelude::*;

const BASE: &str = "ad3awvkb1cigglj0c0rdl7xz73mcpr84-leaf-a";

#[test]
fn a_path_is_a_hash_part_and_a_name() {
    let path: StorePath = BASE.parse().unwrap();
    assert_eq!(path.name(), "leaf-a");
    assert_eq!(path.hash_part().to_string(), &BASE[..32]);
    assert_eq!(path.to_string(), BASE);
    let dir = StoreDir::default();
    assert_eq!(dir.display(&path), format!("/nix/store/{BASE}"));
    assert_eq!(dir.parse_path(&dir.display(&path)), Ok(path));
}

#[test]
fn malformed_paths_are_refused() {
    let hash = &BASE[..32];
    let long = "x".repeat(NAME_LEN_MAX + 1);
    for name in ["", ".", "..", ".-a", "..-a", "a b", "a/b", "ä", "a\n", "a\0", "a~", &long] {
        assert!(format!("{hash}-{name}").parse::<StorePath>().is_err(), "{name:?}");
    }
    for name in ["a", ".a", "...", "..a", "...-a", "-", "?=+_-.", &long[1..]] {
        assert!(format!("{hash}-{name}").parse::<StorePath>().is_ok(), "{name:?}");
    }
    for text in ["", "-", hash, "ad3awvkb1cigglj0c0rdl7xz73mcpr8é-a", &format!("{hash}_a")] {
        assert!(text.parse::<StorePath>().is_err(), "{text:?}");
    }
    assert!(format!("e{}-a", &hash[1..]).parse::<StorePath>().is_err());
}

#[test]
fn only_paths_directly_inside_the_store_are_its_paths() {
    let dir = StoreDir::default();
    for prefix in ["", "/nix/store", "/nix/store//", "/nix/store2/", "/nix/store/x/", "/gnu/store/"]
    {
        assert!(dir.parse_path(&format!("{prefix}{BASE}")).is_err(), "{prefix}");
    }
    for text in ["", "/", "nix/store", "/nix/store/", "/nix//store", "/nix/../store", "/a\nb"] {
        assert!(text.parse::<StoreDir>().is_err(), "{text:?}");
    }
    let other: StoreDir = "/tmp/s".parse().unwrap();
    assert!(other.parse_path(&format!("/tmp/s/{BASE}")).is_ok());
}

proptest! {
    #[test]
    fn order_is_that_of_the_text(a: [u8; 20], b: [u8; 20], same: bool, x in "[a-c+]{1,3}", y in "[a-c+]{1,3}") {
        let b = if same { a } else { b };
        let one = StorePath::new(HashPart::from_bytes(a), x.parse().unwrap());
        let two = StorePath::new(HashPart::from_bytes(b), y.parse().unwrap());
        prop_assert_eq!(one.cmp(&two), one.to_string().cmp(&two.to_string()));
        prop_assert_eq!(one.hash_part().cmp(&two.hash_part()), a.cmp(&b));
        prop_assert_eq!(one.to_string().parse::<StorePath>(), Ok(one));
    }

    #[test]
    fn no_text_panics(text in ".{0,60}") {
        let _ = text.parse::<StorePath>();
        let _ = StoreDir::default().parse_path(&text);
        let _ = text.parse::<StoreDir>();
    }
}
