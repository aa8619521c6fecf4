//! `haulout devnet`: a Walrus network on this machine, to try things on and to break.

mod args;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use haulout_devnet::control::State;
use haulout_devnet::storage::{Faults, NodesError, Refuse};
use haulout_devnet::sui::FaultState;
use haulout_devnet::{LocalNet, LocalNetError, Plan, files};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use args::DevnetCommand;
use args::{ControlArgs, FaultArgs, FullNodeArgs, UpArgs};

use crate::client::Client;
use crate::control::block_on;
use crate::error::{Context, Failure, Outcome};
use crate::logging;

/// Longest answer of a devnet, in bytes: a line for each of some thousand nodes.
const ANSWER_BYTES_MAX: usize = 4 << 20;

pub(crate) fn run(command: &DevnetCommand) -> Outcome<ExitCode> {
    match command {
        DevnetCommand::Up(args) => up(args)?,
        DevnetCommand::Status(control) => status(control)?,
        DevnetCommand::Fault(args) => fault(args)?,
        DevnetCommand::FullNode(args) => full_node_fault(args)?,
        DevnetCommand::SuiEpoch(control) => {
            let answer = ask(control, &Method::POST, "/sui-epoch", None)?;
            said(control, &answer, &format!("Sui epoch {}", answer["sui_epoch"]));
        }
        DevnetCommand::Epoch(control) => {
            let answer = ask(control, &Method::POST, "/epoch", None)?;
            said(control, &answer, &format!("Walrus epoch {}", answer["epoch"]));
        }
        DevnetCommand::Fund { address, control } => {
            let answer = ask(control, &Method::POST, &format!("/fund/{address}"), None)?;
            said(control, &answer, &format!("{address} has more SUI and WAL now"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn up(args: &UpArgs) -> Outcome<()> {
    logging::start(&args.log)?;
    let runtime =
        tokio::runtime::Runtime::new().context(|| "cannot start the I/O runtime".to_owned())?;
    runtime.block_on(async {
        // From here on a signal means a clean end, even while things are starting.
        let failed = || "cannot listen to signals".to_owned();
        let mut interrupt = signal(SignalKind::interrupt()).context(failed)?;
        let mut terminate = signal(SignalKind::terminate()).context(failed)?;
        let net = LocalNet::start(&plan(args)?).await.map_err(|error| {
            let hint = advice(&error);
            Failure::new("cannot start the devnet").because(error).hint(hint)
        })?;
        announce(args, &net)?;
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
        }
        net.stop().await;
        Ok(())
    })
}

fn advice(error: &LocalNetError) -> &'static str {
    match error {
        LocalNetError::Shards(_) => "--shards takes 4 and more; the public networks have 1000",
        LocalNetError::Nodes(NodesError::Shape(_)) => {
            "every node has a shard: --nodes of at most --shards, or --weights that add up to --shards"
        }
        LocalNetError::Nodes(NodesError::Store(_)) => {
            "another devnet may be running in the same directory: choose another with --dir"
        }
        _ => "are the directory and the addresses yours? --dir, --listen, --rpc, --control",
    }
}

fn plan(args: &UpArgs) -> Outcome<Plan> {
    let dir = std::path::absolute(&args.dir)
        .context(|| format!("{} is not a directory that can be used", args.dir.display()))?;
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&args.seed.to_le_bytes());
    Ok(Plan {
        dir,
        shards: args.shards,
        weights: args.weights.clone(),
        nodes: args.nodes,
        listen: args.listen,
        rpc: args.rpc,
        control: args.control,
        seed,
        validators: args.validators.into(),
        artifacts: !args.no_artifacts,
    })
}

fn announce(args: &UpArgs, net: &LocalNet) -> Outcome<()> {
    let dir = std::path::absolute(&args.dir).unwrap_or_else(|_| args.dir.clone());
    let file = |name: &str| dir.join(name).display().to_string();
    let nodes = net.nodes();
    if args.json {
        let addresses: Vec<_> = (0..nodes.len()).filter_map(|index| nodes.address(index)).collect();
        let line = json!({
            "network": file(files::NETWORK),
            "certificates": file(files::CERTIFICATES),
            "account": file(files::ACCOUNT),
            "rpc": net.full_node().url(),
            "system_object": net.network().system_object.to_string(),
            "staking_object": net.network().staking_object.to_string(),
            "control": net.control().to_string(),
            "shards": args.shards,
            "nodes": addresses,
        });
        println!("{line}");
        return Ok(());
    }
    println!("Walrus on this machine: {} shards on {} nodes", args.shards, nodes.len());
    for index in 0..nodes.len() {
        if let Some(address) = nodes.address(index) {
            println!("  node {index:<3} https://{address}  {} shards", nodes.shards(index).len());
        }
    }
    println!("  full node {}", net.full_node().url());
    println!("  account   {} (has SUI and WAL)", file(files::ACCOUNT));
    println!("  network   {}", file(files::NETWORK));
    let (network, account) = (file(files::NETWORK), file(files::ACCOUNT));
    println!("Try: haulout walrus store --network {network} --wallet {account} --yes FILE");
    println!("Ctrl-C ends it.");
    Ok(())
}

fn status(control: &ControlArgs) -> Outcome<()> {
    let answer = ask(control, &Method::GET, "/", None)?;
    let state: State = serde_json::from_value(answer.clone())
        .context(|| "what answers is not a devnet of this version".to_owned())?;
    let (walrus, sui, checkpoint) = (state.epoch, state.sui_epoch, state.checkpoint);
    let mut text = format!("Walrus epoch {walrus}, Sui epoch {sui}, checkpoint {checkpoint}\n");
    let full_node = differences(&state.full_node, &FaultState::default())?;
    text.push_str(&format!("  full node {full_node}\n"));
    for node in &state.nodes {
        let faults = faults_text(&node.faults)?;
        let (index, address, shards) = (node.index, node.address, node.shards);
        text.push_str(&format!("  node {index:<3} {address}  {shards} shards  {faults}\n"));
    }
    said(control, &answer, text.trim_end());
    Ok(())
}

/// What differs from a node that is well.
fn faults_text(faults: &Faults) -> Outcome<String> {
    differences(faults, &Faults::default())
}

fn differences<T: serde::Serialize>(faults: &T, well: &T) -> Outcome<String> {
    let context = || "faults have no text".to_owned();
    let (now, well) = (
        serde_json::to_value(faults).context(context)?,
        serde_json::to_value(well).context(context)?,
    );
    let wrong = now.as_object().into_iter().flatten().filter(|(name, value)| well[name] != **value);
    let wrong: Vec<_> = wrong.map(|(name, value)| format!("{name}: {value}")).collect();
    Ok(if wrong.is_empty() { "well".to_owned() } else { wrong.join(", ") })
}

fn fault(args: &FaultArgs) -> Outcome<()> {
    let faults = Faults {
        down: args.down,
        delay_ms: args.delay,
        bytes_per_second: args.rate,
        silent: args.silent,
        slivers: args.slivers.map(Into::into),
        metadata: args.metadata.map(Into::into),
        wrong_signature: args.wrong_signature,
        missing_shards: args.missing_shards.iter().copied().collect(),
        refuse: args.refuse.map(|status| Refuse {
            status,
            retry_after: args.retry_after,
            body_bytes: args.refusal_bytes,
        }),
        denied: args.denied.iter().cloned().collect(),
        impostor: args.impostor,
    };
    let body = serde_json::to_vec(&faults).context(|| "faults have no JSON".to_owned())?;
    let path = format!("/nodes/{}/faults", args.node);
    let answer = ask(&args.control, &Method::PUT, &path, Some(body))?;
    said(&args.control, &answer, &format!("node {}: {}", args.node, faults_text(&faults)?));
    Ok(())
}

fn full_node_fault(args: &FullNodeArgs) -> Outcome<()> {
    let faults = FaultState {
        gone: args.gone,
        stale_at: args.stale_at,
        pruned_below: args.pruned_below,
        no_proofs: args.no_proofs,
        forged_object: args.forged_object,
        wrong_version: args.wrong_version,
        wrong_owner: args.wrong_owner,
        other_object: args.other_object,
        truncated_proof: args.truncated_proof,
        bad_signature: args.bad_signature,
        fork: args.fork,
    };
    let body = serde_json::to_vec(&faults).context(|| "faults have no JSON".to_owned())?;
    let answer = ask(&args.control, &Method::PUT, "/full-node/faults", Some(body))?;
    let text = differences(&faults, &FaultState::default())?;
    said(&args.control, &answer, &format!("full node: {text}"));
    Ok(())
}

fn said(control: &ControlArgs, answer: &Value, text: &str) {
    if control.json {
        println!("{answer}");
    } else {
        println!("{text}");
    }
}

/// Sends a command to the devnet that runs in the directory.
fn ask(
    control: &ControlArgs,
    method: &Method,
    path: &str,
    body: Option<Vec<u8>>,
) -> Outcome<Value> {
    let address = address(&control.dir)?;
    let (status, body) = block_on(async {
        let mut client = Client::connect(address).await.map_err(|failure| {
            Failure::new(format!("no devnet answers at {address}: {}", failure.chain()))
                .hint("start one with `haulout devnet up`, or name its directory with --dir")
        })?;
        client.send(method, path, body.unwrap_or_default(), ANSWER_BYTES_MAX).await
    })?;
    let answer: Value = serde_json::from_slice(&body)
        .context(|| format!("what answers at {address} is not a devnet of this version"))?;
    if status == StatusCode::OK {
        return Ok(answer);
    }
    Err(Failure::new(answer["error"].as_str().unwrap_or("the devnet refuses").to_owned()))
}

fn address(dir: &Path) -> Outcome<SocketAddr> {
    let file = dir.join(files::CONTROL);
    let none = || format!("no devnet was started in {}", dir.display());
    let hint = "start one with `haulout devnet up`, or name its directory with --dir";
    let text = std::fs::read_to_string(&file)
        .map_err(|error| Failure::new(none()).because(error).hint(hint))?;
    text.trim().parse().map_err(|_| {
        Failure::new(format!("{} does not hold an address", file.display())).hint(hint)
    })
}
