//! `archive anchor`: what a proof can start from, as full nodes tell it.

use haulout_sui::anchor::{Anchor, ask};
use haulout_sui::network::{TrustAnchor, base58_encode};

use super::args::AnchorArgs;
use super::open::network;
use crate::error::{Failure, Outcome};

/// Prints a network file with the anchor on which all full nodes agree.
pub(super) async fn anchor(args: &AnchorArgs) -> Outcome<()> {
    let mut network = network(&args.network)?;
    let mut told: Option<Anchor> = None;
    for (url, said) in ask(&network).await {
        let anchor = said.map_err(|error| {
            Failure::new(format!("{url} does not say what ended the last epoch"))
                .because(error)
                .hint(
                    "all full nodes of the network are asked and must agree; leave out those that \
                 cannot be reached",
                )
        })?;
        eprintln!("{url}: {}, checkpoint {}", which(anchor), base58_encode(&anchor.digest));
        if told.is_some_and(|told| told != anchor) {
            return Err(Failure::new("the full nodes do not agree")
                .hint("if an epoch has just ended, ask again in a minute; else one of them lies"));
        }
        told = Some(anchor);
    }
    let anchor = told.ok_or_else(|| Failure::new("no full node was asked"))?;
    network.trust_anchor = Some(TrustAnchor::Checkpoint(anchor.digest));
    print!("{}", network.to_toml());
    eprintln!(
        "nothing of this is proven: compare the digest with a source that you trust, such as an explorer, \
         before you use it"
    );
    Ok(())
}

fn which(anchor: Anchor) -> String {
    match anchor.ends {
        Some(epoch) => format!("the end of epoch {epoch}"),
        None => "the first checkpoint of the chain, which is in its first epoch".to_owned(),
    }
}
