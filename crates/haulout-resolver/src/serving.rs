//! What this machine gives to peers: what it holds, and what it fetches for
//! the site.

use std::sync::Arc;

use haulout_mesh::{
    Asker, Audience, HoldingsFeed, NarKey, NarReader, NarTree, Serve, SiteRequest, SiteSource,
};
use haulout_nix::{HashPart, PathInfo};

use crate::local::LocalStore;
use crate::site::Site;

/// The own store and the site's engine, as the mesh sees them.
pub(crate) struct Giver {
    pub(crate) local: Arc<LocalStore>,
    pub(crate) site: Site,
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

    fn holdings(&self, audience: Audience) -> Option<Arc<HoldingsFeed>> {
        self.local.holdings(audience)
    }
}
