//! The recorded exchanges with a real full node, by name.

use std::collections::BTreeMap;

/// One exchange; protobuf both ways.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) response: Vec<u8>,
}

pub(crate) fn load() -> BTreeMap<String, Exchange> {
    let all: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../tests/fixtures/exchanges.json")).unwrap();
    all.iter()
        .map(|exchange| {
            let response = exchange["response"].as_str().unwrap_or_default();
            let response = data_encoding::BASE64.decode(response.as_bytes()).unwrap();
            (exchange["name"].as_str().unwrap().to_owned(), Exchange { response })
        })
        .collect()
}
