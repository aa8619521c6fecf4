//! `archive publisher …` and `archive freeze`: what only the owner can do.

use std::path::Path;
use std::sync::Arc;

use haulout_onchain::{ArchiveFile, Change, change};
use haulout_sui::ObjectId;
use haulout_sui::tx::Wallet;

use super::args::{OwnerArgs, PublisherCommand};
use super::open::{network, wallet};
use crate::error::{Context, Failure, Outcome};
use crate::wallet::state_dir;

/// The archive's file and the owner's wallet.
fn owned(args: &OwnerArgs) -> Outcome<(ArchiveFile, Arc<Wallet>)> {
    let place = &args.place.archive;
    let file = ArchiveFile::read(place)
        .context(|| format!("cannot open the archive {}", place.display()))
        .map_err(|failure| {
            failure.hint("give a file that `haulout archive init --network` wrote")
        })?;
    if file.owner_cap.is_none() {
        return Err(Failure::new(format!("{} has no owner_cap", place.display()))
            .hint("only the owner of an archive can do this"));
    }
    let chain = network(&file.network)?;
    let wallet = wallet(&chain, &args.wallet, &state_dir()?)?;
    Ok((file, wallet))
}

/// An id in full: one that was cut off is somebody else's, or nobody's, and what is sent there is gone.
fn object(name: &str, text: &str) -> Outcome<ObjectId> {
    let id = text.parse::<ObjectId>().ok().filter(|_| text.len() == 66);
    id.ok_or_else(|| {
        Failure::new(format!("{name} {text:?} is not an id in full")).hint("0x and 64 hex digits")
    })
}

fn write(path: &Path, file: &ArchiveFile) -> Outcome<()> {
    std::fs::write(path, file.to_toml()).context(|| format!("cannot write {}", path.display()))
}

async fn run(file: &ArchiveFile, wallet: &Wallet, what: Change) -> Outcome<Option<ObjectId>> {
    change(wallet, file, what).await.context(|| "nothing was changed".to_owned())
}

fn made(cap: Option<ObjectId>) -> Outcome<ObjectId> {
    cap.ok_or_else(|| Failure::new("the transaction made no publisher's cap"))
}

/// `archive publisher …`.
pub(super) async fn publisher(command: &PublisherCommand) -> Outcome<()> {
    match command {
        PublisherCommand::Add { account, out, owner } => {
            let (file, wallet) = owned(owner)?;
            if out.exists() {
                return Err(Failure::new(format!("{} exists already", out.display()))
                    .hint("name a new file with --out"));
            }
            let to = object("the account", account)?;
            let cap = made(run(&file, &wallet, Change::Add { to }).await?)?;
            write(out, &ArchiveFile { publisher_cap: Some(cap), owner_cap: None, ..file })?;
            println!("{cap}");
            eprintln!("{account} publishes with {}", out.display());
        }
        PublisherCommand::Revoke { cap, owner } => {
            let (file, wallet) = owned(owner)?;
            run(&file, &wallet, Change::Revoke { cap: object("the cap", cap)? }).await?;
            eprintln!("{cap} publishes no more");
        }
        PublisherCommand::Rotate { owner } => {
            let (file, wallet) = owned(owner)?;
            let place = &owner.place.archive;
            let old = file.publisher_cap.ok_or_else(|| {
                Failure::new(format!("{} has no publisher_cap to replace", place.display()))
                    .hint("`haulout archive publisher add` makes one")
            })?;
            let what = Change::Replace { cap: old, to: wallet.account() };
            let cap = made(run(&file, &wallet, what).await?)?;
            write(place, &ArchiveFile { publisher_cap: Some(cap), ..file })?;
            println!("{cap}");
            eprintln!("{old} publishes no more; {} names the new cap", place.display());
        }
    }
    Ok(())
}

/// `archive freeze`.
pub(super) async fn freeze(args: &OwnerArgs) -> Outcome<()> {
    let (file, wallet) = owned(args)?;
    run(&file, &wallet, Change::Freeze).await?;
    let place = &args.place.archive;
    write(place, &ArchiveFile { publisher_cap: None, owner_cap: None, ..file })?;
    eprintln!(
        "the archive will never change again; its storage can still be paid for by its blobs' owner"
    );
    Ok(())
}
