//! One that relays wrong bytes; everything else is as it should be.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use haulout_mesh::{
    Asker, Audience, HoldingsFeed, NarKey, NarReader, NarTree, Serve, SitePiece, SiteRequest,
    SiteSource,
};
use haulout_nix::{HashPart, PathInfo};

/// Makes a liar of who serves, if it is to be one: about what `about` says yes to.
pub(crate) fn lying(
    lies: bool,
    about: fn(&SiteRequest) -> bool,
) -> impl FnOnce(Arc<dyn Serve>) -> Arc<dyn Serve> {
    move |serve| if lies { Arc::new(Liar { serve, about }) } else { serve }
}

/// Turns a bit in every piece of what `about` says yes to.
struct Liar {
    serve: Arc<dyn Serve>,
    about: fn(&SiteRequest) -> bool,
}

impl Serve for Liar {
    fn path_infos(&self, asker: &Asker, hash: &HashPart, max: usize) -> Vec<PathInfo> {
        self.serve.path_infos(asker, hash, max)
    }
    fn nar_tree(&self, asker: &Asker, key: &NarKey) -> Option<NarTree> {
        self.serve.nar_tree(asker, key)
    }
    fn open_nar(&self, asker: &Asker, key: &NarKey) -> Option<Box<dyn NarReader>> {
        self.serve.open_nar(asker, key)
    }
    fn site(&self, asker: &Asker, request: SiteRequest) -> Box<dyn SiteSource> {
        let lies = (self.about)(&request);
        let source = self.serve.site(asker, request);
        if lies { Box::new(Twisted(source)) } else { source }
    }
    fn holdings(&self, audience: Audience) -> Option<Arc<HoldingsFeed>> {
        self.serve.holdings(audience)
    }
}

struct Twisted(Box<dyn SiteSource>);

impl SiteSource for Twisted {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = SitePiece> + Send + '_>> {
        Box::pin(async {
            match self.0.next().await {
                SitePiece::Bytes(bytes) => {
                    let mut bytes = bytes.to_vec();
                    bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1);
                    SitePiece::Bytes(bytes.into())
                }
                end => end,
            }
        })
    }
}
