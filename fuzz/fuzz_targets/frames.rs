//! Everything a peer sends over QUIC but holdings. The first byte picks the decoder; what is accepted must encode to
//! something that decodes to the same again, and where there is one encoding only, to the same bytes.
#![no_main]

use bytes::Bytes;
use haulout_mesh::frames::{
    Hello, REQUEST_HEADER_LEN, Request, decode_named, decode_nar_tree, decode_path_infos, encode_named, encode_nar_tree,
    encode_path_infos,
};
use haulout_mesh::narframe::{FRAME_HEADER_LEN, FRAME_SIZE, decode, parse_header};
use haulout_mesh::siteframe::{
    SITE_FRAME_MAX, SITE_HEADER_LEN, SITE_PACKED_LEN, SiteHead, decode_standing, encode_standing, parse_packed,
    parse_site_header,
};
use haulout_mesh::{NarTree, info};
use haulout_nix::HashPart;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, body)) = bytes.split_first() else { return };
    match kind % 9 {
        0 => {
            if let Ok(hello) = Hello::decode(body) {
                assert_eq!(Hello::decode(&hello.encode()[2..]), Ok(hello));
            }
        }
        1 => {
            let Some((header, rest)) = body.split_first_chunk::<REQUEST_HEADER_LEN>() else { return };
            let Ok(len) = Request::body_len(*header) else { return };
            let Some(rest) = rest.get(..len) else { return };
            // What is unknown is known by its type alone.
            if let Ok(request) = Request::decode(header[0], rest)
                && !matches!(request, Request::Unknown(_))
            {
                let again = request.encode();
                assert_eq!(Request::decode(again[0], &again[REQUEST_HEADER_LEN..]), Ok(request));
            }
        }
        2 => {
            if let Ok(info) = info::decode(body) {
                assert_eq!(info::encode(&info).as_deref(), Ok(body));
            }
        }
        3 => {
            let Some((asked, body)) = body.split_first_chunk::<20>() else { return };
            if let Ok(infos) = decode_path_infos(body, &HashPart::from_bytes(*asked), 16) {
                assert_eq!(encode_path_infos(&infos).as_deref(), Some(body));
            }
        }
        4 => {
            let Some((size, body)) = body.split_first_chunk::<8>() else { return };
            let size = u64::from_be_bytes(*size);
            if let Ok(tree) = decode_nar_tree(body, size) {
                assert_eq!(NarTree::check(&tree, size), Ok(()));
                assert_eq!(encode_nar_tree(&tree).as_deref(), Some(body));
            }
        }
        5 => {
            let Some((len, body)) = body.split_first_chunk::<4>() else { return };
            let raw_len = u32::from_be_bytes(*len) as usize % (FRAME_SIZE + 1);
            let Some((header, data)) = body.split_first_chunk::<FRAME_HEADER_LEN>() else { return };
            let Ok((encoding, len)) = parse_header(*header, raw_len) else { return };
            let Some(data) = data.get(..len) else { return };
            if let Ok(raw) = decode(encoding, Bytes::copy_from_slice(data), raw_len) {
                assert_eq!(raw.len(), raw_len);
            }
        }
        6 => {
            if let Ok(standing) = decode_standing(body) {
                assert_eq!(decode_standing(&encode_standing(&standing)[2..]), Ok(standing));
            }
        }
        8 => {
            if let Ok(named) = decode_named(body) {
                assert_eq!(encode_named(&named).as_deref(), Some(body));
            }
        }
        _ => {
            let Some((left, body)) = body.split_first_chunk::<8>() else { return };
            let left = u64::from_be_bytes(*left);
            let Some(header) = body.first_chunk::<SITE_HEADER_LEN>() else { return };
            match parse_site_header(*header, left) {
                Ok(SiteHead::Bytes(len)) => assert!(len > 0 && len <= SITE_FRAME_MAX && len as u64 <= left),
                Ok(SiteHead::Packed(len)) => {
                    assert!(len > 0 && len < SITE_FRAME_MAX && (len as u64) < left);
                    let Some(word) = body[SITE_HEADER_LEN..].first_chunk::<SITE_PACKED_LEN>() else { return };
                    if let Ok(raw_len) = parse_packed(*word, len, left) {
                        assert!(raw_len > len && raw_len <= SITE_FRAME_MAX && raw_len as u64 <= left);
                    }
                }
                Ok(SiteHead::Waiting | SiteHead::End(_)) | Err(_) => {}
            }
        }
    }
});
