//! Commands that may need the network.

use crate::error::{Context, Outcome};

/// Runs such a command, with its own log and runtime.
pub(crate) fn online<T>(command: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let filter = std::env::var("HAULOUT_LOG").unwrap_or_else(|_| "error".to_owned());
    crate::logging::start(&filter)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context(|| "cannot start the runtime".to_owned())?;
    let done = runtime.block_on(command);
    // Connections to nodes that never answer are nobody's concern now.
    runtime.shutdown_background();
    done
}
