/// UTF-8 text.
module std::string;

public struct String has copy, drop, store { bytes: vector<u8> }

public fun utf8(bytes: vector<u8>): String {
    assert!(internal_check_utf8(&bytes), 1);
    String { bytes }
}

public fun as_bytes(s: &String): &vector<u8> { &s.bytes }

native fun internal_check_utf8(v: &vector<u8>): bool;
