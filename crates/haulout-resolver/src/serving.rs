//! What this machine gives to peers: what it holds, and what it fetches for
//! the site.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use haulout_mesh::{
    Asker, Audience, HoldingsFeed, NarKey, NarReader, NarTree, ProofQuestion, Serve, SiteRequest,
    SiteSource,
};
use haulout_nix::{HashPart, PathInfo};

use crate::archives::Proofs;
use crate::local::LocalStore;
use crate::site::Site;

/// The own store and the site's engine, as the mesh sees them.
pub(crate) struct Giver {
    pub(crate) local: Arc<LocalStore>,
    pub(crate) site: Site,
    pub(crate) proofs: Arc<OnceLock<Arc<dyn Proofs>>>,
}

impl Serve for Giver {
    fn path_infos(&self, asker: &Asker, hash: &HashPart, max: usize) -> Vec<PathInfo> {
        self.local.path_infos(asker, hash, max)
    }

    fn nar_tree(&self, asker: &Asker, key: &NarKey) -> Option<NarTree> {
        self.local.nar_tree(asker, key)
    }

    fn open_nar(&self, asker: &Asker, key: &NarKey) -> Option<Box<dyn NarReader>> {
        self.local.open_nar(asker, key)
    }

    fn site(&self, asker: &Asker, request: SiteRequest) -> Box<dyn SiteSource> {
        self.site.serve(asker, request)
    }

    fn archive_proof(
        &self,
        _: &Asker,
        question: ProofQuestion,
    ) -> Pin<Box<dyn Future<Output = Option<Bytes>> + Send + '_>> {
        match self.proofs.get() {
            Some(proofs) => proofs.proof(question),
            None => Box::pin(async { None }),
        }
    }

    fn holdings(&self, audience: Audience) -> Option<Arc<HoldingsFeed>> {
        self.local.holdings(audience)
    }
}
